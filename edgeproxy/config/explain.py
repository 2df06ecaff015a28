"""What pydantic found, in the words of the configuration: which key, what is wrong, what is right.

Values are never quoted here, only their types: in the wrong place even a password may stand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeproxy.config.errors import InvalidSettings, Problem, did_you_mean, key_path
from edgeproxy.config.schema import section_at
from edgeproxy.config.sizes import toml_type

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from edgeproxy.config.section import Section

_EXPECTED = {
    "bool_type": "expected true or false",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "string_type": "expected a string",
    "tuple_type": "expected an array, [...]",
    "dict_type": "expected a table",
    "model_type": "expected a table",
    "model_attributes_type": "expected a table",
}

_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
}


def explain(error: ValidationError, root: type[Section]) -> list[Problem]:
    """Every problem of a failed validation, in the order of the settings."""
    details = error.errors(include_url=False)
    problems: list[Problem] = []
    meant: set[tuple[str | int, ...]] = set()
    for detail in details:
        if detail["type"] == "extra_forbidden":
            *above, key = detail["loc"]
            near = did_you_mean(str(key), _keys(root, above))
            if near is not None:
                meant.add((*above, near))
    inside = {detail["loc"][:end] for detail in details for end in range(len(detail["loc"]))}
    for detail in details:
        # A misspelt key is one problem, though the right one is missing because of it; and so is a
        # wrong member, though its array counts as empty without it.
        follows = (detail["type"] == "missing" and detail["loc"] in meant) or (
            detail["type"] == "too_short" and detail["loc"] in inside
        )
        if not follows:
            problems.extend(_problems(detail, root))
    return problems


def _problems(detail: ErrorDetails, root: type[Section]) -> Iterator[Problem]:
    location = tuple(part for part in detail["loc"] if part != "[key]")
    context: dict[str, Any] = detail.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, InvalidSettings):
        above = key_path(*location)
        for inner in cause.problems:
            key = f"{above}.{inner.key}" if above and inner.key else above or inner.key
            yield Problem(key, inner.message)
        return
    yield Problem(key_path(*location), _message(detail, location, cause, context, root))


def _message(
    detail: ErrorDetails,
    location: tuple[str | int, ...],
    cause: object,
    context: dict[str, Any],
    root: type[Section],
) -> str:
    kind = detail["type"]
    if cause is not None:
        return str(cause)
    if kind == "extra_forbidden":
        known = _keys(root, location[:-1])
        near = did_you_mean(str(location[-1]), known)
        hint = f'did you mean "{near}"?' if near else f"known here: {', '.join(known)}"
        return f"unknown key; {hint}"
    if kind == "missing":
        return f"is required: {_description(root, location)}"
    if kind in _EXPECTED:
        return f"{_EXPECTED[kind]}, got {toml_type(detail['input'])}"
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"must be {words} {context[name]:g}, got {detail['input']}"
    if kind == "too_short":
        return f"must not be empty: {_description(root, location)}"
    return detail["msg"]


def _keys(root: type[Section], above: Any) -> list[str]:
    section = section_at(root, above)
    return list(section.model_fields) if section else []


def _description(root: type[Section], location: tuple[str | int, ...]) -> str:
    section = section_at(root, location[:-1])
    info = section.model_fields.get(str(location[-1])) if section else None
    return (info.description if info else None) or ""
