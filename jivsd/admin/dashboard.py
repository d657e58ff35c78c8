"""The dashboard: pages for people, as files that the daemon keeps in memory. They hold no data.

What they show they ask the API for, like any client. Styles and scripts have addresses with a hash of all of them in
it, so that a browser may keep them for ever and never mixes two versions.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final, NamedTuple

from jivsd.admin.exchange import Response, asked

if TYPE_CHECKING:
    from jivsd.admin.http import Handler, Route

PAGES: Final = {"/": "index.html", "/docs": "docs.html"}

_PREFIX: Final = "/static/"
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_KEEP: Final = "public, max-age=31536000, immutable"
_ASK_AGAIN: Final = "no-cache"
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""What a browser is told about every file: nothing from elsewhere, no script in markup, no frame around it.

Trusted Types make the browser refuse to parse a text as markup at all.
"""


class Asset(NamedTuple):
    body: bytes
    type: str
    etag: str
    kept: str
    """Its Cache-Control."""


@cache
def assets() -> dict[str, Asset]:
    """All files, by the exact path at which they are served: what may be had without a token."""
    found = {file.name: file.read_bytes() for file in files("jivsd.admin").joinpath("static").iterdir()}
    whole = hashlib.sha256(b"".join(name.encode() + b"\0" + found[name] for name in sorted(found))).hexdigest()[:16]
    folder = f"{_PREFIX}{whole}/"
    pages = {path: _asset(name, found[name].replace(_PREFIX.encode(), folder.encode())) for path, name in PAGES.items()}
    others = {folder + name: _asset(name, body) for name, body in found.items() if name not in PAGES.values()}
    return pages | others


def _asset(name: str, body: bytes) -> Asset:
    kind = name.rpartition(".")[2]
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return Asset(body, _TYPES[kind], etag, _ASK_AGAIN if kind == "html" else _KEEP)


class DashboardRoutes:
    """Answers `/`, `/docs` and what they are made of."""

    def routes(self) -> list[Route]:
        return [("GET", path, _serve(asset)) for path, asset in assets().items()]


def _serve(asset: Asset) -> Handler:
    headers = {**HEADERS, "Cache-Control": asset.kept, "ETag": asset.etag}

    async def serve() -> Response:
        if asset.etag in (asked().header(b"if-none-match") or ""):
            return Response(b"", 304, headers)
        return Response(asset.body, 200, headers, content_type=asset.type)

    return serve
