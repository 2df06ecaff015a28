"""Walking the model: which settings there are, and which table a key path leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args, get_origin

from edgeproxy.config.section import Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic.fields import FieldInfo


def settings(
    section: type[Section], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every setting below a section with its path; "*" stands for a name, arrays for one member."""
    for name, info in section.model_fields.items():
        inner = section_in(info.annotation)
        if inner is None:
            yield (*path, name), info
        else:
            named = get_origin(info.annotation) is dict
            yield from settings(inner, (*path, name, "*") if named else (*path, name))


def section_at(root: type[Section], path: Sequence[str | int]) -> type[Section] | None:
    """The section that a path of keys, names and positions leads to; None if it's no section."""
    section: type[Section] | None = root
    named = False
    for part in path:
        if named or isinstance(part, int):
            named = False
            continue
        info = section.model_fields.get(part) if section else None
        if info is None:
            return None
        section = section_in(info.annotation)
        named = get_origin(info.annotation) is dict
    return None if named else section


def section_in(annotation: Any) -> type[Section] | None:
    """The section in an annotation: itself, or that of an optional, an array or a table."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    found = (section_in(argument) for argument in get_args(annotation))
    return next((section for section in found if section), None)
