"""`edgeproxy check`: is a configuration right, and what does it mean?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.config.describe import describe
from edgeproxy.config.errors import ConfigError, Problem
from edgeproxy.config.load import load_config
from edgeproxy.runtime.folders import refusal
from edgeproxy.runtime.tls import CertificateRefused, load_certificates

if TYPE_CHECKING:
    import argparse

    from edgeproxy.config.model import Config

_DESCRIPTION = """\
Read a configuration file (TOML) as `edgeproxy serve --config FILE` would, without starting
anything, and say in words what it means, defaults included.

Whatever is wrong is named with its file, its key and what would be right: unknown keys, wrong
types, impossible values, and certificates or keys that can't be read or don't belong together. It
is also told if this user can't use the store's folder.
"""

_EPILOG = """\
Exit status: 0 when the file can be used, 2 when it can't.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.add_argument("file", metavar="FILE", type=Path, help="the configuration, TOML")


def run(arguments: argparse.Namespace) -> int:
    """Check the file: the exit status."""
    try:
        config = usable_config(arguments.file)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{arguments.file} can be used. It means:\n")
    print(describe(config), end="")
    directory = config.store.directory
    unusable = directory and refusal(directory)
    if unusable:
        print(f"\nThe edge would start, and keep nothing: {unusable}")
    return 0


def usable_config(path: Path) -> Config:
    """The configuration in a file, if also the files that it names can be used.

    Raises ConfigError.
    """
    config = load_config(path)
    problems = list(config.check_files())
    if not problems:
        try:
            load_certificates(config)
        except CertificateRefused as error:
            problems.append(Problem("", str(error)))
    if problems:
        raise ConfigError(str(path), problems)
    return config
