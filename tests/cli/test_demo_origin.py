"""The demo's shop: what the edge in front of it is to see."""

import gzip

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from pytest_aiohttp.plugin import AiohttpClient

from edgeproxy.cli.demo_origin import Shop, accepts_gzip, draw_png, preferred_language

Client = TestClient[web.Request, web.Application]
NOW = 1_700_000_000.0


@pytest.fixture
def shop() -> Shop:
    return Shop(clock=lambda: NOW)


@pytest.fixture
async def client(shop: Shop, aiohttp_client: AiohttpClient) -> Client:
    return await aiohttp_client(shop.app(), auto_decompress=False, cookies={})


async def test_each_page_is_a_new_render(client: Client) -> None:
    assert "render 1 " in await (await client.get("/products/1")).text()
    assert "render 2 " in await (await client.get("/products/1")).text()


async def test_a_page_says_what_it_was_asked_for(client: Client) -> None:
    assert "asked for /products/1?a=%3Cb" in await (await client.get("/products/1?a=%3Cb")).text()


async def test_the_front_page_bears_every_product_s_tag(client: Client) -> None:
    front = (await client.get("/")).headers["Cache-Tag"].split(",")
    assert {"front", "products", "product-1", "product-5"} <= set(front)
    assert (await client.get("/products/2")).headers["Cache-Tag"] == "products,product-2"


@pytest.mark.parametrize(
    ("target", "field", "value"),
    [
        ("/", "Cache-Control", "public, max-age=86400, stale-while-revalidate=86400"),
        ("/products/1", "Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT"),
        ("/images/3.png", "Cache-Control", "public, max-age=31536000, immutable"),
        ("/images/3.png", "Surrogate-Key", "images product-3"),
        ("/images/3.png", "Content-Type", "image/png"),
        ("/api/products", "Vary", "Accept-Language, Accept-Encoding"),
        ("/api/products", "Surrogate-Control", "max-age=300, stale-while-revalidate=60"),
        ("/slow", "Cache-Control", "public, max-age=4, stale-while-revalidate=60"),
        ("/account", "Cache-Control", "private, no-store"),
    ],
)
async def test_response_fields(client: Client, target: str, field: str, value: str) -> None:
    response = await client.get(target)
    assert (response.status, response.headers[field]) == (200, value)


async def test_the_account_page_sets_a_cookie(client: Client) -> None:
    assert "session=" in (await client.get("/account")).headers["Set-Cookie"]


async def test_a_validator_holds_until_the_price_changes(client: Client) -> None:
    etag = (await client.get("/products/1")).headers["ETag"]
    condition = {"If-None-Match": f'"other", {etag}'}
    unchanged = await client.get("/products/1", headers=condition)
    assert (unchanged.status, unchanged.headers["ETag"]) == (304, etag)
    assert (await client.post("/products/1", data={"price": "19.90"})).status == 200
    changed = await client.get("/products/1", headers=condition)
    assert changed.status == 200
    assert "price: 19.90" in await changed.text()


async def test_if_modified_since(client: Client) -> None:
    date = (await client.get("/images/1.png")).headers["Last-Modified"]
    assert (await client.get("/images/1.png", headers={"If-Modified-Since": date})).status == 304
    old = {"If-Modified-Since": "Mon, 13 Nov 2023 22:13:20 GMT"}
    assert (await client.get("/images/1.png", headers=old)).status == 200


@pytest.mark.parametrize("price", ["", "free", "1.2.3", "-1", "1" * 13])
async def test_a_price_must_be_a_number(client: Client, price: str) -> None:
    assert (await client.post("/products/1", data={"price": price})).status == 422


@pytest.mark.parametrize("target", ["/products/6", "/products/0", "/images/9.png", "/products/x"])
async def test_what_the_shop_does_not_have(client: Client, target: str) -> None:
    assert (await client.get(target)).status == 404


async def test_the_api_answers_in_language_and_coding(client: Client) -> None:
    wanted = {"Accept-Language": "de-CH, fr;q=0.5", "Accept-Encoding": "identity"}
    plain = await client.get("/api/products", headers=wanted)
    assert plain.headers["Content-Language"] == "de"
    assert (await plain.json())["products"][0] == {"name": "Teapot", "Preis": "24.00"}
    zipped = await client.get("/api/products", headers={"Accept-Encoding": "gzip"})
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert b"Teapot" in gzip.decompress(await zipped.read())
    assert zipped.headers["ETag"] != plain.headers["ETag"]


async def test_the_cart_takes_a_post(client: Client) -> None:
    response = await client.post("/cart", data=b"abc")
    assert (response.status, await response.json()) == (201, {"carts": 1, "bytes": 3})


@pytest.mark.parametrize(
    ("accepted", "language"),
    [("", "en"), ("fr", "fr"), ("DE-at;q=0.8, en", "de"), ("it, nl, fr;q=0.1", "fr"), ("*", "en")],
)
def test_preferred_language(accepted: str, language: str) -> None:
    assert preferred_language(accepted) == language


@pytest.mark.parametrize(
    ("accepted", "zipped"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("deflate, gzip ; q=1", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
    ],
)
def test_accepts_gzip(accepted: str, zipped: bool) -> None:
    assert accepts_gzip(accepted) is zipped


def test_pictures_differ_and_are_whole() -> None:
    assert draw_png(1) != draw_png(2)
    assert draw_png(1).startswith(b"\x89PNG\r\n\x1a\n")
    assert draw_png(1).endswith(b"IEND\xaeB`\x82")
