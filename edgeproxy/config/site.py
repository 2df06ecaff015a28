"""The settings of a site: its hosts and origins, and the policy for what is stored of them."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from edgeproxy.config import scalars
from edgeproxy.config.errors import InvalidSettings, Problem, did_you_mean
from edgeproxy.config.failover import Balancing, Breaker, Check, Retries
from edgeproxy.config.section import Section
from edgeproxy.semantics.cache_control import DEFAULT_TARGETS
from edgeproxy.semantics.freshness import FreshnessPolicy
from edgeproxy.semantics.key import KeyPolicy
from edgeproxy.semantics.storing import LASTING_ERRORS, StoragePolicy
from edgeproxy.semantics.tags import DEFAULT_TAG_FIELDS, TagPolicy

DAY = 86_400.0

RequestCacheControl: TypeAlias = Literal["ignore", "honour", "trusted"]


class OriginTls(Section):
    """TLS towards an https:// origin."""

    verify: scalars.Bool = Field(
        default=True, description="check the origin's certificate", examples=[False]
    )
    server_name: scalars.Host | None = Field(
        default=None,
        description="name to ask for (SNI) and to expect in the certificate; the URL's host if "
        "absent",
        examples=["shop.example"],
    )
    ca_file: scalars.FilePath | None = Field(
        default=None,
        description="file with the authorities to trust (PEM); the system's if absent",
        examples=["/etc/edgeproxy/ca.pem"],
    )


class Origin(Section):
    """A server that the site's content comes from."""

    url: scalars.UpstreamUrl = Field(description="scheme, host and port: http://127.0.0.1:3000")
    tls: OriginTls = Field(default_factory=OriginTls, description="TLS towards this origin")

    @model_validator(mode="after")
    def _check(self) -> Origin:
        if self.url.scheme != "https" and self.tls != OriginTls():
            fault = f'is for https:// origins, and this one is "{self.url}"'
            raise InvalidSettings([Problem("tls", fault)])
        return self


class Timeouts(Section):
    """How long an origin may take."""

    connect: scalars.Timeout = Field(
        default=5.0, description="to connect, TLS and name look-up included", examples=["2s"]
    )
    first_byte: scalars.Timeout = Field(
        default=60.0, description="from the request's last byte to the response's first"
    )
    between_bytes: scalars.Timeout = Field(
        default=60.0, description="between two pieces of the response"
    )
    total: scalars.Timeout | None = Field(
        default=None, description="for the whole exchange; no limit if absent", examples=["5m"]
    )


class Pool(Section):
    """Connections to each origin, per worker."""

    max_connections: scalars.Count = Field(
        default=128,
        description="most connections at a time; more requests wait their turn. Those with a body "
        "get three quarters of them at most, however long their clients take",
    )
    keepalive: scalars.Duration = Field(
        default=15.0, description="how long an unused connection is kept for the next request"
    )
    reuse_after_body: scalars.Bool = Field(
        default=False,
        description="keep connections that a request with a body went over, too; safe only where "
        "the origin reads all bodies, whatever it answers: what it leaves unread it would take for "
        "the next request. A body that meets a connection which the origin is just closing is not "
        "sent again",
        examples=[True],
    )


class Tags(Section):
    """What names the origin gives its responses, to purge them by."""

    fields: tuple[scalars.FieldName, ...] = Field(
        default=tuple(name.decode() for name in DEFAULT_TAG_FIELDS),
        description="response fields to read tags from",
    )
    max_tags: scalars.Count = Field(
        default=1000, description="most tags of a response; with more it is not stored"
    )
    max_tag_bytes: scalars.Count = Field(
        default=1024,
        description="longest tag; a response with a longer one is not stored",
        examples=[256],
    )
    max_total_bytes: scalars.Count = Field(
        default=65_536,
        description="most bytes of all tags of a response; beyond: not stored",
        examples=[16_384],
    )
    debug: scalars.Bool = Field(default=False, description="let readers see the tag fields")

    @model_validator(mode="after")
    def _check(self) -> Tags:
        known = [name.decode() for name in DEFAULT_TAG_FIELDS]
        problems = []
        for number, name in enumerate(self.fields):
            if name not in known:
                near = did_you_mean(name, known)
                hint = f'did you mean "{near}"?' if near else f"known are: {', '.join(known)}"
                fault = f'"{name}" is not a tag field; {hint}'
                problems.append(Problem(f"fields[{number}]", fault))
        if problems:
            raise InvalidSettings(problems)
        return self


