"""What the own API takes: bodies and query parameters, checked, and described for OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from edgeproxy.admin.api.kinds import (
    FIELD_VALUE,
    MAX_CONDITIONS,
    MAX_FIELDS,
    MAX_IN_QUERY,
    MAX_PATTERNS,
    MAX_SELECTORS,
    MAX_TEXT,
    TOKEN,
    Cursor,
    Glob,
    Host,
    Limit,
    MediaType,
    Pattern,
    SiteName,
    Status,
    Tag,
    Text,
    Url,
    UrlOrPath,
)
from edgeproxy.invalidation.service import MAX_DEADLINE
from edgeproxy.semantics.environment import Environment


def _tidy(schema: dict[str, Any]) -> None:
    """A default that only says "not given" is no value that one could give."""
    for each in schema.get("properties", {}).values():
        if each.get("default", 0) in ("", None, []) or (
            each.get("default") == 0 and each.get("type") in ("integer", "number")
        ):
            del each["default"]


class Body(BaseModel):
    """A JSON object. No key and no type is guessed at: a mistake must not purge something else."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        defer_build=True,
        json_schema_extra=_tidy,
    )


_CONDITIONS = (
    *("tag", "url", "prefix", "host", "pattern", "glob", "source", "source_host"),
    *("content_type", "status"),
)


def _describe_condition(schema: dict[str, Any]) -> None:
    _tidy(schema)
    schema["anyOf"] = [{"required": [name]} for name in _CONDITIONS]
    schema["not"] = {"required": ["pattern", "glob"]}
    schema["dependentRequired"] = {"any_case": ["tag"]}


class Condition(Body):
    """One selector: it picks the stored responses that meet all that is given."""

    model_config = ConfigDict(json_schema_extra=_describe_condition)

    tag: Tag = ""
    """Bears this tag, compared character by character."""
    any_case: bool = False
    """Compare the tag without regard to case."""
    url: UrlOrPath = ""
    """Is for this URL, or for this path on any host of the site; variants and `cb:` copies too."""
    prefix: UrlOrPath = ""
    """Is for a URL, or a path, that begins so."""
    host: Host = ""
    """Is for this host."""
    pattern: Pattern = ""
    """This RE2 expression is found in its path with query."""
    glob: Glob = ""
    """Its whole path with query is of this form, or its URL if this begins with "http": `*` is
    anything but "/", `**` anything, `?` one character."""
    pattern_on: Literal["path", "url"] = "path"
    """What the pattern is looked for in: the path with query, or the whole URL."""
    source: Text = ""
    """Is an image made from the one at this URL or path."""
    source_host: Host = ""
    """Is an image made from one of this host."""
    content_type: MediaType = ""
    """Has this media type; "image/*" is all of a kind."""
    status: Status = 0
    """Has this status code."""

    @model_validator(mode="after")
    def _selects_something(self) -> Condition:
        if not any(getattr(self, name) for name in _CONDITIONS):
            raise PydanticCustomError(
                "nothing_selected", f"give one of {', '.join(_CONDITIONS)}, or several"
            )
        if self.pattern and self.glob:
            raise PydanticCustomError("two_patterns", "give pattern or glob, not both")
        if "any_case" in self.model_fields_set and not self.tag:
            raise PydanticCustomError("no_tag", "any_case is of no use without tag")
        return self


_LISTS = ("tags", "urls", "prefixes", "hosts", "patterns", "globs", "sources", "selectors")


def _describe_purge(schema: dict[str, Any]) -> None:
    _tidy(schema)
    given = [{"required": [name], "properties": {name: {"minItems": 1}}} for name in _LISTS]
    everything = {"required": ["everything"], "properties": {"everything": {"const": True}}}
    schema["anyOf"] = [everything, *given]
    schema["dependentSchemas"] = {
        "deadline": {"required": ["mode"], "properties": {"mode": {"const": "delete"}}}
    }


