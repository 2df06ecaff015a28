"""What a successful unsafe request has changed (RFC 9111 4.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urljoin

from edgeproxy.semantics.key import purge_target

if TYPE_CHECKING:
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.semantics.fields import Fields

_POINTERS = (b"location", b"content-location")


def touched_targets(request: EdgeRequest, answer: Fields) -> tuple[tuple[str, bytes], ...]:
    """The targets to invalidate, each with its host: the request's own, and those that Location
    and Content-Location name on the same origin; another origin's must be left alone."""
    key = request.key
    touched = {(key.host, key.target)}
    base = f"{key.scheme}://{key.host}{key.target.decode('utf-8', 'surrogateescape')}"
    for name in _POINTERS:
        for value in answer.get_all(name):
            try:
                url = urljoin(base, value.decode("utf-8", "surrogateescape"))
                if not url.startswith(f"{key.scheme}://"):
                    continue
                host, target = purge_target(url, request.policy.key)
            except ValueError:
                # It is no URL, so it names nothing.
                continue
            if host == key.host:
                touched.add((host, target))
    return tuple(sorted(touched))
