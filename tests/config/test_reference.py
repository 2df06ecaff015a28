"""docs/configuration.md: what it says of the settings is what the model says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.config.load import load_config
from edgeproxy.config.model import Config
from edgeproxy.config.reference import BEGIN, END, example, reference, with_reference
from edgeproxy.config.schema import section_at, settings
from tests.config.configs import LEAST
from tests.config.examples import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic.fields import FieldInfo

DOCUMENT = ROOT / "docs" / "configuration.md"
SETTINGS = list(settings(Config))


def test_the_document_is_up_to_date() -> None:
    text = DOCUMENT.read_text()
    assert with_reference(text) == text, "run `make docs`"


def test_every_setting_has_its_row_under_its_heading() -> None:
    parts = reference().split("### ")[1:]
    rows = {
        (part.split("\n")[0], line.split("`")[1])
        for part in parts
        for line in part.splitlines()
        if line.startswith("| `")
    }
    for path, _ in SETTINGS:
        table = ".".join("NAME" if name == "*" else name for name in path[:-1])
        heads = [f"`[{table}]`", f"`[[{table}]]`"] if table else ["At the top of the file"]
        assert any((head, path[-1]) in rows for head in heads), path
    assert len(rows) == len(SETTINGS)


def test_every_setting_is_described() -> None:
    assert [path for path, info in SETTINGS if not info.description] == []


@pytest.mark.parametrize(("path", "info"), SETTINGS, ids=[".".join(path) for path, _ in SETTINGS])
def test_the_example_of_a_setting_is_good(path: tuple[str, ...], info: FieldInfo) -> None:
    *above, name = ("shop" if part == "*" else part for part in path)
    section = section_at(Config, above)
    assert section is not None
    others = {
        key: needed(key, one) for key, one in section.model_fields.items() if one.is_required()
    }
    section.model_validate({**others, name: example(info)})


def needed(key: str, info: FieldInfo) -> Any:
    """What a section can't do without."""
    return {"sites": LEAST["sites"], "origins": [{"url": "http://a.test"}]}.get(key) or example(
        info
    )


def test_a_default_and_an_example_as_toml_writes_them() -> None:
    text = reference()
    assert '| `head_bytes` | size | `"64KiB"` |' in text
    assert "| `total` | duration | none |" in text
    assert "| `url` | origin URL | required |" in text
    assert '| `address` | address | `"127.0.0.1:8081"` |' in text
    assert (
        '| `environments` | array: "production" or "preview" | `["production", "preview"]` |'
        in text
    )
    assert '`trusted_proxies = ["10.0.0.0/8"]`' in text


def test_the_first_example_of_the_document_loads(tmp_path: Path) -> None:
    toml = DOCUMENT.read_text().split("```toml\n")[1].split("```")[0]
    path = tmp_path / "edge.toml"
    path.write_text(toml)
    assert list(load_config(path).sites) == ["shop"]


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks the markers"):
        with_reference(f"# x\n{BEGIN}\n")
    assert with_reference(f"a\n{BEGIN}\nold\n{END}\nb\n").startswith(f"a\n{BEGIN}\n\n### At the")