class PurgeRequest(Body):
    """What to purge, where, and how. It picks what any of its selectors picks."""

    model_config = ConfigDict(json_schema_extra=_describe_purge)

    tags: Annotated[list[Tag], Field(max_length=MAX_SELECTORS)] = []
    """What bears any of these tags, compared character by character."""
    urls: Annotated[list[UrlOrPath], Field(max_length=MAX_SELECTORS)] = []
    """Absolute URLs (of the site that serves the host; the scheme makes no difference), or paths on
    all hosts of the site. Variants and `cb:` copies are picked, too."""
    prefixes: Annotated[list[UrlOrPath], Field(max_length=MAX_SELECTORS)] = []
    """What URLs or paths begin with, byte for byte."""
    hosts: Annotated[list[Host], Field(max_length=MAX_SELECTORS)] = []
    """All of these hosts."""
    patterns: Annotated[list[Pattern], Field(max_length=MAX_PATTERNS)] = []
    """RE2 expressions that are found in the path with query."""
    globs: Annotated[list[Glob], Field(max_length=MAX_PATTERNS)] = []
    """Forms of the whole path with query, or of the URL if it begins with "http": `*` is anything
    but "/", `**` anything, `?` one character."""
    sources: Annotated[list[Text], Field(max_length=MAX_SELECTORS)] = []
    """Images that were made from those at these URLs or paths."""
    everything: bool = False
    """All of the site."""
    selectors: Annotated[list[Condition], Field(max_length=MAX_CONDITIONS)] = []
    """Selectors whose conditions must all be met."""
    site: SiteName | None = None
    """A site's name; "*" is every site that the token may purge. Needed where there are several,
    for what names no host."""
    environment: Environment | None = None
    """Only this environment's hosts; if absent, all that the token is good for."""
    mode: Literal["invalidate", "delete"] = "invalidate"
    """Mark stale, so that the next request gets the stale copy and one refresh runs behind it; or
    never serve again."""
    deadline: Annotated[float, Field(gt=0, le=MAX_DEADLINE, allow_inf_nan=False)] = 0.0
    """For "delete": so many seconds stale may still be served while it is refreshed."""
    dry_run: bool = False
    """Only count."""
    refresh: bool = False
    """Fetch what was picked anew, what is used most first, in a job."""

    @model_validator(mode="after")
    def _selects_something(self) -> PurgeRequest:
        if not self.everything and not any(getattr(self, name) for name in _LISTS):
            named = ", ".join(f'"{name}"' for name in _LISTS)
            raise PydanticCustomError("nothing_selected", f'give {named} or "everything": true')
        if self.deadline and self.mode != "delete":
            raise PydanticCustomError("no_deadline", 'a deadline goes with "mode": "delete"')
        return self


class TokenRequest(Body):
    """What a cache buster is to be good for: a site, one of its hosts, or one URL."""

    site: SiteName | None = None
    """A site's name, needed where there are several and neither host nor URL says which."""
    host: Host | None = None
    """One host of the site."""
    url: UrlOrPath | None = None
    """One URL, or one path of the site."""


def _method(text: str) -> str:
    if TOKEN.fullmatch(text) is None:
        raise PydanticCustomError("method", "must be a method (RFC 9110 9.1)")
    return text


class ExplainRequest(Body):
    """A request of a reader, as it would come to the public port."""

    url: Url
    """The absolute URL, `cb:` segment and all."""
    method: Annotated[
        str,
        AfterValidator(_method),
        Field(min_length=1, max_length=32, json_schema_extra={"pattern": f"^{TOKEN.pattern}$"}),
    ] = "GET"
    """Its method."""
    fields: Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=256)],
            Annotated[str, Field(max_length=MAX_TEXT)],
        ],
        Field(
            max_length=MAX_FIELDS,
            json_schema_extra={
                "propertyNames": {"pattern": f"^{TOKEN.pattern}$", "maxLength": 256},
                "additionalProperties": {
                    "type": "string",
                    "maxLength": MAX_TEXT,
                    "pattern": r"^[\t\u0020-\u007e\u0080-\u00ff]*$",
                },
            },
        ),
    ] = {}
    """Its header fields by name; Host is always that of the URL."""

    @model_validator(mode="after")
    def _fields_can_be_sent(self) -> ExplainRequest:
        for name, value in self.fields.items():
            if TOKEN.fullmatch(name) is None or FIELD_VALUE.fullmatch(value) is None:
                raise PydanticCustomError(
                    "field", "fields: {name} is no header field", {"name": repr(name)}
                )
        return self


class Query(BaseModel):
    """Query parameters."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, defer_build=True, json_schema_extra=_tidy
    )


class PageQuery(Query):
    """What every list takes."""

    limit: Limit = 100
    """At most so many items."""
    cursor: Cursor | None = None
    """The `next` of the page before."""


class SiteQuery(PageQuery):
    """A list that may be of one site alone."""

    site: SiteName | None = None
    """Only of this site; if absent, or "*", of all that the token may read."""


class StreamQuery(Query):
    """A stream that may be of one site alone."""

    site: SiteName | None = None
    """Only of this site; if absent, or "*", of all that the token may read."""


class EnvironmentQuery(SiteQuery):
    """A list that may be of one environment alone."""

    environment: Environment | None = None
    """Only of this environment; if absent, of all that the token is good for."""


class EntriesQuery(EnvironmentQuery):
    """Which stored responses: those that meet all that is given."""

    url: Annotated[UrlOrPath, Field(max_length=MAX_IN_QUERY)] = ""
    """For this URL, or for this path on any host."""
    tag: Annotated[Tag, Field(max_length=MAX_IN_QUERY)] = ""
    """With this tag."""
    prefix: Annotated[UrlOrPath, Field(max_length=MAX_IN_QUERY)] = ""
    """For URLs, or paths, that begin so."""
    host: Host = ""
    """For this host."""


class TagsQuery(EnvironmentQuery):
    """Which tags."""

    prefix: Annotated[Tag, Field(max_length=256)] = ""
    """Only those that begin so."""
