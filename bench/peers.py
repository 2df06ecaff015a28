"""The configurations of the other servers: tuned as their makers advise, and honest.

All listen on 127.0.0.1, keep connections open both ways, don't mind cookies, and log no requests.
"""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

Tls = tuple[int, "Path"]
"""A port, and the file that has certificate and key."""


def nginx_origin(folder: Path, port: int, slow: int) -> Path:
    """The origin: files, each path with a Cache-Control of its own; /slow/ if there is a port."""
    upstream = location = ""
    if slow:
        upstream = f"  upstream slow {{ server 127.0.0.1:{slow}; keepalive 256; }}\n"
        location = (
            "    location /slow/ { proxy_pass http://slow; proxy_http_version 1.1;\n"
            '      proxy_set_header Connection ""; }\n'
        )
    public = 'add_header Cache-Control "public, max-age=3600";'
    return _nginx(
        folder,
        1,
        "  default_type text/html;\n"
        f"{upstream}  server {{\n    listen 127.0.0.1:{port};\n    root {folder};\n"
        f"    location /page/ {{ add_header Cache-Tag shop,page; {public} }}\n"
        f"    location /vary/ {{ alias {folder}/page/;\n"
        f"      add_header Vary Accept-Encoding; {public} }}\n"
        f"    location /small/ {{ {public} }}\n"
        f"    location /1mb/ {{ {public} }}\n"
        f"    location /100mb/ {{ {public} }}\n"
        "    location /second/ {\n"
        '      add_header Cache-Control "max-age=1, stale-while-revalidate=600"; }\n'
        f"    location /private/ {{ alias {folder}/small/;\n"
        '      add_header Cache-Control "private, no-store"; }\n'
        f"{location}    location = /status {{ stub_status; }}\n  }}\n",
    )


def nginx(folder: Path, port: int, origin: int, workers: int, tls: Tls | None) -> Path:
    """proxy_cache; what is open stays open, and is sent by sendfile."""
    listen_tls = ""
    if tls:
        listen_tls = (
            f"    listen 127.0.0.1:{tls[0]} ssl reuseport;\n    ssl_certificate {tls[1]};\n"
            f"    ssl_certificate_key {tls[1]};\n    ssl_protocols TLSv1.2 TLSv1.3;\n"
            "    ssl_session_cache shared:tls:10m;\n"
        )
    return _nginx(
        folder,
        workers,
        f"  proxy_cache_path {folder / 'cache'} levels=1:2 keys_zone=cache:256m max_size=2g\n"
        "    inactive=1h use_temp_path=off;\n"
        f"  upstream origin {{ server 127.0.0.1:{origin}; keepalive 256;\n"
        "    keepalive_requests 1000000000; }\n"
        f"  server {{\n    listen 127.0.0.1:{port} reuseport;\n{listen_tls}    location / {{\n"
        "      proxy_pass http://origin;\n      proxy_http_version 1.1;\n"
        '      proxy_set_header Connection "";\n      proxy_set_header Host $host;\n'
        "      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n"
        "      proxy_cache cache;\n      proxy_cache_lock on;\n"
        "      proxy_cache_use_stale updating error timeout;\n"
        "      proxy_cache_background_update on;\n"
        '      add_header Cache-Status "nginx; $upstream_cache_status" always;\n    }\n  }\n',
    )


def _nginx(folder: Path, workers: int, http: str) -> Path:
    name = pwd.getpwuid(os.getuid()).pw_name
    user = f"user {name};\n" if os.getuid() == 0 else ""  # else its worker could not write here
    temporary = "".join(
        f"  {kind}_temp_path {folder / kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"{user}daemon off;\nworker_processes {workers};\nerror_log stderr error;\n"
        f"pid {folder / 'nginx.pid'};\nevents {{ worker_connections 4096; }}\n"
        f"http {{\n{temporary}  access_log off;\n  keepalive_requests 1000000000;\n"
        "  sendfile on;\n  tcp_nopush on;\n"
        "  open_file_cache max=10000 inactive=1h;\n  open_file_cache_valid 1h;\n"
        f"{http}}}\n"
    )
    return config


