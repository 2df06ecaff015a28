"""The reference of every setting in Markdown, made from the model.

    python -m edgeproxy.config.reference docs/configuration.md

writes it between the two markers of that file; what stands around them is left alone.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from edgeproxy.config.errors import one_of
from edgeproxy.config.model import Config
from edgeproxy.config.scalars import Kind
from edgeproxy.config.schema import section_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

    from edgeproxy.config.section import Section

BEGIN = "<!-- settings, written by `make docs`: begin -->"
END = "<!-- settings: end -->"

_HEAD = "| key | type | default | meaning | example |\n| --- | --- | --- | --- | --- |"


def reference() -> str:
    """All tables of the configuration, a heading and a row a setting each."""
    return "\n\n".join(_section("", Config, "")) + "\n"


def with_reference(document: str) -> str:
    """The document with the reference between its markers."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document lacks the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def _section(title: str, section: type[Section], description: str) -> Iterator[str]:
    rows, inner = [], []
    for name, info in section.model_fields.items():
        below = section_in(info.annotation)
        if below is None:
            rows.append(_row(name, info))
        else:
            inner.append((_title(title, name, info.annotation), below, info.description or ""))
    parts = [f"### {title or 'At the top of the file'}"]
    if description:
        parts.append(f"{description[0].upper()}{description[1:]}.")
    if rows:
        parts.append("\n".join([_HEAD, *rows]))
    if rows:
        yield "\n\n".join(parts)
    for where, below, text in inner:
        yield from _section(where, below, text)


def _title(above: str, name: str, annotation: Any) -> str:
    """The header that TOML has for it: `[store]`, `[[listen]]`, `[sites.NAME.ttl]`."""
    path = ".".join(filter(None, [above.strip("[]`"), name]))
    if get_origin(annotation) is dict:
        return f"`[{path}.NAME]`"
    return f"`[[{path}]]`" if get_origin(annotation) is tuple else f"`[{path}]`"


def _row(name: str, info: FieldInfo) -> str:
    cells = (
        f"`{name}`",
        _plain(_type(info)),
        _default(info),
        _plain(info.description or ""),
        f"`{name} = {json.dumps(example(info))}`",
    )
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """The text with nothing in it that Markdown would take for its own."""
    return re.sub(r"([*|<])", r"\\\1", text)


def _type(info: FieldInfo) -> str:
    name = _kind(info).name
    return f"array: {name}" if _is_array(info) else name


def _default(info: FieldInfo) -> str:
    extra = info.json_schema_extra
    if isinstance(extra, dict) and "default" in extra:
        return f"`{extra['default']}`"
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True, validated_data={})
    return "none" if value is None else f"`{_written(info, value)}`"


def _written(info: FieldInfo, value: Any) -> str:
    write = _kind(info).write
    return f"[{', '.join(map(write, value))}]" if _is_array(info) else write(value)


def example(info: FieldInfo) -> Any:
    """A value for that setting, as it comes from TOML."""
    if info.examples:
        return info.examples[0]
    value = _kind(info).example
    return [value] if _is_array(info) else value


def _is_array(info: FieldInfo) -> bool:
    return get_origin(info.annotation) is tuple


def _kind(info: FieldInfo) -> Kind:
    found = next(_kinds(info.annotation, tuple(info.metadata)), None)
    if found is None:
        raise TypeError(f"{info.annotation} has no Kind")
    return found


def _kinds(annotation: Any, metadata: tuple[Any, ...]) -> Iterator[Kind]:
    """The kinds in an annotation, its own first; a choice is one too."""
    yield from (item for item in metadata if isinstance(item, Kind))
    if get_origin(annotation) is Literal:
        choices = get_args(annotation)
        yield Kind(one_of(choices), choices[-1])
    else:
        own = getattr(annotation, "__metadata__", ())
        for inner in get_args(annotation):
            if not isinstance(inner, str):
                yield from _kinds(inner, own)


def _main(path: Path) -> None:
    path.write_text(with_reference(path.read_text()))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
