"""`edgeproxy jobs`: what is being fetched anew after purges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from edgeproxy.cli.client import EPILOG, AdminClient, add_connection_arguments, call_edge
from edgeproxy.cli.tables import as_json, moment, table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.description = "List the jobs that fetch anew what purges picked; show or cancel one."
    parser.epilog = EPILOG
    parser.add_argument("id", metavar="ID", nargs="?", help="one job")
    parser.add_argument("--cancel", action="store_true", help="cancel that job")
    add_connection_arguments(parser)
    parser.set_defaults(usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """List, show or cancel: the exit status."""
    if arguments.cancel and arguments.id is None:
        arguments.usage_error("--cancel needs the ID of a job")

    async def jobs(client: AdminClient) -> None:
        if arguments.id is None:
            found = await client.pages("/jobs", "jobs", {}, 1000)
        else:
            method = "DELETE" if arguments.cancel else "GET"
            found = [await client.call(method, f"/jobs/{quote(arguments.id, safe='')}")]
        if arguments.json:
            print(as_json(found if arguments.id is None else found[0]))
            return
        titles = ("ID", "STATE", "DONE", "FAILED", "TOTAL", "STARTED", "BY", "SITES")
        print(table(titles, [_job(each) for each in found], right="DONE FAILED TOTAL"))

    return call_edge(arguments, jobs)


def _job(job: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        job["id"],
        job["state"],
        job["done"],
        job["failed"],
        job["total"],
        moment(job["started"]),
        job["actor"],
        ", ".join(job["sites"]),
    )
