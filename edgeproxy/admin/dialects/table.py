"""The dialects that the admin port speaks: a row each, in the order in which paths are tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.admin.dialects.brilliant_directories import BRILLIANT_DIRECTORIES
from edgeproxy.admin.dialects.flextype import FLEXTYPE
from edgeproxy.admin.dialects.optimole import OPTIMOLE
from edgeproxy.admin.dialects.vercel import VERCEL
from edgeproxy.admin.dialects.wix import WIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.admin.dialects.base import Dialect

DIALECTS: Sequence[Dialect] = (
    WIX,
    VERCEL,
    BRILLIANT_DIRECTORIES,
    OPTIMOLE,
    FLEXTYPE,
)
