"""`edgeproxy purge`: tell an edge what has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeproxy.cli.client import EPILOG, AdminClient, add_connection_arguments, call_edge
from edgeproxy.cli.tables import as_json
from edgeproxy.semantics.environment import ENVIRONMENTS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_DESCRIPTION = """\
Invalidate stored responses: the next reader gets the stale copy at once, while one refresh runs
behind it. With --delete none is served again. What any of the options picks is purged; each may be
given several times.
"""

_EXAMPLES = """\
Examples:
  edgeproxy purge --tag product-1 --tag front
  edgeproxy purge --url https://shop.example/products/1 --delete
  edgeproxy purge --site shop --glob '/products/**' --dry-run
  edgeproxy purge --site shop --everything --delete --deadline 60 --refresh

"""

_LISTS = {
    "tag": ("tags", "TAG", "what bears this tag"),
    "url": ("urls", "URL", "this URL, or this path on all hosts of the site"),
    "prefix": ("prefixes", "PREFIX", "URLs or paths that begin so"),
    "host": ("hosts", "HOST", "all of this host"),
    "pattern": ("patterns", "RE2", "paths in which this expression is found"),
    "glob": ("globs", "GLOB", 'paths of this form: * is anything but "/", ** anything'),
    "source": ("sources", "URL", "images that were made from this one"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.description = _DESCRIPTION
    parser.epilog = _EXAMPLES + EPILOG
    what = parser.add_argument_group("what")
    for option, (_, metavar, told) in _LISTS.items():
        what.add_argument(f"--{option}", action="append", default=[], metavar=metavar, help=told)
    what.add_argument("--everything", action="store_true", help="all of the site")
    what.add_argument("--site", help='the site, where there are several; "*": all of them')
    what.add_argument("--environment", choices=ENVIRONMENTS, help="only of this environment")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--mode", choices=("invalidate", "delete"), help="default: invalidate, mark stale"
    )
    how.add_argument("--delete", action="store_true", help="the same as --mode delete")
    how.add_argument(
        "--deadline",
        type=float,
        metavar="SECONDS",
        help="delete, but let stale be served for so long while it is refreshed",
    )
    how.add_argument("--dry-run", action="store_true", help="only count")
    how.add_argument("--refresh", action="store_true", help="fetch anew what was picked, in a job")
    add_connection_arguments(parser)
    parser.set_defaults(usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Purge: the exit status."""
    body = _body(arguments)

    async def purge(client: AdminClient) -> None:
        answer = await client.call("POST", "/purge", body=body)
        print(as_json(answer) if arguments.json else "\n".join(_told(answer)))

    return call_edge(arguments, purge)


def _body(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is asked for."""
    given = {name: getattr(arguments, option) for option, (name, _, _) in _LISTS.items()}
    body: dict[str, Any] = {name: values for name, values in given.items() if values}
    if arguments.everything:
        body["everything"] = True
    if not body:
        arguments.usage_error("say what to purge, for instance --tag TAG or --everything")
    deletes = arguments.delete or arguments.deadline is not None
    if deletes and arguments.mode == "invalidate":
        arguments.usage_error("--delete and --deadline do not go with --mode invalidate")
    if deletes or arguments.mode == "delete":
        body["mode"] = "delete"
    for name in ("site", "environment", "deadline"):
        if getattr(arguments, name) is not None:
            body[name] = getattr(arguments, name)
    for name in ("dry_run", "refresh"):
        if getattr(arguments, name):
            body[name] = True
    return body


def _told(answer: dict[str, Any]) -> Iterator[str]:
    """The answer for people."""
    count = answer["matched"]
    responses = f"{count} stored response{'' if count == 1 else 's'}"
    verb = "deleted" if answer["mode"] == "delete" else "invalidated"
    if answer["dry_run"]:
        yield f"would have {verb} {responses}"
        return
    yield f"{verb} {responses} (position {answer['position']}, id {answer['id']})"
    if "deadline" in answer:
        yield f"stale may be served for {answer['deadline']:g} s while it is refreshed"
    if "job" in answer:
        yield f"what was picked is being fetched anew: edgeproxy jobs {answer['job']}"
