"""`edgeproxy entries`: what an edge has stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.cli.client import AdminClient, add_list_arguments, call_edge
from edgeproxy.cli.tables import as_json, size, table

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.description = "List stored responses that meet all that is given."
    parser.add_argument("--url", help="for this URL, or this path on any host")
    parser.add_argument("--tag", help="with this tag")
    parser.add_argument("--prefix", help="for URLs or paths that begin so")
    parser.add_argument("--host", help="for this host")
    add_list_arguments(parser, limit=100)


def run(arguments: argparse.Namespace) -> int:
    """List them: the exit status."""
    names = ("url", "tag", "prefix", "host", "site", "environment")
    query = {name: getattr(arguments, name) for name in names}

    async def entries(client: AdminClient) -> None:
        found = await client.pages("/entries", "entries", query, arguments.limit)
        if arguments.json:
            print(as_json(found))
            return
        rows = [
            (
                each["served"],
                each["status"],
                f"{each['freshness']['ttl']:.0f} s",
                size(each["body"]["length"]),
                each["url"],
                ", ".join(each["tags"]),
            )
            for each in found
        ]
        titles = ("SERVED", "STATUS", "TTL", "LENGTH", "URL", "TAGS")
        print(table(titles, rows, right="STATUS TTL LENGTH"))

    return call_edge(arguments, entries)
