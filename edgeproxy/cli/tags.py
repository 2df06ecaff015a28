"""`edgeproxy tags`: which tags the stored responses bear."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.cli.client import AdminClient, add_list_arguments, call_edge
from edgeproxy.cli.tables import as_json, table

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.description = "List tags, the most used first."
    parser.add_argument("--prefix", help="only those that begin so")
    add_list_arguments(parser, limit=50)


def run(arguments: argparse.Namespace) -> int:
    """List them: the exit status."""
    query = {name: getattr(arguments, name) for name in ("prefix", "site", "environment")}

    async def tags(client: AdminClient) -> None:
        found = await client.pages("/tags", "tags", query, arguments.limit)
        if arguments.json:
            print(as_json(found))
            return
        rows = [(each["count"], each["site"], each["tag"]) for each in found]
        print(table(("COUNT", "SITE", "TAG"), rows, right="COUNT"))

    return call_edge(arguments, tags)
