"""config/edgeproxy.toml: complete, true to the model, and good as it stands."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from edgeproxy.config.describe import warnings
from edgeproxy.config.errors import key_path
from edgeproxy.config.load import load_config
from edgeproxy.config.model import Config
from edgeproxy.config.schema import settings
from edgeproxy.config.section import Section
from tests.config.examples import EXAMPLE, everything

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic.fields import FieldInfo

SETTINGS = list(settings(Config))
NAMED = {path[: path.index("*")] for path, _ in SETTINGS if "*" in path}
"""The tables whose keys are names."""


def keys(table: dict[str, Any], path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """The settings in a document, as `settings` names them."""
    found: set[tuple[str, ...]] = set()
    for key, value in table.items():
        name = (*path, "*" if path in NAMED else key)
        tables = isinstance(value, list) and value and isinstance(value[0], dict)
        rows = value if tables else [value]
        for row in rows:
            found |= keys(row, name) if isinstance(row, dict) else {name}
    return found


def test_it_loads_and_checks_clean() -> None:
    config = load_config(EXAMPLE)
    assert config.check_files() == []
    assert warnings(config) == []
    assert config.default_site in config.sites


def test_it_has_every_setting_and_no_other() -> None:
    assert keys(tomllib.loads(everything())) == {path for path, _ in SETTINGS}


def test_it_loads_with_everything_switched_on(tmp_path: Path) -> None:
    path = tmp_path / "all.toml"
    path.write_text(everything())
    load_config(path)


def default_of(info: FieldInfo) -> Any:
    """What the setting is without its line; None if it has no default, or the machine decides."""
    if info.is_required() or isinstance(info.json_schema_extra, dict):
        return None
    return info.get_default(call_default_factory=True, validated_data={})


def values_at(config: Config, path: tuple[str, ...]) -> list[Any]:
    """The setting's value in each place where it is set."""
    values: list[Any] = [config]
    for name in path:
        values = [inner for value in values for inner in step(value, name)]
    return values


def step(value: Any, name: str) -> list[Any]:
    if name == "*":
        return list(value.values())
    found = getattr(value, name)
    if isinstance(found, tuple) and found and isinstance(found[0], Section):
        return list(found)
    return [] if found is None else [found]


def test_what_is_switched_off_is_at_its_default(tmp_path: Path) -> None:
    path = tmp_path / "all.toml"
    path.write_text(everything())
    config = load_config(path)
    active = keys(tomllib.loads(EXAMPLE.read_text()))
    wrong = {
        key_path(*path): (values_at(config, path), default)
        for path, info in SETTINGS
        if path not in active
        and (default := default_of(info)) is not None
        and default not in values_at(config, path)
    }
    assert wrong == {}
