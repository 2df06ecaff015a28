"""Forwarded and X-Forwarded-For: "Name: value" lines of a request from a trusted proxy."""

from ipaddress import ip_address, ip_network

from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.forwarding import client_address, end_to_end, forwarded_request_fields
from fuzz.parts import fields_of

PROXY = "10.0.0.1"
TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


def check(data: bytes) -> None:
    fields = fields_of(data.split(b"\n"))
    assert client_address(fields, PROXY, []) == (PROXY, False)
    client, trusted = client_address(fields, PROXY, TRUSTED)
    assert trusted
    assert str(ip_address(client)) == client

    kept = end_to_end(fields)
    assert b"connection" not in kept
    assert end_to_end(kept) == kept

    # Who asks the edge behind this one is told the same.
    sent = _forwarded(fields, client, trusted=True, peer=PROXY)
    assert client_address(sent, PROXY, TRUSTED) == (client, True)
    told = sent.joined(b"x-forwarded-for")
    assert told is not None
    assert told.endswith(PROXY.encode())

    # A stranger's word is worth nothing.
    alone = _forwarded(fields, "192.0.2.1", trusted=False, peer=None)
    assert alone.get_all(b"x-forwarded-for") == (b"192.0.2.1",)
    assert alone.get_all(b"x-forwarded-host") == (b"a.example",)
    assert alone.get_all(b"forwarded") == (b"for=192.0.2.1;host=a.example;proto=http",)
    folded = [name.lower().replace(b"_", b"-") for name, _ in alone]
    assert folded.count(b"x-forwarded-for") == folded.count(b"forwarded") == 1
    assert not {b"x-original-url", b"x-http-method-override", b"proxy"} & set(folded)


def _forwarded(fields: Fields, client: str, *, trusted: bool, peer: str | None) -> Fields:
    return forwarded_request_fields(
        fields,
        client=client,
        trusted=trusted,
        scheme="http",
        host="a.example",
        version="1.1",
        pseudonym="edge",
        peer=peer,
    )
