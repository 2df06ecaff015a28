"""The cache key (RFC 9111 2): site, scheme, host, request target, cache buster, and nothing else.

Two URLs share a key only where it is exact that they name one resource (RFC 9110 4.2.3, RFC 3986
6.2.2, 6.2.3): host in lower case, default port left out, an empty path as "/". The path and the
query are otherwise compared byte for byte: "%7E" is not "~" here, nor "//" "/", because an origin
may tell them apart. What else a site wants to be one resource, its `KeyPolicy` says.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from urllib.parse import quote, quote_from_bytes

import msgspec
from msgspec.structs import replace

from edgeproxy.semantics.cache_buster import split_cache_buster
from edgeproxy.semantics.target import split_authority

TRACKING_PARAMETERS: frozenset[str] = frozenset(
    {
        # Google Analytics and Ads, Matomo
        *("utm_*", "gclid", "gclsrc", "dclid", "gbraid", "wbraid", "gad_source", "gad_campaignid"),
        *("srsltid", "_ga", "_gl", "mtm_*", "matomo_*", "piwik_*", "pk_campaign", "pk_kwd"),
        # other advertisers and networks
        *("fbclid", "msclkid", "twclid", "ttclid", "yclid", "igshid", "li_fat_id", "epik"),
        *("rb_clickid", "s_cid", "wickedid", "_openstat"),
        # mailing
        *("mc_cid", "mc_eid", "mkt_tok", "ml_subscriber", "ml_subscriber_hash"),
        *("_hsenc", "_hsmi", "__hstc", "__hssc", "__hsfp", "hsCtaTracking", "hsa_*"),
        *("oly_anon_id", "oly_enc_id", "vero_conv", "vero_id"),
    }
)
"""Query parameters that tell where a reader came from, not what is wanted ("utm_*": a prefix)."""

_DEFAULT_PORT = {"http": 80, "https": 443}
_URL = re.compile(r"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE | re.DOTALL)
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """What a site leaves out of its keys beyond what is exact.

    A parameter's name is compared as sent, byte for byte, up to its first "=": "utm%5Fsource" is
    not "utm_source". One with a ";" in it is never ignored: some origins take that for a "&", and
    what stands behind it would change the page without being in the key. Raises ValueError for a
    "*" that does not end a name.
    """

    ignore_query: frozenset[str] = frozenset()
    """Parameter names; one that ends with "*" stands for all names beginning so."""
    ignore_tracking: bool = False
    """Whether `TRACKING_PARAMETERS` are ignored too."""
    sort_query: bool = False
    """Whether parameters are put in the order of their names; equal names keep their order."""
    _names: frozenset[bytes] = field(init=False, repr=False, compare=False)
    _prefixes: tuple[bytes, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ignored = self.ignore_query | (TRACKING_PARAMETERS if self.ignore_tracking else frozenset())
        for name in ignored:
            if "*" in name[:-1]:
                raise ValueError(f"{name!r}: '*' may only end the name of a query parameter")
        names = frozenset(name.encode() for name in ignored if not name.endswith("*"))
        prefixes = tuple(sorted(name[:-1].encode() for name in ignored if name.endswith("*")))
        object.__setattr__(self, "_names", names)
        object.__setattr__(self, "_prefixes", prefixes)

    def canonical_target(self, target: bytes) -> bytes:
        """The request target (without `cb:` segment) as the key has it; applying it twice is once.

        Parameters that stay keep every byte. Where all parameters go, their "?" goes too; an
        empty query that was sent as one ("/p?") stays apart from none ("/p").
        """
        if target[:1] in (b"", b"?"):
            target = b"/" + target  # RFC 9110 4.2.3
        path, mark, query = target.partition(b"?")
        if not query or not (self._names or self._prefixes or self.sort_query):
            return target
        parameters = [each for each in query.split(b"&") if not self._ignores(each)]
        if not parameters:
            return path
        if self.sort_query:
            parameters.sort(key=_parameter_name)
        return path + mark + b"&".join(parameters)

    def _ignores(self, parameter: bytes) -> bool:
        if b";" in parameter:
            return False
        name = _parameter_name(parameter)
        return name in self._names or name.startswith(self._prefixes)


def _parameter_name(parameter: bytes) -> bytes:
    return parameter.partition(b"=")[0]


class CacheKey(msgspec.Struct, frozen=True):
    """What stored responses are found by; variants hang under it (RFC 9111 4.1)."""

    site: str
    scheme: str
    host: str
    """Lower-case, with the port unless it is the scheme's default."""
    target: bytes
    """The request target after the site's key rules, without the `cb:` segment."""
    buster: bytes
    """The cache buster's token; b"" when there is none."""
    primary: bytes
    """16 bytes that stand for all of the above."""
    target_id: bytes
    """16 bytes that stand for site and target alone: what a purge by path selects, on all of the
    site's hosts, by either scheme, with every cache buster."""

    @property
    def url(self) -> str:
        """The URL for people to read, with its `cb:` segment; bytes beyond ASCII are escaped."""
        segment = f"/cb:{self.buster.decode()}" if self.buster else ""
        return f"{self.scheme}://{self.host}{segment}{_escape(self.target)}"