VARNISH_LOGS_NOT = ",".join(
    f"-{tag}"
    for tag in (
        *("SessOpen", "SessClose", "Begin", "End", "Link", "Timestamp", "Hash", "Debug", "Gzip"),
        *("ReqStart", "ReqMethod", "ReqURL", "ReqProtocol", "ReqHeader", "ReqUnset", "ReqAcct"),
        *("RespProtocol", "RespStatus", "RespReason", "RespHeader", "RespUnset", "Length"),
        *("BereqMethod", "BereqURL", "BereqProtocol", "BereqHeader", "BereqUnset", "BereqAcct"),
        *("BerespProtocol", "BerespStatus", "BerespReason", "BerespHeader", "BerespUnset"),
        *("BackendOpen", "BackendReuse", "BackendClose", "Fetch_Body", "Storage", "TTL"),
        *("VCL_call", "VCL_return", "VCL_use", "Hit", "HitMiss", "HitPass", "Filters"),
    )
)
"""All that it would log of a request: its log in memory is what an access log is made of."""


def varnish(folder: Path, origin: int) -> Path:
    """Its built-in VCL, but that cookies don't matter."""
    config = folder / "bench.vcl"
    config.write_text(
        "vcl 4.1;\n"
        f'backend origin {{ .host = "127.0.0.1"; .port = "{origin}"; }}\n'
        "sub vcl_recv { unset req.http.Cookie; }\n"
    )
    return config


def squid(folder: Path, port: int, origin: int, tls: Tls | None) -> Path:
    """An accelerator that caches in memory."""
    site = "defaultsite=www.shop.example no-vhost"
    listen_tls = ""
    if tls:
        listen_tls = f"https_port 127.0.0.1:{tls[0]} accel tls-cert={tls[1]} {site}\n"
    config = folder / "squid.conf"
    config.write_text(
        f"http_port 127.0.0.1:{port} accel {site}\n{listen_tls}"
        f"cache_peer 127.0.0.1 parent {origin} 0 no-query no-digest originserver name=origin\n"
        "http_access allow all\nnever_direct allow all\n"
        "cache_mem 2 GB\nmaximum_object_size 200 MB\nmaximum_object_size_in_memory 200 MB\n"
        "memory_cache_shared off\nworkers 1\ncollapsed_forwarding on\n"
        "access_log none\ncache_store_log none\ncache_log stdio:/dev/null\n"
        f"pid_filename none\ncoredump_dir {folder}\nnetdb_filename none\n"
        "shutdown_lifetime 0 seconds\n"
    )
    return config


def trafficserver(folder: Path, port: int, origin: int, tls: Tls | None) -> None:
    """A reverse proxy with one thread for requests, and a RAM cache before its disk cache."""
    ports = f"{port}:ip-in=127.0.0.1" + (f" {tls[0]}:ssl:ip-in=127.0.0.1" if tls else "")
    settings = {
        "http.server_ports": f"STRING {ports}",
        "exec_thread.autoconfig": "INT 0",
        "exec_thread.limit": "INT 1",
        "accept_threads": "INT 0",
        "cache.ram_cache.size": "INT 2147483648",
        "cache.ram_cache_cutoff": "INT 209715200",
        "log.logging_enabled": "INT 0",
        "http.cache.required_headers": "INT 2",
        "http.insert_request_via_str": "INT 0",
        "http.keep_alive_no_activity_timeout_in": "INT 120",
        "url_remap.remap_required": "INT 1",
        "url_remap.pristine_host_hdr": "INT 1",
        "http.parent_proxy.self_detect": "INT 0",
        "diags.debug.enabled": "INT 0",
        "http.cache.max_open_read_retries": "INT -1",
    }
    if tls:
        settings["ssl.server.cert.path"] = f"STRING {tls[1].parent}"
        settings["ssl.server.private_key.path"] = f"STRING {tls[1].parent}"
    files = {
        "records.config": "".join(
            f"CONFIG proxy.config.{name} {value}\n" for name, value in settings.items()
        ),
        "remap.config": f"map / http://127.0.0.1:{origin}/\n",
        "storage.config": f"{folder} 3G\n",
        "ssl_multicert.config": f"dest_ip=* ssl_cert_name={tls[1].name}\n" if tls else "",
        "ip_allow.yaml": "ip_allow:\n  - {apply: in, ip_addrs: 127.0.0.1, action: allow,"
        " methods: ALL}\n",
        "logging.yaml": "",
        "plugin.config": "",
    }
    for name, content in files.items():
        (folder / name).write_text(content)
