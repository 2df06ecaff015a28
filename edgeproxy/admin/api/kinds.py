"""The kinds of values that the own API takes, how each is checked, and described for OpenAPI.

What JSON Schema has no words for is a `format` of ours: `url`, `url-or-path`, `host`, `re2`,
`site` and `cursor`.
"""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from edgeproxy.invalidation.patterns import MAX_PATTERN

# Bounds of one call. What selects more is better said with one tag.
MAX_SELECTORS = 10_000
MAX_PATTERNS = 100
MAX_CONDITIONS = 500
MAX_LIMIT = 1000
MAX_TEXT = 8192
MAX_IN_QUERY = 2048
MAX_FIELDS = 100

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NO_CONTROL = r"^[^\u0000-\u001f\u007f-\u009f]+$"
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/(?:[A-Za-z0-9!#$&^_.+-]+|\*)")
TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def _no_control(text: str) -> str:
    # RFC 9110 5.5 lets no field bear them, so no tag has any.
    if _CONTROL.search(text):
        raise PydanticCustomError("control", "must not have control characters")
    return text


def _media_type(text: str) -> str:
    if _MEDIA_TYPE.fullmatch(text) is None:
        raise PydanticCustomError("media_type", 'must be a media type, or one like "image/*"')
    return text


def _decimal(value: object) -> object:
    # Left to itself, pydantic takes " 1_0" for 10.
    if not isinstance(value, str) or not value.isascii() or not value.isdigit():
        raise PydanticCustomError("decimal", "must be a number, in digits")
    return int(value[:9])


def _integral(value: object) -> object:
    # To JSON Schema 200.0 is an integer.
    return int(value) if isinstance(value, float) and value.is_integer() else value


Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
Tag: TypeAlias = Annotated[
    Text, AfterValidator(_no_control), Field(json_schema_extra={"pattern": _NO_CONTROL})
]
UrlOrPath: TypeAlias = Annotated[Text, Field(json_schema_extra={"format": "url-or-path"})]
Url: TypeAlias = Annotated[Text, Field(json_schema_extra={"format": "url"})]
Host: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=261, json_schema_extra={"format": "host"})
]
Pattern: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=MAX_PATTERN, json_schema_extra={"format": "re2"})
]
Glob: TypeAlias = Annotated[
    str,
    AfterValidator(_no_control),
    Field(min_length=1, max_length=200, json_schema_extra={"pattern": _NO_CONTROL}),
]
SiteName: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=200, json_schema_extra={"format": "site"})
]
MediaType: TypeAlias = Annotated[
    str,
    AfterValidator(_media_type),
    Field(max_length=255, json_schema_extra={"pattern": f"^{_MEDIA_TYPE.pattern}$"}),
]
Status: TypeAlias = Annotated[int, Field(ge=100, le=599), BeforeValidator(_integral)]
Limit: TypeAlias = Annotated[int, Field(ge=1, le=MAX_LIMIT), BeforeValidator(_decimal)]
Cursor: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=MAX_IN_QUERY, json_schema_extra={"format": "cursor"})
]