def cache_key(site: str, scheme: str, host: str, target: bytes, policy: KeyPolicy) -> CacheKey:
    """The key of a request target as received, `cb:` segment and all.

    `host` may have a port. Raises ValueError when it is not valid; one that `read_target` let
    pass always is.
    """
    host = canonical_host(scheme, host)
    buster, rest = split_cache_buster(target)
    target = policy.canonical_target(rest)
    primary = _primary(site, scheme, host, target, buster)
    return CacheKey(site, scheme, host, target, buster, primary, target_id(site, target))


def without_buster(key: CacheKey) -> CacheKey:
    """The key of the same URL without its `cb:` segment."""
    primary = _primary(key.site, key.scheme, key.host, key.target, b"")
    return replace(key, buster=b"", primary=primary)


def target_id(site: str, target: bytes) -> bytes:
    """`CacheKey.target_id` of a canonical target, as `purge_target` gives it."""
    data = _measured(site.encode(), target)
    return blake2b(data, digest_size=16, person=b"target").digest()


def canonical_host(scheme: str, authority: str) -> str:
    """`host[:port]` in lower case, without the scheme's default port; ValueError if not valid."""
    parts = split_authority(authority)
    if parts is None:
        raise ValueError(f"{authority!r} is not a valid host")
    host, port = parts
    return host if port in (None, _DEFAULT_PORT.get(scheme)) else f"{host}:{port}"


def purge_target(url_or_path: str, policy: KeyPolicy) -> tuple[str | None, bytes]:
    """The host (None: every host) and the canonical target that a purge by URL selects.

    Takes an absolute http(s) URL, or a path within the site. A fragment, a default port and a
    `cb:` segment are left out; characters beyond ASCII count as the percent-encoded UTF-8 that
    a browser sends for them (RFC 3987 3.1). Raises ValueError with a message for the caller.
    """
    host, target = _host_and_target(url_or_path)
    _, rest = split_cache_buster(target)
    return host, policy.canonical_target(rest)


def split_url(url: str) -> tuple[str, str, bytes]:
    """The scheme, the authority as it stands there, and the request target of an absolute http(s)
    URL, as a browser would send it. Raises ValueError with a message for the caller."""
    found = _URL.match(url)
    if found is None or _NOT_IN_URL.search(url):
        raise ValueError(f"{url!r} is not an absolute http(s) URL")
    target = _to_uri(found[3])
    return found[1].lower(), found[2], target if target.startswith(b"/") else b"/" + target


def purge_prefix(url_or_path: str) -> tuple[str | None, bytes]:
    """The host (None: every host) and what the canonical targets begin with that a purge by prefix
    selects; the rest is as for `purge_target`."""
    host, target = _host_and_target(url_or_path)
    return host, target if target.startswith(b"/") else b"/" + target


def _host_and_target(url_or_path: str) -> tuple[str | None, bytes]:
    if _NOT_IN_URL.search(url_or_path):
        raise ValueError(f"{url_or_path!r}: spaces and control characters must be percent-encoded")
    url = _URL.match(url_or_path)
    if url is not None:
        if "@" in url[2]:
            raise ValueError(f"{url_or_path!r}: a URL to purge has no user information")
        return canonical_host(url[1].lower(), url[2]), _to_uri(url[3])
    if url_or_path.startswith("/"):
        return None, _to_uri(url_or_path.partition("#")[0])
    raise ValueError(f"{url_or_path!r} is neither an http(s) URL nor a path beginning with '/'")


def _primary(site: str, scheme: str, host: str, target: bytes, buster: bytes) -> bytes:
    data = _place(site, scheme, host) + _measured(target, buster)
    return blake2b(data, digest_size=16, person=b"primary").digest()


@lru_cache(maxsize=1024)
def _place(site: str, scheme: str, host: str) -> bytes:
    return _measured(site.encode(), scheme.encode(), host.encode())


def _measured(*parts: bytes) -> bytes:
    # Each part goes in behind its length: no two lists of parts give the same bytes.
    return b"".join([b"%d:%b" % (len(part), part) for part in parts])


def _to_uri(text: str) -> bytes:
    return quote(text, safe=_PRINTABLE).encode("ascii")


def _escape(target: bytes) -> str:
    return quote_from_bytes(target, safe=_PRINTABLE)
