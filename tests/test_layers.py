"""The layers import only downward, the pure core stays pure, and texts stay free of the workplace.

The check reads source, so it sees imports inside functions and under TYPE_CHECKING too.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "edgeproxy"

LAYERS = ("semantics", "config", "cache", "invalidation", "proxy", "admin", "runtime", "cli")
"""Each imports only from itself and from those before it."""

ROOT_MODULES = {"": "semantics", "__main__": "cli"}
"""The layer that a module directly in the package counts as: `__init__` may import nothing."""

SIDEWAYS = {"admin": {"cache": "it asks invalidation"}}
"""Imports that would be downward, and are still not allowed."""

IMPURE = {
    *("aiohttp", "asyncio", "io", "lmdb", "logging", "os", "pathlib", "random", "redis"),
    *("secrets", "select", "shutil", "signal", "socket", "ssl", "subprocess", "sys"),
    *("tempfile", "threading", "time", "uvloop"),
}
"""What semantics may not import: I/O, clocks, chance, concurrency."""

WORKPLACE = re.compile(r"\bissues?\s+#?\d+|\btask\s+#?\d+|\.\./shared\b", re.IGNORECASE)
"""What belongs to the place where a change was made, and means nothing to a reader."""

TEXTS = {".py", ".md", ".toml", ".yml", ".yaml", ".lua", ".conf", ".service", ".txt", ".sh", ""}


def imported_modules(source: str, module: str, *, is_package: bool) -> Iterator[str]:
    """The dotted names that the source of `module` imports, relative ones made absolute."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                kept = parts[: len(parts) - node.level + is_package]
                base = ".".join([*kept, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def layer_of(module: str) -> str | None:
    """The layer that a dotted name of the project belongs to, None for the package itself."""
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else ""
    return name if name in LAYERS else None


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What is wrong with that module's imports."""
    own = layer_of(module) or ROOT_MODULES[module.partition(".")[2]]
    found = set()
    for name in imported_modules(source, module, is_package=is_package):
        top = name.partition(".")[0]
        if own == "semantics" and top in IMPURE:
            found.add(f"{module}: semantics must not import {top}")
        other = layer_of(name) if top == PACKAGE else None
        if other is None:
            continue
        if LAYERS.index(other) > LAYERS.index(own):
            found.add(f"{module}: {own} must not import {other}, which lies above it")
        if reason := SIDEWAYS.get(own, {}).get(other):
            found.add(f"{module}: {own} must not import {other}: {reason}")
    return sorted(found)


def modules() -> Iterator[tuple[Path, str, bool]]:
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        yield path, ".".join(parts[:-1] if is_package else parts), is_package


def committed_texts() -> list[Path]:
    """The repository's text files: those that git has, or would take."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True).stdout
    paths = {ROOT / name for name in names.decode().split("\0") if name}
    return sorted(path for path in paths if path.suffix in TEXTS and path.is_file())


def test_imports_point_downward() -> None:
    found = [
        complaint
        for path, module, is_package in modules()
        for complaint in violations(path.read_text(), module, is_package=is_package)
    ]
    assert not found, "\n".join(found)


def test_every_package_is_a_layer() -> None:
    packages = {path.parent.name for path in (ROOT / PACKAGE).glob("*/*.py")}
    assert packages <= set(LAYERS), packages - set(LAYERS)


def test_texts_do_not_speak_of_the_workplace() -> None:
    texts = committed_texts()
    assert Path(__file__) in texts
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if WORKPLACE.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("edgeproxy.cache.store", "from edgeproxy.proxy import edge", "must not import proxy"),
        ("edgeproxy.cache.store", "import edgeproxy.proxy.edge", "must not import proxy"),
        ("edgeproxy.cache.store", "from ..proxy.edge import Edge", "must not import proxy"),
        ("edgeproxy.cache.store", "from .. import proxy", "must not import proxy"),
        ("edgeproxy.cache.store", "from edgeproxy import proxy", "must not import proxy"),
        ("edgeproxy.cache.store", "def f():\n  from edgeproxy import cli", "must not import cli"),
        ("edgeproxy.semantics.age", "import time", "must not import time"),
        ("edgeproxy.semantics.age", "from os.path import join", "must not import os"),
        ("edgeproxy.semantics.age", "from edgeproxy.config import x", "must not import config"),
        ("edgeproxy.admin.app", "from edgeproxy.cache.store import S", "it asks invalidation"),
        ("edgeproxy", "from edgeproxy.config import Config", "must not import config"),
    ],
)
def test_an_upward_import_is_found(module: str, source: str, complaint: str) -> None:
    (found,) = violations(source, module)
    assert complaint in found


def test_a_relative_import_in_a_package_file_is_resolved() -> None:
    (found,) = violations("from ..proxy import x", "edgeproxy.cache", is_package=True)
    assert "must not import proxy" in found
    assert violations("from .proxy import x", "edgeproxy.cache", is_package=True) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("edgeproxy.proxy.edge", "import asyncio\nfrom ..cache.store import SharedTier"),
        ("edgeproxy.semantics.age", "import re\nfrom .fields import Fields"),
        ("edgeproxy.admin.app", "from ..invalidation.service import InvalidationService"),
        ("edgeproxy.__main__", "from edgeproxy.cli.main import main"),
    ],
)
def test_a_downward_import_is_allowed(module: str, source: str) -> None:
    assert violations(source, module) == []


@pytest.mark.parametrize("text", ["see issue" + " 12", "Issue" + " #3", "in .." + "/shared/x"])
def test_words_of_the_workplace_are_found(text: str) -> None:
    assert WORKPLACE.search(text)


@pytest.mark.parametrize("text", ["an issue of style", "tissue 5", "task, 3 times"])
def test_plain_words_are_left_alone(text: str) -> None:
    assert not WORKPLACE.search(text)
