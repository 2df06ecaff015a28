"""What the own API takes: the bodies of its requests, checked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

# Bounds of one call. What selects more is better said with one tag.
MAX_SELECTORS = 10_000
_MAX_TEXT = 8192

Text = Annotated[str, Field(min_length=1, max_length=_MAX_TEXT)]


class PurgeRequest(BaseModel):
    """The body of `POST /v1/purge`: what to purge, where, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    tags: Annotated[list[Text], Field(max_length=MAX_SELECTORS)] = []
    urls: Annotated[list[Text], Field(max_length=MAX_SELECTORS)] = []
    everything: bool = False
    site: Text | None = None
    """A site's name; "*" is every site that the token may purge."""
    environment: Literal["production", "preview"] | None = None
    mode: Literal["invalidate", "delete"] = "invalidate"
    dry_run: bool = False

    @model_validator(mode="after")
    def _selects_something(self) -> PurgeRequest:
        if not (self.tags or self.urls or self.everything):
            raise PydanticCustomError(
                "nothing_selected", 'give "tags", "urls" or "everything": true'
            )
        return self
