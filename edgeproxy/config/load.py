"""Reading a configuration: from a TOML file, or from the flags of the command line."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgeproxy.config.errors import ConfigError, Problem
from edgeproxy.config.explain import explain
from edgeproxy.config.model import Config

_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")

FLAG_SITE = "default"
"""The name of the one site that flags describe."""

_FLAGS = {
    f"sites.{FLAG_SITE}.origins[0].url": "--origin",
    "listen[0].address": "--listen",
    "admin.address": "--admin",
    "workers": "--workers",
    "store.url": "--store",
}


def load_config(path: Path | str) -> Config:
    """The configuration in a TOML file; relative paths in it are relative to its folder.

    Raises ConfigError, whose text names the file, each key that is wrong, and what would be right.
    The files that it names are not looked at: see `Config.check_files`.
    """
    path = Path(path)
    data = _read_toml(path)
    try:
        return Config.model_validate(data, context={"folder": path.absolute().parent})
    except ValidationError as error:
        raise ConfigError(str(path), explain(error, Config)) from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ConfigError(str(path), [Problem("", f"can't be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        fault = f"line {line} is not UTF-8, as TOML must be"
        raise ConfigError(str(path), [Problem("", fault)]) from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = _TOML_PLACE.search(message)
        # Only the end of the document is given without its place.
        where = f"{place[1]}:{place[2]}" if place and place[1] else _end(text)
        fault = _TOML_PLACE.sub("", message)
        raise ConfigError(f"{path}:{where}", [Problem("", f"not TOML: {fault}")]) from None
    except (RecursionError, ValueError) as error:
        # What TOML allows, and its reader doesn't manage; it does not say where.
        raise ConfigError(str(path), [Problem("", f"can't be read as TOML: {error}")]) from None


def _end(text: str) -> str:
    lines = text.rstrip("\n").split("\n")
    return f"{len(lines)}:{len(lines[-1]) + 1}"


def config_from_flags(
    origin: str,
    listen: str | None = None,
    admin: str | None = None,
    workers: str | int | None = None,
    store: str | None = None,
) -> Config:
    """The configuration of one site, `default`, for any Host. What is None takes its default.

    Raises ConfigError, whose text names the flag that is wrong, and what would be right.
    """
    data: dict[str, Any] = {
        "default_site": FLAG_SITE,
        "sites": {FLAG_SITE: {"origins": [{"url": origin}]}},
    }
    if listen is not None:
        data["listen"] = [{"address": listen}]
    if admin is not None:
        data["admin"] = {"address": admin}
    if workers is not None:
        number = isinstance(workers, str) and workers.isdecimal()
        data["workers"] = int(workers) if number else workers
    if store is not None:
        data["store"] = {"url": store}
    try:
        return Config.model_validate(data, context={"folder": Path.cwd()})
    except ValidationError as error:
        problems = explain(error, Config)
        raise ConfigError("", [_about_flag(problem) for problem in problems]) from None


def _about_flag(problem: Problem) -> Problem:
    flag = _FLAGS.get(problem.key, problem.key)
    # The one setting that a problem with another one mentions.
    return Problem(flag, problem.message.replace("listen[0].address", "--listen"))
