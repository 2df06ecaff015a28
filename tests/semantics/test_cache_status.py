"""RFC 9211: what a cache did, as a structured field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.semantics.cache_status import CacheStatus, vercel_cache
from edgeproxy.semantics.structured import Item, Token, parse_list
from tests.semantics.build import checked


@pytest.mark.parametrize(
    ("status", "member"),
    [
        pytest.param(CacheStatus(hit=True), b"edgeproxy; hit", id="2.1"),
        pytest.param(CacheStatus(hit=True, ttl=376), b"edgeproxy; hit; ttl=376", id="2.4"),
        pytest.param(CacheStatus(hit=True, ttl=-412), b"edgeproxy; hit; ttl=-412", id="2.4-stale"),
        pytest.param(
            CacheStatus(fwd="uri-miss", stored=True), b"edgeproxy; fwd=uri-miss; stored", id="2.5"
        ),
        pytest.param(
            CacheStatus(fwd="stale", fwd_status=304),
            b"edgeproxy; fwd=stale; fwd-status=304", id="2.3",
        ),
        pytest.param(
            CacheStatus(fwd="miss", collapsed=True), b"edgeproxy; fwd=miss; collapsed", id="2.6"
        ),
        pytest.param(
            CacheStatus(fwd="bypass", detail="set-cookie"),
            b"edgeproxy; fwd=bypass; detail=set-cookie", id="2.8-token",
        ),
        pytest.param(
            CacheStatus(fwd="bypass", detail='a "b" \\'),
            rb'edgeproxy; fwd=bypass; detail="a \"b\" \\"', id="2.8-string",
        ),
        pytest.param(
            CacheStatus(hit=True, stored=True, collapsed=True, fwd_status=200),
            b"edgeproxy; hit", id="2.3-2.5-2.6-only-with-fwd",
        ),
        pytest.param(CacheStatus(detail="x"), b"edgeproxy; detail=x", id="neither"),
    ],
)  # fmt: skip
def test_render(status: CacheStatus, member: bytes) -> None:
    assert status.render() == member


def test_hit_and_fwd_exclude_each_other() -> None:  # RFC 9211 2.1
    with pytest.raises(ValueError, match="exclusive"):
        CacheStatus(hit=True, fwd="miss")


@pytest.mark.parametrize(
    ("name", "rendered"), [(b"edge.example", b"edge.example"), (b"9 lives", b'"9 lives"')]
)
def test_the_caches_name(name: bytes, rendered: bytes) -> None:
    assert CacheStatus(hit=True).render(name) == rendered + b"; hit"


@checked
@given(st.text(max_size=20), st.text(max_size=20), st.integers())
def test_it_is_always_one_member_of_a_structured_list(name: str, detail: str, ttl: int) -> None:
    rendered = CacheStatus(fwd="stale", ttl=ttl, detail=detail).render(name.encode())
    (member,) = parse_list([rendered])
    assert isinstance(member, Item)
    assert isinstance(member.value, Token | str)
    assert list(member.parameters) == ["fwd", "ttl", "detail"]


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (CacheStatus(hit=True, ttl=9), b"HIT"),
        (CacheStatus(hit=True, ttl=-9, detail="stale"), b"STALE"),
        (CacheStatus(hit=True, detail="invalidated"), b"STALE"),
        (CacheStatus(fwd="stale", detail="stale-if-error; timeout"), b"STALE"),
        (CacheStatus(fwd="stale", fwd_status=304, stored=True), b"REVALIDATED"),
        (CacheStatus(fwd="stale", fwd_status=200, detail="invalidated"), b"REVALIDATED"),
        (CacheStatus(fwd="request", stored=True), b"REVALIDATED"),
        (CacheStatus(fwd="bypass"), b"BYPASS"),
        (CacheStatus(fwd="method"), b"BYPASS"),
        *((CacheStatus(fwd=fwd), b"MISS") for fwd in ("uri-miss", "vary-miss", "miss", "partial")),
        (CacheStatus(detail="bad-request"), None),
    ],
    ids=str,
)
def test_vercel_s_word_for_it(status: CacheStatus, word: bytes | None) -> None:
    assert vercel_cache(status) == word
