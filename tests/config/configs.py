"""Configurations for the tests: the least one, and one with everything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproxy.config.load import load_config
from edgeproxy.config.model import Config
from tests.kit.toml import merged, to_toml

if TYPE_CHECKING:
    from collections.abc import Mapping

HASH = "sha256:" + "0123456789abcdef" * 4
OTHER_HASH = "sha256:" + "fedcba9876543210" * 4

LEAST: dict[str, Any] = {
    "sites": {"shop": {"hosts": ["shop.test"], "origins": [{"url": "http://127.0.0.1:3000"}]}}
}


def config(change: Mapping[str, Any] | None = None) -> Config:
    """The least configuration with `change` laid on it."""
    data = merged(LEAST, change or {})
    return Config.model_validate(data, context={"folder": Path("/etc/edgeproxy")})


def load(folder: Path, change: Mapping[str, Any]) -> Config:
    """The same, through a file in that folder."""
    path = folder / "edge.toml"
    path.write_text(to_toml(merged(LEAST, change)))
    return load_config(path)
