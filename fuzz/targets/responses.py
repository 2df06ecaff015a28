"""Responses of an origin: what is read in one piece is what the parser reads."""

from edgeproxy.proxy.origin_whole import whole_response
from tests.proxy.test_origin_whole import parsed


def check(data: bytes) -> None:
    for head_only in (False, True):
        read = whole_response(data, head_only=head_only)
        if read is not None:
            assert read == parsed(data, head_only=head_only), data