class Key(Section):
    """Which URLs are the same page."""

    ignore_query: tuple[scalars.Parameter, ...] = Field(
        default=(),
        description='query parameters that make no difference ("sid"; "utm_*" for all that begin '
        "so)",
    )
    ignore_tracking: scalars.Bool = Field(
        default=False,
        description="ignore the usual tracking parameters too (utm_*, gclid, fbclid, ...)",
    )
    sort_query: scalars.Bool = Field(
        default=False, description="the order of query parameters makes no difference"
    )
    forward_ignored: scalars.Bool = Field(
        default=False,
        description="GET and HEAD go to the origin with the query as it was sent; if not, without "
        "what is ignored, and sorted, as the key has it. What a page shows of an ignored parameter "
        "is served to everybody",
    )
    max_bytes: scalars.Size = Field(
        default=8192,
        description="longest path and query of what is stored; longer ones pass through",
        examples=["2KiB"],
    )


class Ttl(Section):
    """How long responses stay fresh."""

    default: scalars.Duration | None = Field(
        default=None,
        description="for responses that say nothing of their freshness; if absent, a share of "
        "their age is taken (RFC 9111 4.2.2)",
        examples=["5m"],
    )
    max: scalars.Duration | None = Field(
        default=None,
        description="longest, whatever the origin says; no bound if absent",
        examples=["30d"],
    )
    heuristic_fraction: scalars.Fraction = Field(
        default=0.1, description="the share of the time since Last-Modified, where nothing is said"
    )
    heuristic_max: scalars.Duration = Field(
        default=DAY, description="longest that such a guess may be", examples=["1h"]
    )

    @model_validator(mode="after")
    def _check(self) -> Ttl:
        if self.max is not None and self.default is not None and self.max < self.default:
            fault = "is less than `default`; raise it, or lower `default`"
            raise InvalidSettings([Problem("max", fault)])
        return self


class Grace(Section):
    """How long past freshness a response may still be served, where the origin says nothing."""

    stale_while_revalidate: scalars.Duration = Field(
        default=0.0,
        description="at once, while it is refreshed in the background; 0 is never, as RFC 9111 "
        "wants it unless somebody says otherwise",
        examples=["1d"],
    )
    stale_if_error: scalars.Duration = Field(
        default=DAY, description="because the origin fails; 0 is never", examples=["7d"]
    )


class Cache(Section):
    """What is stored, how much of it for one URL, and who may ask for a fresh copy."""

    targets: tuple[scalars.FieldName, ...] = Field(
        default=tuple(name.decode() for name in DEFAULT_TARGETS),
        description="response fields that outrank Cache-Control here, first valid one wins "
        "(RFC 9213)",
        examples=[["cdn-cache-control"]],
    )
    share_set_cookie: scalars.Bool = Field(
        default=False,
        description="store responses with Set-Cookie as RFC 9111 allows; if not, only those that "
        "say `public`",
    )
    store_errors: tuple[scalars.ErrorStatuses, ...] = Field(
        default=tuple(sorted(LASTING_ERRORS)),
        description='status codes of errors that are stored as RFC 9111 allows ("4xx", "5xx": all '
        "such); what one reader's odd request brings about should not be everybody's",
        examples=[[404, 410, 451, "5xx"]],
    )
    deception_armour: scalars.Bool = Field(
        default=True,
        description="store nothing whose Content-Type is not what its URL's extension promises "
        "(HTML under /account/x.css), unless the response speaks of shared caches: `s-maxage`, "
        "`public`, or a lifetime in CDN-Cache-Control and the like",
        examples=[False],
    )
    store_unframed: scalars.Bool = Field(
        default=False,
        description="store bodies whose end is marked only by the connection's close, though a "
        "cut one can't be told from a whole one",
    )
    uncacheable_ttl: scalars.Duration = Field(
        default=60.0,
        description="how long a URL is remembered as uncacheable: its requests don't wait for "
        "each other",
    )
    max_variants: scalars.Count = Field(
        default=32, description="most variants (Vary) of a URL; the least recently used goes"
    )
    max_busters: scalars.Count = Field(
        default=32,
        description="most cb: copies of a URL; the least recently used goes",
        examples=[8],
    )
    max_waiters: scalars.Count = Field(
        default=10_000,
        description="most requests that wait for one answer; what is beyond asks the origin itself",
        examples=[1000],
    )
    collapse_timeout: scalars.Timeout = Field(
        default=30.0,
        description="how long a request waits for another one's answer before it asks the origin "
        "itself",
    )
    request_cache_control: Annotated[
        RequestCacheControl, scalars.choice("ignore", "honour", "trusted")
    ] = Field(
        default="ignore",
        description='readers\' own Cache-Control: "ignore" (all but only-if-cached), "honour", or '
        '"trusted" (honour it from trusted_proxies)',
    )


