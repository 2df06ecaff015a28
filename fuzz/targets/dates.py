"""HTTP-date: each line is one."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from edgeproxy.semantics.dates import format_http_date, parse_http_date

END = 253_402_300_800
"""When the year 9999 ends, in seconds since the epoch."""


def check(data: bytes) -> None:
    for line in data.split(b"\n"):
        read = parse_http_date(line)
        if read is None:
            continue
        assert parse_http_date(line.lower()) == read
        # A leap second is the second after it, and the year 10000 can't be written.
        assert read == END or parse_http_date(format_http_date(read)) == read
        # What else reads dates takes the year 1 for 2001, and knows no leap seconds.
        if len(line) == 29 and line[12:16] > b"1000" and line[23:25] != b"60":
            told = parsedate_to_datetime(line.decode())
            assert (told - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() == read
