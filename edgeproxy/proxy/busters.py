"""Issued cache busters: what `/cb:TOKEN/path` asks for if the token was issued for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from edgeproxy.semantics.key import without_buster

if TYPE_CHECKING:
    from edgeproxy.invalidation.view import JournalView
    from edgeproxy.proxy.request import EdgeRequest


def honour_buster(request: EdgeRequest, view: JournalView) -> EdgeRequest:
    """The request without the segment, for a response whose fetch began after the token was issued.

    So one fetch serves all who come with the token, and those without it too. Caches on the way to
    the origin are told to ask anew (RFC 9111 5.2.1.4). Any other token names a copy of its own.
    """
    key = request.key
    position = view.issued_at(key.buster.decode(), key.site, key.host, key.target_id)
    if not position:
        return request
    return replace(
        request,
        key=without_buster(key),
        fields=request.fields.replacing(b"cache-control", b"no-cache"),
        not_before=position,
    )
