"""The own API, version 1, in front of a real cache: purge, and look at what is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.invalidation.journal import JournalError, LocalJournal
from edgeproxy.invalidation.selectors import Mode, Selector
from edgeproxy.invalidation.service import TooManyRules
from tests.admin.conftest import EDITOR, READER, AdminPort
from tests.invalidation.samples import new_head
from tests.kit import Answer
from tests.kit.disk import full_disk

if TYPE_CHECKING:
    from edgeproxy.invalidation.record import Record

HOUR = "max-age=3600, stale-while-revalidate=3600"


async def fill(port: AdminPort) -> None:
    """/a and /b of the shop have the tag home, /c has none; /a of the blog has it too."""
    for target, tags in (("/a", "home, a"), ("/b", "home"), ("/c", "")):
        fields = {"Cache-Control": HOUR, **({"Cache-Tag": tags} if tags else {})}
        port.origin.route(target, Answer(200, fields, target.encode()))
    for target in ("/a", "/b", "/c"):
        assert (await port.served.get(target)).status == 200
    assert (await port.served.get("/a", host="blog.test")).status == 200


async def hits(port: AdminPort, *targets: str, host: str = "shop.test") -> list[str]:
    """Those of the targets that are served from the cache, fresh."""
    found = []
    for target in targets:
        status = (await port.served.get(target, host=host)).cache_status
        if status.get("hit") and not status.get("detail"):
            found.append(target)
    return found


def journal(port: AdminPort) -> list[Record]:
    """All records, read as after a restart would be; the edge must have been closed."""
    opened = LocalJournal(port.served.place.directory / "journal", new_head())
    return opened.since(0, 1 << 32)


# -- purge


@pytest.mark.parametrize(
    ("body", "matched", "left"),
    [
        ({"tags": ["home"], "site": "shop"}, 2, ["/c"]),
        ({"tags": ["a", "home"], "site": "shop"}, 2, ["/c"]),
        ({"tags": ["nothing"], "site": "shop"}, 0, ["/a", "/b", "/c"]),
        ({"tags": ["Home"], "site": "shop"}, 0, ["/a", "/b", "/c"]),
        ({"tags": ["home"], "site": "*"}, 3, ["/c"]),
        ({"everything": True, "site": "shop"}, 3, []),
        ({"everything": True, "site": "blog"}, 1, ["/a", "/b", "/c"]),
        ({"urls": ["http://shop.test/a"]}, 1, ["/b", "/c"]),
        ({"urls": ["https://shop.test/a"]}, 1, ["/b", "/c"]),
        ({"urls": ["http://www.shop.test/a"]}, 0, ["/a", "/b", "/c"]),
        ({"urls": ["/a", "/b"], "site": "shop"}, 2, ["/c"]),
        ({"urls": ["/a"], "site": "*"}, 2, ["/b", "/c"]),
        ({"urls": ["/c"], "tags": ["a"], "site": "shop"}, 2, ["/b"]),
        ({"everything": True, "site": "shop", "environment": "preview"}, 0, ["/a", "/b", "/c"]),
        ({"everything": True, "site": "shop", "environment": "production"}, 3, []),
    ],
    ids=str,
)
async def test_a_purge_is_in_force_when_it_is_answered(
    port: AdminPort, body: dict[str, Any], matched: int, left: list[str]
) -> None:
    await fill(port)
    answer = await port.purge(**body)
    assert answer.status == 200
    record = answer.body.pop("id")
    assert len(record) == 32 and int(record, 16) >= 0
    assert answer.body == {
        "position": 1,
        "mode": "invalidate",
        "matched": matched,
        "dry_run": False,
    }
    assert await hits(port, "/a", "/b", "/c") == left


async def test_a_purge_that_the_journal_has_no_room_for_is_refused(
    port: AdminPort, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(port)
    folder = port.served.place.directory / "journal"
    with full_disk():
        refused = await port.purge(everything=True, site="shop")
    assert refused.status == 503
    assert refused.body["detail"] == "the journal can't be written: nothing was purged"
    (logged,) = [record for record in caplog.records if "was not done" in record.message]
    assert f"the journal in {folder}: " in logged.message
    assert logged.exc_info is None
    assert await hits(port, "/a", "/b", "/c") == ["/a", "/b", "/c"]
    assert (await port.purge(everything=True, site="shop")).body["matched"] == 3
    assert await hits(port, "/a") == []


async def test_what_is_invalidated_is_served_stale_and_what_is_deleted_is_not(
    port: AdminPort,
) -> None:
    await fill(port)
    await port.purge(urls=["/a"], site="shop")
    await port.purge(urls=["/b"], site="shop", mode="delete")
    stale = (await port.served.get("/a")).cache_status
    assert (stale["hit"], stale["detail"]) == (True, "invalidated")
    assert (await port.served.get("/b")).cache_status["fwd"] == "uri-miss"


async def test_positions_count_up_and_the_deleted_are_not_counted_again(port: AdminPort) -> None:
    await fill(port)
    home = {"tags": ["home"], "site": "shop"}
    answers = [await port.purge(mode=mode, **home) for mode in ("invalidate", "delete", "delete")]
    assert [(each.body["position"], each.body["matched"]) for each in answers] == [
        (1, 2),
        (2, 2),
        (3, 0),
    ]
    assert len({each.body["id"] for each in answers}) == 3


async def test_a_dry_run_counts_and_does_nothing(port: AdminPort) -> None:
    await fill(port)
    answer = await port.purge(everything=True, site="shop", mode="delete", dry_run=True)
    assert answer.body == {
        "id": None,
        "position": 0,
        "mode": "delete",
        "matched": 3,
        "dry_run": True,
    }
    assert await hits(port, "/a", "/b", "/c") == ["/a", "/b", "/c"]


async def test_the_journal_knows_who_purged_what(port: AdminPort) -> None:
    await port.purge(EDITOR, tags=["a"], urls=["http://shop.test/a"], site="shop", mode="delete")
    await port.served.edge.close()
    (record,) = journal(port)
    assert (record.actor, record.source, record.mode) == ("editor", "127.0.0.1", Mode.DELETE)
    assert record.time == port.served.clock.now
    assert record.selectors == (
        Selector.by_tag("shop", "a"),
        Selector.by_url("shop", "shop.test", b"/a"),
    )


@pytest.mark.parametrize(
    ("body", "detail", "fields"),
    [
        pytest.param(b"", "the body is not JSON", None, id="nothing"),
        pytest.param(
            b'{"tags":\n["a",}', "the body is not JSON: Expecting value at line 2, column 6", None,
            id="8259-2: no JSON",
        ),
        pytest.param(b"\xff\xfe", "the body is not JSON", None, id="8259-8.1: no UTF-8"),
        pytest.param(b"[" * 100_000, "the body is not JSON", None, id="nested without end"),
        pytest.param(
            b'{"tags": [' + b"1" * 5000 + b"]}", "the body is not JSON", None,
            id="a number without end",
        ),
        pytest.param(b'["home"]', "the body must be a JSON object", None, id="no object"),
        pytest.param(b"null", "the body must be a JSON object", None, id="null"),
        pytest.param(
            b'{"tags": ["a"], "tags": ["b"]}', "the body has the key 'tags' twice", None,
            id="a key twice",
        ),
        pytest.param(b"{}", "invalid: the body", [""], id="nothing selected"),
        pytest.param(
            b'{"tag": "home"}', "invalid: tag", ["tag"], id="a key that is not known"
        ),
        pytest.param(
            b'{"tags": ["a", ""], "mode": "x"}',
            "invalid: tags[1], mode",
            ["tags[1]", "mode"],
            id="several at once",
        ),
        pytest.param(b'{"tags": ["\\ud800"]}', "invalid: tags[0]", ["tags[0]"], id="half a pair"),
        pytest.param(b'{"tags": ["a"]}', "missing: site", ["site"], id="which site"),
        pytest.param(
            b'{"urls": ["http://shop.test/\\ud800"]}', "invalid: urls[0]", ["urls[0]"],
            id="half a pair in a URL",
        ),
        pytest.param(
            b'{"urls": ["http://a.test/"]}', "invalid: urls[0]", ["urls[0]"], id="nobody's URL"
        ),
    ],
)  # fmt: skip
async def test_a_wrong_purge_is_told_what_is_wrong_and_purges_nothing(
    port: AdminPort, body: bytes, detail: str, fields: list[str] | None
) -> None:
    answer = await port.call("POST", "/v1/purge", body)
    assert answer.status == 400
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert answer.body["detail"].startswith(detail)
    named = answer.body.get("errors")
    assert (None if named is None else [each["field"] for each in named]) == fields
    assert "PurgeRequest" not in str(answer.body), "names of our own mean nothing to a caller"
    assert port.served.edge.view.catch_up() == 0


@pytest.mark.parametrize(
    ("secret", "body"),
    [
        (READER, {"everything": True, "site": "shop"}),
        (EDITOR, {"everything": True, "site": "blog"}),
        (EDITOR, {"urls": ["http://shop.test/a", "http://blog.test/a"]}),
    ],
)
async def test_what_a_token_may_not_purge_is_left_alone(
    port: AdminPort, secret: str, body: dict[str, Any]
) -> None:
    await fill(port)
    assert (await port.purge(secret, **body)).status == 403
    assert await hits(port, "/a", "/b", "/c") == ["/a", "/b", "/c"]
    assert await hits(port, "/a", host="blog.test") == ["/a"]


async def test_a_purge_that_can_t_be_recorded_is_not_answered_as_one(
    port: AdminPort, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(port)
    await port.served.edge.service._journal.close()
    answer = await port.purge(everything=True, site="shop")
    assert answer.status == 500
    assert str(port.served.place.directory) not in str(answer.body)
    assert "POST /v1/purge failed" in caplog.text


# -- entries


async def test_an_entry_tells_all_about_a_response(port: AdminPort) -> None:
    await fill(port)
    received = port.served.clock.now
    port.served.clock.now += 60
    answer = await port.call("GET", "/v1/entries?url=http://shop.test/a")
    assert answer.status == 200
    assert (answer.body["url"], answer.body["position"]) == ("http://shop.test/a", 0)
    assert answer.body["notes"] == []
    (entry,) = answer.body["entries"]
    assert (entry["url"], entry["environment"]) == ("http://shop.test/a", "production")
    assert (entry["served"], entry["why"]) == ("hit", "fresh for 3540 s more")
    assert entry["tags"] == ["a", "home"]
    assert entry["received"] == received
    assert entry["freshness"]["age"] == 60
    assert ["Cache-Tag", "home, a"] in entry["fields"]
    assert entry["body"] == {"where": "inline", "length": 2}


async def test_what_was_purged_is_told(port: AdminPort) -> None:
    await fill(port)
    await port.purge(urls=["/a"], site="shop")
    await port.purge(urls=["/b"], site="shop", mode="delete")
    a = await port.call("GET", "/v1/entries?url=http://shop.test/a")
    assert a.body["position"] == 2
    assert [(each["served"], each["invalidated_at"]) for each in a.body["entries"]] == [
        ("stale", 1)
    ]
    b = await port.call("GET", "/v1/entries?url=http://shop.test/b")
    assert [each["served"] for each in b.body["entries"]] == ["no"]
    assert "position 2" in b.body["entries"][0]["why"]


@pytest.mark.parametrize(
    ("query", "urls"),
    [
        ("url=/a&site=shop", ["http://shop.test/a"]),
        ("url=/a&site=blog", ["http://blog.test/a"]),
        ("url=/a&site=*", ["http://blog.test/a", "http://shop.test/a"]),
        ("url=http://blog.test/a?utm_source=x", ["http://blog.test/a"]),
        ("url=http%3A%2F%2Fshop.test%2Fa", ["http://shop.test/a"]),
        ("url=/nothing&site=shop", []),
        ("url=http://www.shop.test/a", []),
    ],
)
async def test_which_entries(port: AdminPort, query: str, urls: list[str]) -> None:
    await fill(port)
    answer = await port.call("GET", f"/v1/entries?{query}")
    assert answer.status == 200
    assert [each["url"] for each in answer.body["entries"]] == urls


async def test_why_nothing_is_stored(port: AdminPort) -> None:
    port.origin.route("/mine", Answer(200, {"Cache-Control": "private"}, b"x"))
    await port.served.get("/mine")
    answer = await port.call("GET", "/v1/entries?url=http://shop.test/mine")
    assert answer.body["entries"] == []
    assert answer.body["notes"] == [
        "http://shop.test/mine: the last answer was not stored: private"
    ]


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("?url=", ["url"]),
        ("?url=nothing", ["url"]),
        ("?url=http://other.test/", ["url"]),
        ("?url=/a&site=nothing", ["site"]),
        ("?url=/a&site=shop&before=3&after=2", ["before", "after"]),
        ("?tag=a%00", ["tag"]),
        ("?limit=0", ["limit"]),
        ("?limit=1001", ["limit"]),
        ("?limit=%201", ["limit"]),
        ("?limit=1_0", ["limit"]),
        ("?cursor=AAAA", ["cursor"]),
        ("?cursor=%F0%9F%98%80", ["cursor"]),
        ("?environment=test", ["environment"]),
        ("?url=http://shop.test/a&host=www.shop.test", ["host"]),
        ("?prefix=nothing", ["prefix"]),
        ("?url=/a&url=/b", None),
        ("?url=http://shop.test/%FF", None),
    ],
)
async def test_a_wrong_question_is_told_what_is_wrong(
    port: AdminPort, query: str, fields: list[str] | None
) -> None:
    answer = await port.call("GET", f"/v1/entries{query}")
    assert answer.status == 400
    named = answer.body.get("errors")
    assert (None if named is None else [each["field"] for each in named]) == fields


async def test_who_may_look(port: AdminPort) -> None:
    await fill(port)
    for secret, host, status in (
        (READER, "blog.test", 200),
        (EDITOR, "shop.test", 200),
        (EDITOR, "blog.test", 403),
    ):
        answer = await port.call("GET", f"/v1/entries?url=http://{host}/a", secret=secret)
        assert answer.status == status
        assert ("entries" in answer.body) == (status == 200)


@pytest.mark.parametrize(
    ("error", "retry_after"),
    [(TooManyRules("try again"), "1"), (JournalError("the journal in /secret: full"), None)],
    ids=["rules", "journal"],
)
async def test_a_purge_that_has_to_wait_is_not_answered_as_done(
    port: AdminPort, monkeypatch: pytest.MonkeyPatch, error: Exception, retry_after: str | None
) -> None:
    async def failing(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(port.served.edge.service, "purge", failing)
    answer = await port.purge(everything=True, site="shop")
    assert (answer.status, answer.headers.get("Retry-After")) == (503, retry_after)
    assert "/secret" not in str(answer.body)
