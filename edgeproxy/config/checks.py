"""Checks that concern several settings, or what lies outside the configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.config.errors import Problem, did_you_mean, key_path
from edgeproxy.config.sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgeproxy.config.addresses import Address
    from edgeproxy.config.model import Config
    from edgeproxy.config.server import Memory, Store


_MOST_SLOW_TOKENS = 32
"""A secret that nobody has is compared with all of them: 0.15 s each."""


def cross_check(config: Config) -> list[Problem]:
    """What is wrong between settings that are right one by one."""
    return [
        *_addresses(config),
        *_sizes("store", config.store),
        *_sizes("memory", config.memory),
        *_tokens(config),
        *_dialects(config),
        *_sites(config),
    ]


def _addresses(config: Config) -> Iterator[Problem]:
    taken: list[tuple[str, Address]] = []
    for number, listener in enumerate(config.listen):
        taken.append((f"listen[{number}].address", listener.address))
    taken.append(("admin.address", config.admin.address))
    for place, (key, address) in enumerate(taken):
        for other_key, other in taken[:place]:
            if address.overlaps(other):
                fault = f'"{address}" is taken by {other_key} ("{other}"); choose another port'
                yield Problem(key, fault)
                break


def _sizes(name: str, tier: Store | Memory) -> Iterator[Problem]:
    if tier.max_object_bytes > tier.max_bytes:
        yield Problem(
            f"{name}.max_object_bytes",
            f"{format_size(tier.max_object_bytes)} is more than {name}.max_bytes "
            f"({format_size(tier.max_bytes)}): no such body would ever fit",
        )


def _tokens(config: Config) -> Iterator[Problem]:
    names: dict[str, int] = {}
    hashes: dict[str, int] = {}
    slow = [token for token in config.admin.tokens if token.secret.slow]
    if len(slow) > _MOST_SLOW_TOKENS:
        yield Problem(
            "admin.tokens",
            f"{len(slow)} of them have a scrypt hash; more than {_MOST_SLOW_TOKENS} would take too "
            "long to try: use long random tokens",
        )
    for number, token in enumerate(config.admin.tokens):
        key = key_path("admin", "tokens", number)
        first = names.setdefault(token.name, number)
        if first != number:
            fault = f'"{token.name}" is the name of admin.tokens[{first}] too; names are unique'
            yield Problem(f"{key}.name", fault)
        first = hashes.setdefault(token.hash, number)
        if first != number:
            fault = f"is the hash of admin.tokens[{first}] too; make each its own token"
            yield Problem(f"{key}.hash", fault)
        for place, site in enumerate(token.sites):
            if site != "*" and site not in config.sites:
                yield Problem(f"{key}.sites[{place}]", _no_site(site, config.sites))


def _dialects(config: Config) -> Iterator[Problem]:
    owners: dict[str, str] = {}
    for name, settings in config.admin.dialects.named():
        host = settings.host
        if host is None:
            continue
        key = key_path("admin", "dialects", name, "host")
        if host.startswith("*."):
            yield Problem(key, f'"{host}" is not one name; give a name without the star')
        owner = owners.setdefault(host, key)
        if owner != key:
            yield Problem(key, f'"{host}" is {owner} already; one dialect is spoken under a name')
    for site in config.admin.dialects.brilliant_directories.areas:
        if site not in config.sites:
            key = key_path("admin", "dialects", "brilliant_directories", "areas", site)
            yield Problem(key, _no_site(site, config.sites))


def _sites(config: Config) -> Iterator[Problem]:
    if config.default_site is not None and config.default_site not in config.sites:
        yield Problem("default_site", _no_site(config.default_site, config.sites))
    owners: dict[str, str] = {}
    names = dict.fromkeys(config.sites, "a site's name")
    for name, site in config.sites.items():
        for number, each in enumerate(site.ids):
            key = key_path("sites", name, "ids", number)
            taken = names.setdefault(each, key)
            if taken != key:
                yield Problem(key, f'"{each}" is {taken} already; an id is of one site')
        if not site.hosts and not site.preview_hosts and config.default_site != name:
            yield Problem(
                key_path("sites", name, "hosts"),
                "no host names: no request would reach this site; give some, or make it the "
                f'default_site = "{name}"',
            )
        for kind, hosts in (("hosts", site.hosts), ("preview_hosts", site.preview_hosts)):
            for number, host in enumerate(hosts):
                key = key_path("sites", name, kind, number)
                owner = owners.setdefault(host, key)
                if owner != key:
                    yield Problem(key, f'"{host}" is {owner} already; a host is in one place')


def _no_site(name: str, known: Iterable[str]) -> str:
    near = did_you_mean(name, known)
    hint = f'did you mean "{near}"?' if near else f"the sites are: {', '.join(known)}"
    return f'there is no site "{name}"; {hint}'


def check_files(config: Config) -> list[Problem]:
    """Whether certificates, keys and authorities are there and can be read, the log written."""
    problems: list[Problem | None] = []
    for number, listener in enumerate(config.listen):
        for place, certificate in enumerate(listener.tls.certificates if listener.tls else ()):
            key = f"listen[{number}].tls.certificates[{place}]"
            problems.append(_unreadable(f"{key}.cert", certificate.cert))
            problems.append(_unreadable(f"{key}.key", certificate.key))
    for name, site in config.sites.items():
        for number, origin in enumerate(site.origins):
            if origin.tls.ca_file is not None:
                key = key_path("sites", name, "origins", number, "tls", "ca_file")
                problems.append(_unreadable(key, origin.tls.ca_file))
    if isinstance(config.log.access, Path) and not config.log.access.parent.is_dir():
        fault = f"the folder {config.log.access.parent} does not exist; create it"
        problems.append(Problem("log.access", fault))
    return [problem for problem in problems if problem is not None]


def _unreadable(key: str, path: Path) -> Problem | None:
    try:
        if path.is_dir():
            return Problem(key, f"{path} is a folder; name the file in it")
        with path.open("rb"):
            return None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return Problem(key, f"can't read {path}: {reason}")


def reload_differences(old: Config, new: Config) -> list[str]:
    """Settings that differ, and that a running server can't change; "key: old -> new" each."""
    pairs = [
        ("listen", _listeners(old), _listeners(new)),
        ("admin.address", str(old.admin.address), str(new.admin.address)),
        ("workers", str(old.workers), str(new.workers)),
        ("runtime_dir", str(old.runtime_dir), str(new.runtime_dir)),
        ("store.url", str(old.store.url), str(new.store.url)),
        ("store.state_dir", str(old.store.state_dir), str(new.store.state_dir)),
        ("store.max_bytes", format_size(old.store.max_bytes), format_size(new.store.max_bytes)),
        (
            "store.max_object_bytes",
            format_size(old.store.max_object_bytes),
            format_size(new.store.max_object_bytes),
        ),
        ("memory.max_bytes", format_size(old.memory.max_bytes), format_size(new.memory.max_bytes)),
        (
            "memory.max_object_bytes",
            format_size(old.memory.max_object_bytes),
            format_size(new.memory.max_object_bytes),
        ),
    ]
    changed = [f"{key}: {before} -> {after}" for key, before, after in pairs if before != after]
    # The text hides the password, so a new one shows nowhere above.
    if old.store.url != new.store.url and str(old.store.url) == str(new.store.url):
        changed.append("store.url: its password")
    return changed


def _listeners(config: Config) -> str:
    return ", ".join(f"{one.address}{' (TLS)' if one.tls else ''}" for one in config.listen)
