"""A small shop to put an edge in front of: pages, images, an API, an account, a slow page.

Every answer tells how often the shop has made one ("render 7"), so that an answer from the cache
can be told from a new one, and which request target the shop was asked for.
"""

from __future__ import annotations

import asyncio
import gzip
import html
import json
import struct
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import ETag, hdrs, web

if TYPE_CHECKING:
    from collections.abc import Callable

SLOW_SECONDS = 1.0
SLOW_FRESH_SECONDS = 4
PAGE_FRESH_SECONDS = 86_400
IMAGE_SIDE = 96
_NOT_IN_304 = {hdrs.CONTENT_TYPE, hdrs.CONTENT_LENGTH, hdrs.CONTENT_ENCODING}
LANGUAGES = {"en": "price", "de": "Preis", "fr": "prix"}


@dataclass
class Product:
    """Something for sale. `version` counts its changes, and is what its validators are made of."""

    number: int
    name: str
    price: str
    modified: int
    version: int = 1

    @property
    def tag(self) -> str:
        """The tag of every response that shows this product."""
        return f"product-{self.number}"


class Shop:
    """The shop's goods and its handlers. `clock` gives seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        opened = int(clock())
        names = ("Teapot", "Kettle", "Cup", "Sieve", "Tin of Assam")
        prices = ("24.00", "39.00", "7.50", "4.20", "12.80")
        self.products = {
            number: Product(number, name, price, opened)
            for number, (name, price) in enumerate(zip(names, prices, strict=True), 1)
        }
        self.renders = 0
        self.carts = 0

    def app(self) -> web.Application:
        """The shop as an application."""
        app = web.Application()
        app.router.add_get("/", self.front)
        app.router.add_get(r"/products/{number:\d{1,4}}", self.product)
        app.router.add_post(r"/products/{number:\d{1,4}}", self.change)
        app.router.add_get(r"/images/{number:\d{1,4}}.png", self.image)
        app.router.add_get("/api/products", self.api)
        app.router.add_get("/slow", self.slow)
        app.router.add_get("/account", self.account)
        app.router.add_post("/cart", self.cart)
        return app

    async def front(self, request: web.Request) -> web.Response:
        """All products: tagged with each of them, so a change of one reaches this page too."""
        products = list(self.products.values())
        lines = [f"{p.number}. {p.name}: {p.price}" for p in products]
        return self._page(request, "The shop", lines, products, extra_tags=("front",))

    async def product(self, request: web.Request) -> web.Response:
        """One product's page."""
        product = self._product(request)
        return self._page(request, product.name, [f"price: {product.price}"], [product])

    async def change(self, request: web.Request) -> web.Response:
        """Give a product a new price: the form field `price`."""
        product = self._product(request)
        price = str((await request.post()).get("price", ""))
        if not price.replace(".", "", 1).isdigit() or len(price) > 12:
            return web.Response(status=422, text="price: a number, such as 19.90\n")
        product.price = price
        product.version += 1
        product.modified = int(self._clock())
        return web.Response(text=f"{product.name} now costs {price}\n")

    async def image(self, request: web.Request) -> web.Response:
        """A picture that never changes: its URL would."""
        product = self._product(request)
        response = web.Response(body=draw_png(product.number), content_type="image/png")
        response.headers[hdrs.CACHE_CONTROL] = "public, max-age=31536000, immutable"
        response.headers["Surrogate-Key"] = f"images {product.tag}"
        return _validated(request, response, ETag(f"image-{product.number}"), product.modified)

    async def api(self, request: web.Request) -> web.Response:
        """The products as JSON, in the reader's language and content coding.

        Browsers are to ask each time, the edge may keep it for five minutes: that is what
        Surrogate-Control is for.
        """
        language = preferred_language(request.headers.get(hdrs.ACCEPT_LANGUAGE, ""))
        zipped = accepts_gzip(request.headers.get(hdrs.ACCEPT_ENCODING, ""))
        products = list(self.products.values())
        rows = [{"name": p.name, LANGUAGES[language]: p.price} for p in products]
        body = json.dumps({"render": self._render(), "products": rows}, indent=1).encode() + b"\n"
        response = web.Response(
            body=gzip.compress(body, mtime=0) if zipped else body, content_type="application/json"
        )
        if zipped:
            response.headers[hdrs.CONTENT_ENCODING] = "gzip"
        response.headers.update(
            {
                "Content-Language": language,
                "Vary": "Accept-Language, Accept-Encoding",
                "Cache-Control": "public, max-age=0, must-revalidate",
                "Surrogate-Control": "max-age=300, stale-while-revalidate=60",
                "Surrogate-Key": " ".join(["api", *(p.tag for p in products)]),
            }
        )
        changes = sum(p.version for p in products)
        coding = "gzip" if zipped else "plain"
        etag = ETag(f"api-{changes}-{language}-{coding}", is_weak=True)
        return _validated(request, response, etag, max(p.modified for p in products))

    async def slow(self, request: web.Request) -> web.Response:
        """A page that takes its time, and may be served stale for a minute meanwhile."""
        await asyncio.sleep(SLOW_SECONDS)
        response = self._render_page(request, "A slow page", [f"took {SLOW_SECONDS:g} s to make"])
        response.headers[hdrs.CACHE_CONTROL] = (
            f"public, max-age={SLOW_FRESH_SECONDS}, stale-while-revalidate=60"
        )
        response.headers["Cache-Tag"] = "slow"
        return response

    async def account(self, request: web.Request) -> web.Response:
        """A page for one reader alone."""
        response = self._render_page(request, "Your account", ["nobody else may see this"])
        response.headers[hdrs.CACHE_CONTROL] = "private, no-store"
        response.set_cookie("session", f"demo-{self.renders}", httponly=True)
        return response

    async def cart(self, request: web.Request) -> web.Response:
        """Takes anything, and only counts."""
        self.carts += 1
        body = await request.read()
        return web.json_response({"carts": self.carts, "bytes": len(body)}, status=201)

    def _product(self, request: web.Request) -> Product:
        product = self.products.get(int(request.match_info["number"]))
        if product is None:
            raise web.HTTPNotFound(text="the shop has products 1 to 5\n")
        return product

    def _render(self) -> int:
        self.renders += 1
        return self.renders

    def _render_page(self, request: web.Request, title: str, lines: list[str]) -> web.Response:
        stamp = time.strftime("%H:%M:%S", time.localtime(self._clock()))
        told = [*lines, f"render {self._render()} at {stamp}, asked for {request.raw_path}"]
        body = "\n".join(f"<p>{html.escape(line)}</p>" for line in told)
        page = f"<!doctype html>\n<title>{html.escape(title)}</title>\n<h1>{title}</h1>\n{body}\n"
        return web.Response(text=page, content_type="text/html")

    def _page(
        self,
        request: web.Request,
        title: str,
        lines: list[str],
        products: list[Product],
        extra_tags: tuple[str, ...] = (),
    ) -> web.Response:
        response = self._render_page(request, title, lines)
        # Long: a change is told by its tag, not waited for.
        response.headers[hdrs.CACHE_CONTROL] = (
            f"public, max-age={PAGE_FRESH_SECONDS}, stale-while-revalidate={PAGE_FRESH_SECONDS}"
        )
        response.headers["Cache-Tag"] = ",".join(
            [*extra_tags, "products", *(p.tag for p in products)]
        )
        # Weak: the render number differs where the product's data does not.
        etag = ETag("-".join(f"{p.number}.{p.version}" for p in products), is_weak=True)
        return _validated(request, response, etag, max(p.modified for p in products))


