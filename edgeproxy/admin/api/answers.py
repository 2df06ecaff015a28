"""What the own API answers. Times are in seconds since the epoch.

Models are built when they are first used: an edge starts the sooner.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """A JSON object; what was not set is left out of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, from_attributes=True)


class Page(Answer):
    """A part of a list."""

    next: str | None
    """The cursor of the next page; null: this is the last. A page may have less than was asked for,
    or nothing, and not be the last."""


class FieldError(Answer):
    """What is wrong with one field."""

    field: str
    """Its path in the body, such as `selectors[2].pattern`, or the name of a parameter or header;
    empty: the body as a whole."""
    detail: str


class ProblemAnswer(Answer):
    """An error (RFC 9457)."""

    model_config = ConfigDict(title="Problem")

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []
    """The fields that are wrong."""


class PurgeAnswer(Answer):
    """What became of a purge; it is on the disk, and in force on the whole node."""

    id: str | None
    """The record's in the journal; null for a dry run, which leaves none."""
    position: int
    """Its place in the journal; of a dry run, that of the newest record."""
    mode: Literal["invalidate", "delete"]
    matched: int
    """How many stored responses it picked."""
    dry_run: bool
    deadline: float = 0.0
    """As it was asked for."""
    job: str = ""
    """The job that fetches anew what was picked, if that was asked for."""


class Freshness(Answer):
    """RFC 9111 4.2, in seconds."""

    source: str
    lifetime: float
    age: float
    ttl: float
    stale_while_revalidate: float
    stale_if_error: float


class StoredBody(Answer):
    """Where a body is, and how many bytes it has."""

    where: str
    length: int


class Entry(Answer):
    """All about one stored response."""

    id: str
    url: str
    hash: str
    """Of the URL: what Optimole's `invalidate/asset` takes."""
    environment: str
    cache_buster: str | None
    variant: dict[str, str | None]
    """The request fields that it is for; null: absent."""
    served: Literal["hit", "stale", "revalidate", "no"]
    """What a plain GET for it would meet."""
    why: str
    status: int
    fields: list[tuple[str, str]]
    tags: list[str]
    freshness: Freshness
    position: int
    """The journal's newest position when its fetch left."""
    invalidated_at: int | None
    """The journal position that marked it stale."""
    received: float
    body: StoredBody


class EntriesAnswer(Page):
    """Stored responses."""

    url: str | None
    """As it was asked for."""
    position: int
    """The journal's newest."""
    entries: list[Entry]
    notes: list[str]
    """Why nothing is stored for the URL, where the worker that answers remembers it."""


class ExplainAnswer(Answer):
    """What would become of a request now."""

    method: str
    url: str
    """As the cache key has it."""
    site: str
    environment: str
    result: Literal["hit", "stale", "revalidate", "miss", "pass", "refuse"]
    why: str
    cache_status: str
    """What Cache-Status would say, but for what only the origin's answer tells."""
    key: str
    """The cache key."""
    cache_buster: str | None
    """The `cb:` token that names a copy of its own."""
    vary: list[str]
    """The request fields that select among what is stored under the key."""
    position: int
    """The journal's newest."""
    entry: Entry | None
    """The stored response that answers it, or that the origin is asked about."""
    others: list[Entry]
    """What else is stored under the key, at most 100."""


class TagItem(Answer):
    """A tag."""

    site: str
    tag: str
    count: int
    """How many stored responses bear it."""


class TagsAnswer(Page):
    """Tags, the most used first."""

    tags: list[TagItem]


class SelectorItem(Answer):
    """A selector, as `selectors` of a purge takes it, and of which site and environment."""

    site: str
    environment: str = ""
    everything: bool = False
    tag: str = ""
    any_case: bool = False
    url: str = ""
    prefix: str = ""
    host: str = ""
    pattern: str = ""
    pattern_on: str = ""
    source: str = ""
    source_host: str = ""
    content_type: str = ""
    status: int = 0


class IssuedItem(Answer):
    """A cache buster that was issued: `/cb:TOKEN/path` is answered by nothing that was asked for
    before that."""

    token: str
    site: str
    host: str | None
    """Good for this host; null: for all of the site."""
    one_url: bool
    """Good for one URL alone."""


class RecordItem(Answer):
    """One record of the journal."""

    position: int
    id: str
    time: float
    kind: Literal["purge", "token"]
    actor: str
    """The name of the token that was used; "origin" for what RFC 9111 4.4 asks."""
    source: str
    """The address that it came from."""
    dialect: str
    mode: Literal["invalidate", "delete"] = "invalidate"
    selectors: list[SelectorItem] = []
    """Those of sites that the token may read."""
    matched: int | None = None
    """How many stored responses it picked; null: so many that they were counted later, or some that
    the token may not know of."""
    deadline: float = 0.0
    """Seconds for which stale could still be served."""
    issued: IssuedItem = IssuedItem(token="", site="", host=None, one_url=False)
    """What a record of kind "token" issued."""


class JournalAnswer(Page):
    """The journal, the newest record first."""

    position: int
    """The newest."""
    records: list[RecordItem]


class TokenAnswer(Answer):
    """An issued cache buster."""

    token: str
    site: str
    position: int
    """Its place in the journal: what was asked for before is no answer."""
    path: str
    """What to put before a path."""


class TokenItem(IssuedItem):
    """A cache buster that is known."""

    position: int
    time: float | None
    """When it was issued; null: that is forgotten."""
    actor: str | None
    """By which token."""


class TokensAnswer(Page):
    """Cache busters, the newest first."""

    tokens: list[TokenItem]
