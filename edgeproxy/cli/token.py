"""`edgeproxy token new`: make a token for the admin port, and say what to paste where."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from edgeproxy.config.explain import explain
from edgeproxy.config.hashes import scrypt_hash, sha256_hash
from edgeproxy.config.server import ACTIONS, AdminToken
from edgeproxy.semantics.environment import ENVIRONMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

_DESCRIPTION = """\
Make a token for the admin port. The token goes to whoever shall use it, and is shown this once; the
lines for the configuration hold only its hash.
"""

_EPILOG = """\
Examples:
  edgeproxy token new --name editors --site shop --action purge
  edgeproxy token new --name cms --access             two secrets, for Flextype
  edgeproxy token new --name anna --secret-from-stdin < password.txt

A secret that people chose is kept as a scrypt hash, which is slow to guess. Exit status: 2 when an
argument is wrong.
"""

_LEAST_SECRET = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    new = commands.add_parser(
        "new",
        help="make a token, and print what to paste",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    new.add_argument("--name", default="editors", help="who it is (default: %(default)s)")
    new.add_argument("--site", action="append", metavar="SITE", help="a site that it is good for")
    new.add_argument("--action", action="append", choices=ACTIONS, help="what it may do")
    new.add_argument("--environment", action="append", choices=ENVIRONMENTS, help="and where")
    new.add_argument("--network", action="append", metavar="CIDR", help="where it may be used from")
    new.add_argument("--expires", metavar="TIME", help="when it ends: 2027-01-31T18:00:00Z")
    new.add_argument("--max-calls", type=int, metavar="N", help="how many calls it is good for")
    new.add_argument("--rate", metavar="RATE", help='calls in a time: "100/60s"')
    new.add_argument("--access", action="store_true", help="make a second secret, too")
    new.add_argument(
        "--secret-from-stdin", action="store_true", help="read the secret, do not make one"
    )


def run(arguments: argparse.Namespace) -> int:
    """Make it and print it: the exit status."""
    if arguments.secret_from_stdin:
        secret = sys.stdin.readline().rstrip("\r\n")
        if len(secret) < _LEAST_SECRET:
            print(f"the secret must have at least {_LEAST_SECRET} characters", file=sys.stderr)
            return 2
        hashed, told = scrypt_hash(secret.encode("utf-8", "surrogateescape")), None
    else:
        told = secrets.token_urlsafe(32)
        hashed = sha256_hash(told.encode())
    access = secrets.token_urlsafe(32) if arguments.access else None
    settings = {
        "name": arguments.name,
        "hash": hashed,
        "access_hash": None if access is None else sha256_hash(access.encode()),
        "sites": arguments.site,
        "environments": arguments.environment,
        "actions": arguments.action,
        "expires": arguments.expires,
        "max_calls": arguments.max_calls,
        "rate": arguments.rate,
        "networks": arguments.network,
    }
    given = {key: value for key, value in settings.items() if value is not None}
    try:
        AdminToken.model_validate(given)
    except ValidationError as error:
        for problem in explain(error, AdminToken):
            print(problem, file=sys.stderr)
        return 2
    for title, each in (("token", told), ("access token", access)):
        if each is not None:
            print(f"# the {title}, shown this once: {each}", file=sys.stderr)
    print("\n".join(_toml(given)))
    return 0


def _toml(settings: dict[str, Any]) -> Iterator[str]:
    """The lines for the configuration."""
    yield "[[admin.tokens]]"
    for key, value in settings.items():
        yield f"{key} = {json.dumps(value, ensure_ascii=False)}"
