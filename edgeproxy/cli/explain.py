"""`edgeproxy explain`: what would become of a request, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeproxy.cli.client import EPILOG, AdminClient, add_connection_arguments, call_edge
from edgeproxy.cli.tables import as_json, duration, moment, shown, size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.description = "Tell what would become of a request for a URL now, and why."
    parser.epilog = EPILOG
    parser.add_argument("url", metavar="URL", help="the absolute URL, as a reader asks for it")
    parser.add_argument("--method", default="GET", help="default: %(default)s")
    parser.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="a header field of the request; may be given several times",
    )
    add_connection_arguments(parser)
    parser.set_defaults(usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Tell it: the exit status."""
    fields = {}
    for field in arguments.field:
        name, colon, value = field.partition(":")
        if not colon:
            arguments.usage_error(f"--field {field!r}: write it as 'NAME: VALUE'")
        fields[name.strip()] = value.strip()
    body = {"url": arguments.url, "method": arguments.method, "fields": fields}

    async def explain(client: AdminClient) -> None:
        told = await client.call("POST", "/explain", body=body)
        print(as_json(told) if arguments.json else "\n".join(_explained(told)))

    return call_edge(arguments, explain)


def _explained(told: dict[str, Any]) -> Iterator[str]:
    yield shown(f"{told['method']} {told['url']}: {told['result']}", 1000)
    facts = {
        "why": told["why"],
        "Cache-Status": told["cache_status"],
        "site": f"{told['site']} ({told['environment']})",
        "key": told["key"],
        "cache buster": told["cache_buster"],
        "varies by": ", ".join(told["vary"]),
    }
    yield from (f"  {name}: {shown(value, 1000)}" for name, value in facts.items() if value)
    if told["entry"] is not None:
        yield "  stored:"
        yield from _stored(told["entry"])
    for other in told["others"]:
        yield "  also stored under this key:"
        yield from _stored(other)


def _stored(entry: dict[str, Any]) -> Iterator[str]:
    freshness = entry["freshness"]
    variant = ", ".join(f"{name}: {value or '-'}" for name, value in entry["variant"].items())
    facts = {
        "served": f"{entry['served']}, {entry['why']}",
        "status": entry["status"],
        "for": variant,
        "tags": ", ".join(entry["tags"]),
        "length": size(entry["body"]["length"]),
        "received": moment(entry["received"]),
        "lifetime": f"{duration(freshness['lifetime'])} by {freshness['source']}",
        "position": entry["position"],
    }
    yield from (f"    {name}: {shown(value, 1000)}" for name, value in facts.items() if value != "")
