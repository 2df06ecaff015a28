"""From what a caller names to selectors: of which sites, and whether it may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeproxy.admin import selecting
from edgeproxy.admin.api.requests import PurgeRequest
from edgeproxy.admin.problems import Problem, problem_of
from edgeproxy.admin.refusals import Refused
from edgeproxy.admin.selecting import Selecting, named_sites, purge_selectors
from edgeproxy.config.server import AdminToken
from edgeproxy.config.sites import SiteTable
from edgeproxy.invalidation.selectors import Selector
from tests.admin.conftest import EDITOR, MASTER, READER, TWO_SITES, token
from tests.proxy.parts import edge_config

ONE = SiteTable(edge_config(Path("/nowhere")))
TWO = SiteTable(edge_config(Path("/nowhere"), config=TWO_SITES))

master = AdminToken(**token("master", MASTER))
editor = AdminToken(**token("editor", EDITOR, sites=["shop"]))
reader = AdminToken(**token("reader", READER, actions=["read"]))


def selected(sites: SiteTable, by: AdminToken, **body: Any) -> tuple[Selector, ...]:
    return purge_selectors(PurgeRequest.model_validate(body), sites, by)


def refusal(sites: SiteTable, by: AdminToken, **body: Any) -> Problem:
    """What the caller is told."""
    with pytest.raises((Problem, Refused)) as caught:
        selected(sites, by, **body)
    return caught.value if isinstance(caught.value, Problem) else problem_of(caught.value)


# -- tags, and everything


@pytest.mark.parametrize(
    ("sites", "by", "body", "selectors"),
    [
        pytest.param(
            ONE,
            master,
            {"tags": ["a", "b", "a"]},
            [Selector.by_tag("shop", "a"), Selector.by_tag("shop", "b")],
            id="the only site needs no name",
        ),
        pytest.param(ONE, master, {"everything": True}, [Selector.by_everything("shop")], id="all"),
        pytest.param(
            TWO,
            master,
            {"tags": ["a"], "site": "blog"},
            [Selector.by_tag("blog", "a")],
            id="of a site that is named",
        ),
        pytest.param(
            TWO,
            master,
            {"tags": ["a"], "site": "*"},
            [Selector.by_tag("blog", "a"), Selector.by_tag("shop", "a")],
            id="of all sites",
        ),
        pytest.param(
            TWO,
            editor,
            {"tags": ["a"], "site": "*"},
            [Selector.by_tag("shop", "a")],
            id="of all sites that it may",
        ),
        pytest.param(
            TWO,
            master,
            {"everything": True, "tags": ["a"], "site": "blog", "environment": "preview"},
            [Selector.by_everything("blog", "preview")],
            id="all has the tags in it",
        ),
        pytest.param(
            ONE,
            master,
            {"tags": ["a"], "environment": "production"},
            [Selector.by_tag("shop", "a", "production")],
            id="of one environment",
        ),
        pytest.param(
            ONE,
            master,
            {"everything": True, "urls": ["/a"]},
            [Selector.by_everything("shop"), Selector.by_url("shop", None, b"/a")],
            id="and of a URL besides",
        ),
    ],
)
def test_what_is_selected(
    sites: SiteTable, by: AdminToken, body: dict[str, Any], selectors: list[Selector]
) -> None:
    assert list(selected(sites, by, **body)) == selectors


# -- URLs


@pytest.mark.parametrize(
    ("urls", "more", "selectors"),
    [
        pytest.param(
            ["https://shop.test/a?b#c"],
            {},
            [Selector.by_url("shop", "shop.test", b"/a?b")],
            id="absolute: of the site that serves its host",
        ),
        pytest.param(
            ["HTTPS://www.SHOP.test:443"],
            {},
            [Selector.by_url("shop", "www.shop.test", b"/")],
            id="9110-4.2.3: normalised",
        ),
        pytest.param(
            ["http://a.blog.test/"],
            {},
            [Selector.by_url("blog", "a.blog.test", b"/")],
            id="by a wildcard host",
        ),
        pytest.param(
            ["https://preview.shop.test/"],
            {},
            [Selector.by_url("shop", "preview.shop.test", b"/")],
            id="a preview host",
        ),
        pytest.param(
            ["/a"],
            {"site": "blog"},
            [Selector.by_url("blog", None, b"/a")],
            id="a path: on all hosts of the site",
        ),
        pytest.param(
            ["/a"],
            {"site": "*"},
            [Selector.by_url("blog", None, b"/a"), Selector.by_url("shop", None, b"/a")],
            id="a path of all sites",
        ),
        pytest.param(
            ["https://blog.test/a?utm_source=x", "https://shop.test/a?utm_source=x"],
            {},
            [
                Selector.by_url("blog", "blog.test", b"/a"),
                Selector.by_url("shop", "shop.test", b"/a?utm_source=x"),
            ],
            id="by the key rules of each site",
        ),
        pytest.param(
            ["https://shop.test/cb:t1/a", "https://shop.test/a"],
            {"site": "*"},
            [Selector.by_url("shop", "shop.test", b"/a")],
            id="a cb: copy stands for the page, once",
        ),
        pytest.param(
            ["https://shop.test/grün"],
            {"site": "shop", "environment": "preview"},
            [Selector.by_url("shop", "shop.test", b"/gr%C3%BCn", "preview")],
            id="3987-3.1: as a browser sends it",
        ),
    ],
)
def test_what_a_url_selects(
    urls: list[str], more: dict[str, Any], selectors: list[Selector]
) -> None:
    assert list(selected(TWO, master, urls=urls, **more)) == selectors


@pytest.mark.parametrize(
    ("body", "selectors"),
    [
        pytest.param(
            {"prefixes": ["/b/", "https://blog.test/ü"], "site": "shop"},
            None,
            id="another site's prefix",
        ),
        pytest.param(
            {"prefixes": ["/b/"], "site": "shop"},
            [Selector("shop", prefix=b"/b/")],
            id="a path's beginning",
        ),
        pytest.param(
            {"prefixes": ["https://BLOG.test/ü", "http://blog.test?a"]},
            [
                Selector("blog", host="blog.test", prefix=b"/%C3%BC"),
                Selector("blog", host="blog.test", prefix=b"/?a"),
            ],
            id="a URL's beginning",
        ),
        pytest.param(
            {"hosts": ["Blog.test:8080"]}, [Selector("blog", host="blog.test:8080")], id="a host"
        ),
        pytest.param(
            {"patterns": ["^/a"], "globs": ["/a/*"], "site": "blog"},
            [
                Selector("blog", pattern="^/a"),
                Selector("blog", pattern=r"^\/a\/[^/]*$"),
            ],
            id="patterns",
        ),
        pytest.param(
            {"globs": ["https://**/x"], "site": "blog"},
            [Selector("blog", pattern=r"^https\:\/\/.*\/x$", pattern_on="url")],
            id="a form of URLs",
        ),
        pytest.param(
            {"sources": ["HTTPS://E.test:443/i.jpg"], "site": "blog"},
            [Selector.by_source("blog", "https://e.test/i.jpg")],
            id="a source image",
        ),
        pytest.param(
            {"selectors": [{"host": "shop.test", "tag": "A", "any_case": True, "status": 404}]},
            [Selector("shop", tag="a", any_case=True, host="shop.test", status=404)],
            id="several conditions: the host says the site",
        ),
        pytest.param(
            {"selectors": [{"url": "http://blog.test/?utm_source=x", "content_type": "Text/*"}]},
            [
                Selector(
                    "blog",
                    host="blog.test",
                    target=b"/",
                    target_id=Selector.by_url("blog", None, b"/").target_id,
                    content_type="text/*",
                )
            ],
            id="several conditions: a URL by the site's key rules",
        ),
        pytest.param(
            {"selectors": [{"prefix": "/a", "glob": "**.html"}], "site": "*"},
            [
                Selector("blog", prefix=b"/a", pattern=r"^.*\.html$"),
                Selector("shop", prefix=b"/a", pattern=r"^.*\.html$"),
            ],
            id="several conditions: in all sites",
        ),
    ],
)
def test_what_the_other_selectors_select(
    body: dict[str, Any], selectors: list[Selector] | None
) -> None:
    if selectors is None:
        assert refusal(TWO, master, **body).errors[0]["field"] == "prefixes[1]"
    else:
        assert list(selected(TWO, master, **body)) == selectors


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"prefixes": ["/", "x"]}, "prefixes[1]", "neither an http(s) URL nor a path"),
        ({"hosts": ["shop.test", "a b"]}, "hosts[1]", "not a valid host"),
        ({"hosts": ["other.test"]}, "hosts[0]", "no site here serves other.test"),
        ({"patterns": ["a", "("]}, "patterns[1]", "'(' is not an RE2 expression"),
        ({"patterns": [r"(a)\1"]}, "patterns[0]", "is not an RE2 expression"),
        ({"selectors": [{"tag": "a"}, {"pattern": "["}]}, "selectors[1].pattern", "RE2"),
        ({"selectors": [{"url": "x"}]}, "selectors[0].url", "neither"),
        ({"selectors": [{"prefix": "x"}]}, "selectors[0].prefix", "neither"),
        ({"selectors": [{"host": "[", "tag": "a"}]}, "selectors[0].host", "not a valid host"),
        ({"selectors": [{"host": "blog.test"}]}, "selectors[0].host", "not to 'shop'"),
        (
            {"selectors": [{"url": "http://shop.test/", "host": "www.shop.test"}]},
            "selectors[0].host",
            "nothing is of both shop.test and www.shop.test",
        ),
        ({"tags": [f"t{at}" for at in range(10_000)], "urls": ["/a"] * 10_000}, None, ""),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_wrong_with_the_other_selectors(
    body: dict[str, Any], field: str | None, said: str
) -> None:
    if field is None:
        assert len(selected(TWO, master, **body, site="shop")) == 10_001
        return
    site = {} if field == "hosts[0]" else {"site": "shop"}
    problem = refusal(TWO, master, **body, **site)
    assert (problem.status, [each["field"] for each in problem.errors]) == (400, [field])
    assert said in problem.errors[0]["detail"]


def test_a_call_comes_to_so_many_selectors_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selecting, "MAX_SELECTED", 3)
    assert len(selected(TWO, master, tags=["a", "b", "c"], site="shop")) == 3
    assert refusal(TWO, master, tags=["a", "b"], site="*").errors[0]["field"] == "site"


def test_what_a_url_selects_where_there_is_a_default_site() -> None:
    table = SiteTable(edge_config(Path("/nowhere"), config={"default_site": "shop"}))
    assert selected(table, master, urls=["http://any.test:81/a"]) == (
        Selector.by_url("shop", "any.test:81", b"/a"),
    )


def test_the_id_of_a_target_is_the_one_that_responses_bear() -> None:
    (selector,) = selected(TWO, master, urls=["https://shop.test/a"])
    assert selector.target_id == Selector.by_url("shop", None, b"/a").target_id
    assert selector.target_id != Selector.by_url("blog", None, b"/a").target_id


# -- what is wrong


@pytest.mark.parametrize(
    ("by", "body", "status", "field", "said"),
    [
        pytest.param(
            master, {"tags": ["a"]}, 400, "site", 'blog, shop, or "*"', id="which site is not said"
        ),
        pytest.param(
            editor, {"tags": ["a"]}, 400, "site", "name one of shop, or", id="only its own are told"
        ),
        pytest.param(
            master,
            {"tags": ["a"], "site": "shpo"},
            400,
            "site",
            "no site 'shpo'",
            id="no such site",
        ),
        pytest.param(
            master, {"urls": ["/a"]}, 400, "site", 'blog, shop, or "*"', id="nor for a path"
        ),
        pytest.param(
            master,
            {"urls": ["https://shop.test/", "https://other.test/"]},
            400,
            "urls[1]",
            "no site here serves other.test",
            id="nobody's host",
        ),
        pytest.param(
            master,
            {"urls": ["https://shop.test/"], "site": "blog"},
            400,
            "urls[0]",
            "shop.test belongs to site 'shop', not to 'blog'",
            id="another site's host",
        ),
        pytest.param(
            master,
            {"sources": ["/a", "#b"], "site": "shop"},
            400,
            "sources[1]",
            "names no image",
            id="no image",
        ),
        pytest.param(
            master,
            {"selectors": [{"source": "#b", "status": 200}]},
            400,
            "selectors[0].source",
            "names no image",
            id="no image with a condition",
        ),
        pytest.param(
            master, {"urls": ["shop.test/a"]}, 400, "urls[0]", "neither an http(s) URL", id="no URL"
        ),
        pytest.param(
            master, {"urls": ["ftp://shop.test/"]}, 400, "urls[0]", "neither", id="no http URL"
        ),
        pytest.param(
            master, {"urls": ["https://shop.test/a b"]}, 400, "urls[0]", "spaces", id="a blank"
        ),
        pytest.param(
            master, {"urls": ["/a\tb"], "site": "shop"}, 400, "urls[0]", "spaces", id="a tab"
        ),
        pytest.param(
            master, {"urls": ["https://a b/"]}, 400, "urls[0]", "spaces", id="a blank in the host"
        ),
        pytest.param(
            master, {"urls": ["https://[x/"]}, 400, "urls[0]", "not a valid host", id="no host"
        ),
        pytest.param(
            master,
            {"urls": ["https://u@shop.test/"]},
            400,
            "urls[0]",
            "no user information",
            id="9110-4.2.4: userinfo",
        ),
    ],
)
def test_the_field_that_is_wrong_is_named(
    by: AdminToken, body: dict[str, Any], status: int, field: str, said: str
) -> None:
    problem = refusal(TWO, by, **body)
    assert problem.status == status
    assert [each["field"] for each in problem.errors] == [field]
    assert field in problem.detail
    assert said in problem.errors[0]["detail"]


@pytest.mark.parametrize(
    ("by", "body", "said"),
    [
        (editor, {"tags": ["a"], "site": "blog"}, 'purge on site "blog"'),
        (editor, {"everything": True, "site": "blog"}, 'purge-everything on site "blog"'),
        (editor, {"urls": ["https://blog.test/"]}, 'purge on site "blog"'),
        (editor, {"urls": ["https://shop.test/", "https://blog.test/"]}, 'purge on site "blog"'),
        (editor, {"urls": ["/"], "site": "blog"}, 'purge on site "blog"'),
        (editor, {"tags": ["a"], "site": "nothing"}, 'purge on site "nothing"'),
        (reader, {"tags": ["a"], "site": "shop"}, 'purge on site "shop"'),
        (reader, {"everything": True, "site": "*"}, "purge-everything on any site"),
        (reader, {"urls": ["/"], "site": "*"}, "purge on any site"),
        (reader, {"urls": ["https://shop.test/"]}, 'purge on site "shop"'),
        (reader, {"tags": ["a"]}, "purge on any site"),
    ],
    ids=str,
)
def test_what_a_token_may_not(by: AdminToken, body: dict[str, Any], said: str) -> None:
    problem = refusal(TWO, by, **body)
    assert problem.status == 403
    assert said in problem.detail


def test_the_only_site_is_not_the_token_s() -> None:
    other = AdminToken(**token("other", EDITOR, sites=["blog"]))
    assert refusal(ONE, other, tags=["a"]).status == 403
    assert refusal(ONE, other, everything=True).status == 403


# -- the same for looking


def test_who_may_look_need_not_be_allowed_to_purge() -> None:
    assert list(named_sites("*", TWO, reader, "read")) == ["blog", "shop"]
    (selector,) = Selecting(TWO, reader, None, None, "read").url("https://shop.test/", "url")
    assert selector == Selector.by_url("shop", "shop.test", b"/")


def test_the_field_is_the_caller_s() -> None:
    with pytest.raises(Problem) as caught:
        list(Selecting(TWO, reader, None, None, "read").url("nothing", "url"))
    assert caught.value.errors[0]["field"] == "url"


def test_one_site_of_many() -> None:
    assert list(named_sites("blog", TWO, master, "purge")) == ["blog"]
