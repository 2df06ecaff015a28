"""An edge that speaks TLS to its readers."""

import ssl
from pathlib import Path

import trustme

from tests.kit import EdgeProcess


async def speak_tls(edge: EdgeProcess, folder: Path) -> ssl.SSLContext:
    """Start the edge anew with TLS, as shop.example; what a client trusts."""
    authority = trustme.CA()
    pair = folder / "shop.example.pem"
    authority.issue_cert("shop.example").private_key_and_cert_chain_pem.write_to_path(pair)
    tls = {"certificates": [{"cert": str(pair), "key": str(pair)}]}
    edge.write_config({"listen": [{"address": edge.config["listen"][0]["address"], "tls": tls}]})
    await edge.stop()
    await edge.start()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
