"""`edgeproxy status`: how an edge is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeproxy.cli.client import EPILOG, AdminClient, add_connection_arguments, call_edge
from edgeproxy.cli.tables import as_json, duration, shown, size, table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.description = "Tell how the edge is: its workers, its store, its sites."
    parser.epilog = EPILOG
    add_connection_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Tell it: the exit status."""

    async def status(client: AdminClient) -> None:
        told = await client.call("GET", "/status")
        told["sites"] = await client.pages("/sites", "sites", {}, 1000)
        print(as_json(told) if arguments.json else "\n".join(_status(told)))

    return call_edge(arguments, status)


def _status(told: Mapping[str, Any]) -> Iterator[str]:
    store = told["store"]
    yield f"edgeproxy {shown(told['version'])}, up for {duration(told['uptime'])}"
    for warning in told["warnings"]:
        yield f"WARNING: {shown(warning)}"
    yield (
        f"store: {shown(store['kind'])}, {store['entries']} responses, "
        f"{size(store['bytes'])} of {size(store['max_bytes'])}"
    )
    yield (
        f"journal: at {told['position']}, swept up to {told['settled']}, "
        f"{told['rules']} rules waiting"
    )
    titles = ("WORKER", "PID", "READY", "REQUESTS", "CONNECTIONS")
    rows = [
        (
            each["number"],
            each["pid"],
            "yes" if each["ready"] else "no",
            each["in_flight"],
            each["connections"],
        )
        for each in told["workers"]
    ]
    yield table(titles, rows, right="WORKER PID REQUESTS CONNECTIONS")
    sites = [
        (site["name"], each["environment"], each["entries"], ", ".join(each["hosts"]))
        for site in told["sites"]
        for each in site["environments"]
    ]
    yield table(("SITE", "ENVIRONMENT", "ENTRIES", "HOSTS"), sites, right="ENTRIES")
