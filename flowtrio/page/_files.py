"""The web page: its files, and the headers that they are served with.

The files are served as they stand, without a build step. Their addresses are relative, so that the
page works wherever an application mounts it.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Final

import attrs

MEDIA_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
"""What the page is made of, by the ends of the files' names."""

PLACES: Final = {"": "index.html", "studio": "studio.html"}
"""What is at an address without an end: the page itself, and the operators' one."""


@attrs.frozen
class PageFile:
    """One file of the page."""

    body: bytes = attrs.field(repr=False)
    media_type: str
    etag: str
    """Of this content, quoted as in the header."""
    gzipped: bytes = attrs.field(init=False, repr=False)
    """The content, compressed."""

    def __attrs_post_init__(self) -> None:
        # Once, and the same each time: so it can be as small as it gets.
        object.__setattr__(self, "gzipped", gzip.compress(self.body, 9, mtime=0))

    @property
    def gzipped_etag(self) -> str:
        """Of what is compressed: another representation, which has a name of its own."""
        return f'{self.etag[:-1]}-gzip"'


def read_page() -> Mapping[str, PageFile]:
    """Read the page's files, by the paths below the page's own; also of `PLACES`.

    What is not named here does not exist: no path is ever looked up in a file system.
    """
    found = {}
    for entry in files("flowtrio.page").joinpath("static").iterdir():
        body = entry.read_bytes()
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        media_type = MEDIA_TYPES[entry.name.rpartition(".")[2]]
        found[entry.name] = PageFile(body, media_type, etag)
    return {**found, **{place: found[name] for place, name in PLACES.items()}}


def page_headers(sockets: Iterable[str] = ()) -> dict[str, str]:
    """Headers of every file of the page.

    The policy allows what the page does and nothing else: files of this server, requests to it, no
    script or style in the markup, no text made into markup, no frame around it. What a model says
    could not run even if the page had put it into itself.

    Args:
      sockets: Origins of WebSocket servers at other addresses (``ws://host:port``) that pages from
        here may connect to.

    """
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        # What was sent is shown from the page's own memory.
        "img-src": "'self' blob:",
        "connect-src": " ".join(["'self'", *sockets]),
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        # Asked for each time, and mostly not sent again: a new release is seen at once.
        "cache-control": "no-cache",
    }
