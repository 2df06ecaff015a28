"""For schemathesis: what the formats of the OpenAPI document stand for, and JSON Schema can't say.

The edge under test has one site, `default`, that serves all hosts.
"""

import schemathesis
from hypothesis import strategies as st

from edgeproxy.admin.api.paging import to_cursor

_SEGMENTS = st.lists(st.sampled_from(["", "a", "b.html", "%7E", "grün", "cb:x", "~"]), max_size=4)
_PATHS = st.builds(lambda parts, query: "/" + "/".join(parts) + query, _SEGMENTS,
                   st.sampled_from(["", "?", "?a=1&b=2"]))  # fmt: skip
_HOSTS = st.sampled_from(["shop.test", "SHOP.test:8080", "192.0.2.1", "[::1]:80"])
_URLS = st.builds("{}://{}{}".format, st.sampled_from(["http", "https"]), _HOSTS, _PATHS)
_EXPRESSIONS = ["^/a", r"\.html$", "(?i)b|c", "[a-z]{2,3}", "/x.*y", "ü"]

schemathesis.openapi.format("url", _URLS)
schemathesis.openapi.format("url-or-path", _PATHS)
schemathesis.openapi.format("host", _HOSTS)
schemathesis.openapi.format("re2", st.sampled_from(_EXPRESSIONS))
schemathesis.openapi.format("site", st.just("default"))
for _list, _place in {
    "entries": (0, b"", b""),
    "tags": (1, "default", "a"),
    "journal": 5,
    "tokens": 5,
    "jobs": "a",
    "sites": "a",
}.items():
    schemathesis.openapi.format(f"{_list}-cursor", st.just(to_cursor(_place)))
