"""RFC 9112 3.2, 3.3: which resource a request is for, and which requests name none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.semantics.errors import BadRequest
from edgeproxy.semantics.target import Form, read_target, split_absolute, split_authority
from tests.semantics.build import checked

HOST = (b"Shop.example:8080",)


@pytest.mark.parametrize(
    ("method", "target", "authority", "path_and_query", "form"),
    [
        pytest.param(b"GET", b"/a?b", "shop.example:8080", b"/a?b", "origin", id="3.2.1"),
        pytest.param(
            b"GET", b"http://Other.example/a", "other.example", b"/a", "absolute", id="3.2.2"
        ),
        pytest.param(
            b"GET", b"HTTPS://other.example:81?q", "other.example:81", b"/?q", "absolute",
            id="3.2.2-empty-path",
        ),
        pytest.param(b"OPTIONS", b"*", "shop.example:8080", b"*", "asterisk", id="3.2.4"),
        pytest.param(
            b"OPTIONS", b"http://other.example", "other.example", b"*", "asterisk",
            id="3.2.4-absolute",
        ),
        pytest.param(
            b"OPTIONS", b"http://other.example/", "other.example", b"/", "absolute",
            id="3.2.4-with-a-path",
        ),
    ],
)  # fmt: skip
def test_forms(
    method: bytes, target: bytes, authority: str, path_and_query: bytes, form: Form
) -> None:
    found = read_target(method, target, HOST)
    assert (found.authority, found.path_and_query, found.form) == (authority, path_and_query, form)
    assert found.host == authority.partition(":")[0]


@pytest.mark.parametrize(
    ("target", "authority", "origin_form"),
    [
        ("http://shop.example:80/a//b?c=http://d/e", "shop.example:80", "/a//b?c=http://d/e"),
        ("http://shop.example", "shop.example", "/"),
        ("http:///a", "", "/a"),
        ("shop.example:80", "", "/"),
    ],
)
def test_absolute_forms_are_split(target: str, authority: str, origin_form: str) -> None:
    assert split_absolute(target) == (authority, origin_form)


@pytest.mark.parametrize(
    "target",
    [
        b"/%2f//a;b=%7E?",
        b"/a?b?c=/d",
        b"//evil.example/a",
        b"/\xc3\xa9\xff",
        b"/a\\..\\b",
        b"/../a",
    ],
)
def test_targets_are_kept_byte_for_byte(target: bytes) -> None:
    assert read_target(b"GET", target, HOST).path_and_query == target


@pytest.mark.parametrize(
    ("method", "target", "hosts", "reason"),
    [
        pytest.param(b"GET", b"", HOST, "target-empty", id="empty"),
        pytest.param(b"GET", b"a", HOST, "target-form", id="3.2-no-form"),
        pytest.param(b"GET", b"?a", HOST, "target-form", id="3.2-query-alone"),
        pytest.param(b"GET", b"ftp://a/", HOST, "target-form", id="another-scheme"),
        pytest.param(b"GET", b"http:/a", HOST, "target-form", id="no-authority"),
        pytest.param(b"GET", b"/a#b", HOST, "target-fragment", id="fragment"),
        pytest.param(b"GET", b"/a b", HOST, "target-characters", id="space"),
        pytest.param(b"GET", b"/a\x00", HOST, "target-characters", id="NUL"),
        pytest.param(b"GET", b"/a\r\nX: y", HOST, "target-characters", id="CRLF"),
        pytest.param(b"GET", b"/a\x7f", HOST, "target-characters", id="DEL"),
        pytest.param(b"GET", b"*", HOST, "target-asterisk", id="3.2.4-other-method"),
        pytest.param(b"CONNECT", b"a:443", HOST, "target-authority-form", id="3.2.3"),
        pytest.param(b"GET", b"http://u:p@a/", HOST, "target-userinfo", id="9110-4.2.4"),
        pytest.param(b"GET", b"http:///a", HOST, "target-authority", id="9110-4.2.1-empty-host"),
        pytest.param(b"GET", b"http://a:b/", HOST, "target-authority", id="bad-port"),
        pytest.param(b"GET", b"/", (), "host-missing", id="3.2-no-Host"),
        pytest.param(b"GET", b"/", (b"a", b"a"), "host-repeated", id="3.2-two-Hosts"),
        pytest.param(b"GET", b"/", (b"",), "host-invalid", id="3.2-empty-Host"),
        pytest.param(b"GET", b"http://a/", (b"b c",), "host-invalid", id="3.2.2-Host-is-checked"),
    ],
)
def test_bad_requests(method: bytes, target: bytes, hosts: tuple[bytes, ...], reason: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_target(method, target, hosts)
    assert caught.value.reason == str(caught.value) == reason


def test_http_1_0_needs_no_host() -> None:
    found = read_target(b"GET", b"/a", (), host_required=False)
    assert (found.host, found.authority, found.path_and_query) == (None, None, b"/a")
    with pytest.raises(BadRequest):
        read_target(b"GET", b"/a", (b"a", b"b"), host_required=False)


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("Example.COM", ("example.com", None)),
        ("example.com:80", ("example.com", 80)),
        ("example.com:", ("example.com", None)),
        ("example.com:65535", ("example.com", 65535)),
        ("a_b.example", ("a_b.example", None)),
        ("192.0.2.1:1", ("192.0.2.1", 1)),
        ("[::1]", ("[::1]", None)),
        ("[2001:DB8::1]:8080", ("[2001:db8::1]", 8080)),
        ("a" * 255, ("a" * 255, None)),
        ("a" * 256, None),
        ("example.com:65536", None),
        ("example.com:-1", None),
        ("example.com:1:2", None),
        ("[::1", None),
        ("[::g]", None),
        ("[1.2.3.4]", None),
        ("::1", None),
        (".example", None),
        ("a%20b", None),
        ("a/b", None),
        ("a,b", None),
        ('a"b', None),
        ("ex\u00e4mple.com", None),
        ("\u212a.example", None),
        ("example.com:\u0661", None),
        ("", None),
        (":80", None),
        ("a\n", None),
    ],
)
def test_split_authority(authority: str, expected: tuple[str, int | None] | None) -> None:
    assert split_authority(authority) == expected


@checked
@given(
    st.sampled_from([b"GET", b"OPTIONS", b"POST"]),
    st.binary(max_size=20) | st.binary(max_size=20).map(lambda rest: b"/" + rest),
    st.lists(st.binary(max_size=10) | st.just(b"a.example"), max_size=2).map(tuple),
)
def test_a_target_is_read_or_refused_with_a_reason(
    method: bytes, target: bytes, hosts: tuple[bytes, ...]
) -> None:
    try:
        found = read_target(method, target, hosts)
    except BadRequest as error:
        assert error.reason
    else:
        assert found.path_and_query == b"*" or found.path_and_query.startswith(b"/")
        assert target.endswith(found.path_and_query) or found.path_and_query in (b"/", b"*")
        assert split_authority(found.authority or "") is not None