class Varnish(Section):
    """The PURGE, BAN and PURGEKEYS requests that Varnish's users know, at the public port."""

    networks: tuple[scalars.TrustedNetwork, ...] = Field(
        default=(),
        description="clients that may send them without more ado, and whose GET with "
        "Cache-Control: no-cache fetches anew; if empty, nobody",
        examples=[["10.0.0.5", "10.1.0.0/16"]],
    )
    tokens: scalars.Bool = Field(
        default=False,
        description="others may send them with an admin token in X-Purge-Token",
        examples=[True],
    )


class Site(Section):
    """A set of host names, their origins, and the policy for them."""

    hosts: tuple[scalars.Host, ...] = Field(
        default=(), description='host names; "*.example.com" is every name below example.com'
    )
    preview_hosts: tuple[scalars.Host, ...] = Field(
        default=(),
        description="host names of the environment `preview`, purged apart",
        examples=[["preview.shop.example"]],
    )
    origins: tuple[Origin, ...] = Field(
        min_length=1, description="servers that the content comes from"
    )
    ids: tuple[scalars.Name, ...] = Field(
        default=(),
        description="other names that a vendor's client may call it by: a Cloudflare zone, a "
        "Fastly service",
        examples=[["023e105f4ecef8ad9ca31a8372d0c353"]],
    )
    host_header: scalars.HostHeader = Field(
        default="pass",
        description='the Host that the origin sees: "pass" (the reader\'s), "origin" (the '
        "origin URL's), or a host name",
    )
    let_through: tuple[scalars.ClientField, ...] = Field(
        default=(),
        description="request fields that go on to the origin as clients sent them, though they can "
        "change what is stored for everybody, and are withheld otherwise",
        examples=[["true-client-ip"]],
    )
    cache_status: scalars.Bool = Field(
        default=True,
        description="say in Cache-Status how each request was answered (RFC 9211)",
        examples=[False],
    )
    vercel_cache: scalars.Bool = Field(
        default=False,
        description="say it in x-vercel-cache, too: MISS, HIT, STALE, REVALIDATED or BYPASS",
    )
    timeouts: Timeouts = Field(default_factory=Timeouts, description="how long an origin may take")
    pool: Pool = Field(default_factory=Pool, description="connections to each origin, per worker")
    balancing: Balancing = Field(
        default_factory=Balancing, description="which of several origins gets a request"
    )
    check: Check = Field(default_factory=Check, description="how to ask an origin if it is well")
    breaker: Breaker = Field(
        default_factory=Breaker, description="when an origin is passed over for its failures"
    )
    retries: Retries = Field(
        default_factory=Retries, description="how much may be repeated on another origin"
    )
    tags: Tags = Field(default_factory=Tags, description="names to purge responses by")
    key: Key = Field(default_factory=Key, description="which URLs are the same page")
    ttl: Ttl = Field(default_factory=Ttl, description="how long responses stay fresh")
    grace: Grace = Field(
        default_factory=Grace,
        description="how long past freshness they may be served, where the origin says nothing",
    )
    cache: Cache = Field(default_factory=Cache, description="what is stored, and how much")
    varnish: Varnish = Field(
        default_factory=Varnish, description="who may purge at the public port, as with Varnish"
    )

    def freshness_policy(self) -> FreshnessPolicy:
        return FreshnessPolicy(
            default_ttl=self.ttl.default,
            max_ttl=self.ttl.max,
            heuristic_fraction=self.ttl.heuristic_fraction,
            heuristic_max=self.ttl.heuristic_max,
            grace=self.grace.stale_while_revalidate,
            error_grace=self.grace.stale_if_error,
            targets=self._targets(),
        )

    def storage_policy(self) -> StoragePolicy:
        return StoragePolicy(
            share_set_cookie=self.cache.share_set_cookie,
            targets=self._targets(),
            errors=self._stored_errors(),
            armour=self.cache.deception_armour,
        )

    def key_policy(self) -> KeyPolicy:
        return KeyPolicy(
            ignore_query=frozenset(self.key.ignore_query),
            ignore_tracking=self.key.ignore_tracking,
            sort_query=self.key.sort_query,
        )

    def tag_policy(self) -> TagPolicy:
        return TagPolicy(
            fields=tuple(name.encode() for name in self.tags.fields),
            max_tags=self.tags.max_tags,
            max_tag_bytes=self.tags.max_tag_bytes,
            max_total_bytes=self.tags.max_total_bytes,
        )

    def _stored_errors(self) -> frozenset[int]:
        classes = {"4xx": range(400, 500), "5xx": range(500, 600)}
        return frozenset(
            status
            for each in self.cache.store_errors
            for status in ((each,) if isinstance(each, int) else classes[each])
        )

    def _targets(self) -> tuple[bytes, ...]:
        return tuple(name.encode() for name in self.cache.targets)
