"""A configuration in TOML: what is wrong with one is told by key, and nothing else is raised."""

import tempfile
from pathlib import Path

from edgeproxy.config.errors import ConfigError
from edgeproxy.config.load import load_config
from edgeproxy.config.sites import SiteTable

_folder = tempfile.TemporaryDirectory(prefix="fuzz-")


def check(data: bytes) -> None:
    path = Path(_folder.name) / "edge.toml"
    path.write_bytes(data)
    try:
        config = load_config(path)
    except ConfigError as error:
        assert str(path) in str(error)
        return
    assert load_config(path) == config
    table = SiteTable(config)
    for policy in table.policies.values():
        assert table.policies[policy.name] is policy
