"""What a successful unsafe request has changed (RFC 9111 4.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urljoin

from edgeproxy.semantics.key import KeyPolicy, purge_target

if TYPE_CHECKING:
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.semantics.fields import Fields

_POINTERS = (b"location", b"content-location")
_EXACTLY = KeyPolicy()


def touched_targets(request: EdgeRequest, answer: Fields) -> tuple[tuple[str, bytes], ...]:
    """The targets to invalidate, each with its host: the request's own, and those that Location
    and Content-Location name on the same origin; another origin's must be left alone."""
    key = request.key
    touched = {(key.host, key.target)}
    for name in _POINTERS:
        for value in answer.get_all(name):
            named = _named(request, key.target, value, request.policy.key)
            if named is not None and named[0] == key.host:
                touched.add((key.host, named[1]))
    return tuple(sorted(touched))


def represents_target(request: EdgeRequest, answer: Fields) -> bool:
    """Whether an answer says that it is what a GET of the same URI would bring (RFC 9110 8.7)."""
    values = answer.get_all(b"content-location")
    if len(values) != 1:
        return False
    target = request.target
    return _named(request, target, values[0], _EXACTLY) == _named(request, target, b"", _EXACTLY)


def _named(
    request: EdgeRequest, target: bytes, value: bytes, policy: KeyPolicy
) -> tuple[str | None, bytes] | None:
    """What a URI reference names by the request's own scheme, as host and canonical target."""
    key = request.key
    base = f"{key.scheme}://{key.host}{target.decode('utf-8', 'surrogateescape')}"
    try:
        url = urljoin(base, value.decode("utf-8", "surrogateescape"))
        return purge_target(url, policy) if url.startswith(f"{key.scheme}://") else None
    except ValueError:
        # It is no URL, so it names nothing.
        return None