def preferred_language(accepted: str) -> str:
    """The first of the shop's languages in an Accept-Language value, English by default."""
    for member in accepted.split(","):
        language = member.partition(";")[0].strip().lower()[:2]
        if language in LANGUAGES:
            return language
    return "en"


def accepts_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding value names gzip, and not with a weight of 0."""
    for member in accepted.split(","):
        coding, _, weight = member.replace(" ", "").lower().partition(";q=")
        if coding == "gzip":
            return weight.strip("0.") != "" or not weight
    return False


def draw_png(number: int) -> bytes:
    """A small picture, different for each number."""
    rows = bytearray()
    for y in range(IMAGE_SIDE):
        rows.append(0)  # no filter
        for x in range(IMAGE_SIDE):
            rows += bytes(((x * 2 + number * 40) % 256, y * 2, (x * y // 8 * number) % 256))

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", IMAGE_SIDE, IMAGE_SIDE, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(rows), 9)
    ends = chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + ends


def _validated(
    request: web.Request, response: web.Response, etag: ETag, modified: int
) -> web.Response:
    """Add the validators; a 304 instead if the request has one that still holds (RFC 9110, 13)."""
    response.etag = etag
    response.last_modified = modified
    if request.if_none_match is not None:
        unchanged = any(known.value in (etag.value, "*") for known in request.if_none_match)
    else:
        since = request.if_modified_since
        unchanged = since is not None and modified <= since.timestamp()
    if not unchanged:
        return response
    kept = {name: value for name, value in response.headers.items() if name not in _NOT_IN_304}
    return web.Response(status=304, headers=kept)
