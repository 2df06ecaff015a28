"""The `edgeproxy` command."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NoReturn

from edgeproxy.cli import (
    check,
    demo,
    entries,
    explain,
    jobs,
    journal,
    purge,
    serve,
    status,
    tags,
    token,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(
        prog="edgeproxy",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--version", action=_Version, nargs=0, help="show the version, and exit")
    commands = command.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module, summary in (
        ("serve", serve, "run the edge: cache what origins answer"),
        ("check", check, "validate a configuration file, and say what it means"),
        ("purge", purge, "tell an edge what has changed"),
        ("entries", entries, "list what an edge has stored"),
        ("tags", tags, "list tags by how many stored responses bear them"),
        ("explain", explain, "tell what would become of a request now, and why"),
        ("journal", journal, "list what was invalidated, or follow it"),
        ("jobs", jobs, "list jobs that fetch anew what was purged, or cancel one"),
        ("status", status, "tell how an edge is"),
        ("token", token, "make a token for the admin port"),
        ("demo", demo, "run a small shop with an edge in front of it, and show what to try"),
    ):
        sub = commands.add_parser(
            name,
            help=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            # Else "--token SECRET" would be taken for --token-file.
            allow_abbrev=False,
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: the exit status, 2 where it or the configuration is wrong."""
    parsed = parser().parse_args(arguments)
    status: int = parsed.run(parsed)
    return status
