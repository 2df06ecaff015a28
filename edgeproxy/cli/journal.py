"""`edgeproxy journal`: what was invalidated, by whom, and what comes next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeproxy.cli.client import EPILOG, AdminClient, add_connection_arguments, call_edge
from edgeproxy.cli.tables import as_json, moment, shown, table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

_TITLES = ("POSITION", "TIME", "ACTOR", "SOURCE", "DIALECT", "DOES", "MATCHED", "WHAT")
_MOST_SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.description = "List what was invalidated, the newest first, or follow it."
    parser.epilog = EPILOG
    parser.add_argument("--site", help="only of this site")
    parser.add_argument(
        "--limit", type=int, default=20, metavar="N", help="at most so many (default: %(default)s)"
    )
    parser.add_argument(
        "--follow", action="store_true", help="wait for new records until Ctrl-C, a line each"
    )
    add_connection_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """List or follow: the exit status."""

    async def journal(client: AdminClient) -> None:
        query = {"site": arguments.site}
        if arguments.follow:
            async for record in client.events("/journal/stream", query):
                line = as_json(record) if arguments.json else "  ".join(map(shown, _row(record)))
                print(line, flush=True)
        found = await client.pages("/journal", "records", query, arguments.limit)
        if arguments.json:
            print(as_json(found))
        else:
            print(table(_TITLES, [_row(record) for record in found], right="POSITION MATCHED"))

    return call_edge(arguments, journal)


def _row(record: Mapping[str, Any]) -> tuple[object, ...]:
    does, what = record.get("mode", ""), ""
    if record["kind"] == "token":
        does, what = "issue", f"cb:{record['issued']['token']}"
    else:
        what = "; ".join(map(_selector, record["selectors"][:_MOST_SHOWN]))
        more = len(record["selectors"]) - _MOST_SHOWN
        if more > 0:
            what += f"; and {more} more"
    return (
        record["position"],
        moment(record["time"]),
        record["actor"],
        record["source"],
        record["dialect"],
        does,
        record.get("matched"),
        what,
    )


def _selector(selector: Mapping[str, Any]) -> str:
    where = selector["site"]
    if "environment" in selector:
        where += f"/{selector['environment']}"
    conditions = [
        name if value is True else f"{name}={value}"
        for name, value in selector.items()
        if name not in ("site", "environment")
    ]
    return f"{where}: {' '.join(conditions)}"
