"""The `edgeproxy` command."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

# Each in the module of its name, which is imported only where it is called for.
_COMMANDS: Final = {
    "serve": "run the edge: cache what origins answer",
    "check": "validate a configuration file, and say what it means",
    "purge": "tell an edge what has changed",
    "entries": "list what an edge has stored",
    "tags": "list tags by how many stored responses bear them",
    "explain": "tell what would become of a request now, and why",
    "journal": "list what was invalidated, or follow it",
    "jobs": "list jobs that fetch anew what was purged, or cancel one",
    "status": "tell how an edge is",
    "token": "make a token for the admin port",
    "demo": "run a small shop with an edge in front of it, and show what to try",
}

_DESCRIPTION = """\
A caching reverse proxy: it stores what your origin answers, serves stale copies while it
refreshes them in the background, and is told through its admin API what has changed, by tag
or by URL.
"""

_EPILOG = """\
Begin with:
  edgeproxy demo                                    a small shop with an edge in front of it
  edgeproxy serve --origin http://127.0.0.1:3000    in front of what listens there
  edgeproxy check edgeproxy.toml                    what a configuration file means

`edgeproxy COMMAND --help` tells more of each.
"""


class _Version(argparse.Action):
    """Looks the version up only when it is asked for: that takes as long as half of a start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(version("edgeproxy"))
        parser.exit()


def parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The command line, as far as it is needed to read these arguments."""
    command = argparse.ArgumentParser(
        prog="edgeproxy",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--version", action=_Version, nargs=0, help="show the version, and exit")
    commands = command.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary in _COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            # Else "--token SECRET" would be taken for --token-file.
            allow_abbrev=False,
        )
        if name in arguments:
            module = import_module(f"edgeproxy.cli.{name}")
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: the exit status, 2 where it or the configuration is wrong."""
    # pydantic would look through all that is installed for plugins, and nobody else is to see a
    # configuration.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # What is imported stays: to look for garbage in it would be a twentieth of a start.
    gc.disable()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        parsed = parser(given).parse_args(given)
    finally:
        gc.enable()
    status: int = parsed.run(parsed)
    return status
