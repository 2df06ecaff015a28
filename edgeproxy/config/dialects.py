"""The settings of the dialects: which are spoken, under which host name, and their own limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, Strict

from edgeproxy.config import scalars
from edgeproxy.config.rates import Rate
from edgeproxy.config.section import Section

if TYPE_CHECKING:
    from collections.abc import Iterator


class Dialect(Section):
    """What every dialect can be told."""

    enabled: scalars.Bool = Field(default=True, description="false: it is not spoken")
    host: scalars.Host | None = Field(
        default=None,
        description="a host name of its own on the admin port: there it alone is spoken, and it "
        "is spoken there alone; it need not be among admin.allowed_hosts",
        examples=["wix.edge.example"],
    )
    rate: scalars.CallRate | None = Field(
        default=None, description="calls that each token may make in a time; if absent, no limit"
    )


class Wix(Dialect):
    """Wix's invalidateCache."""

    max_tags: scalars.Count = Field(default=100, description="most tags in a call")
    max_tag_length: scalars.Count = Field(default=500, description="most characters in a tag")


class Vercel(Dialect):
    """Vercel's edge cache."""

    max_tags: scalars.Count = Field(default=16, description="most tags in a list")
    max_tag_length: scalars.Count = Field(default=256, description="most characters in a tag")
    max_images: scalars.Count = Field(default=8, description="most source images in a call")


class Areas(Section):
    """What the areas of Brilliant Directories' cache are in a site."""

    data_widgets: tuple[scalars.AreaPick, ...] = Field(
        default=("tag:data_widgets",), description="what a refresh of this area picks"
    )
    settings: tuple[scalars.AreaPick, ...] = Field(
        default=("tag:settings",), description="what a refresh of this area picks"
    )
    web_pages: tuple[scalars.AreaPick, ...] = Field(
        default=("tag:web_pages",), description="what a refresh of this area picks"
    )
    css: tuple[scalars.AreaPick, ...] = Field(
        default=("tag:css",),
        description="what a refresh of this area picks",
        examples=[["tag:css", "type:text/css", "prefix:/assets/"]],
    )
    menus: tuple[scalars.AreaPick, ...] = Field(
        default=("tag:menus",), description="what a refresh of this area picks"
    )
    sidebars: tuple[scalars.AreaPick, ...] = Field(
        default=("tag:sidebars",), description="what a refresh of this area picks"
    )


class BrilliantDirectories(Dialect):
    """Brilliant Directories' refreshCache."""

    rate: scalars.CallRate | None = Field(
        default=Rate(100, 60.0), description="calls that each token may make in a time"
    )
    areas: dict[scalars.Name, Areas] = Field(
        default_factory=dict, description="what the areas are, by site"
    )


class Optimole(Dialect):
    """Optimole's cache."""

    max_assets: scalars.Count = Field(default=100, description="most assets in a call")


def _no_content(status: int) -> int:
    if status not in (200, 204):
        raise ValueError("must be 200 or 204")
    return status


class Flextype(Dialect):
    """Flextype's cache/clear."""

    allow_get: scalars.Bool = Field(
        default=True, description="GET clears, too, as in Flextype's document"
    )
    status: Annotated[
        int, Strict(), AfterValidator(_no_content), scalars.Kind("200 or 204", 204)
    ] = Field(
        default=200,
        description="what a success is answered with: 200 as in the document, or 204 as the "
        "released code does",
    )


class Cloudflare(Dialect):
    """Cloudflare's purge_cache."""

    max_items: scalars.Count = Field(
        default=100, description="most files, tags, hosts or prefixes in a call"
    )


class Fastly(Dialect):
    """Fastly's purge."""

    max_keys: scalars.Count = Field(default=256, description="most surrogate keys in a call")


class Dialects(Section):
    """The vendors' APIs that the admin port speaks beside its own."""

    wix: Wix = Field(default_factory=Wix, description="Wix: invalidateCache")
    vercel: Vercel = Field(default_factory=Vercel, description="Vercel: edge cache")
    brilliant_directories: BrilliantDirectories = Field(
        default_factory=BrilliantDirectories, description="Brilliant Directories: refreshCache"
    )
    optimole: Optimole = Field(default_factory=Optimole, description="Optimole: cache invalidation")
    flextype: Flextype = Field(default_factory=Flextype, description="Flextype: cache/clear")
    cloudflare: Cloudflare = Field(default_factory=Cloudflare, description="Cloudflare: purge")
    fastly: Fastly = Field(default_factory=Fastly, description="Fastly: purge")

    def named(self) -> Iterator[tuple[str, Dialect]]:
        """The settings of each, with its name."""
        for name in type(self).model_fields:
            yield name, getattr(self, name)
