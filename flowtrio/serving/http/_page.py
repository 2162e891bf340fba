"""The page's files as answers: compressed for those who can read that, and not sent twice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from flowtrio.page._files import PageFile

    from ._request import Exchange

_NEVER: Final = re.compile(r"q=0(\.0*)?$")


async def answer_file(exchange: Exchange, file: PageFile, headers: Mapping[str, str]) -> None:
    """Answer with a file, in the form that the client takes."""
    asked = exchange.request.headers
    is_gzipped = takes_gzip(asked.get("accept-encoding", ""))
    etag = file.gzipped_etag if is_gzipped else file.etag
    vary = ", ".join(filter(None, ["accept-encoding", exchange.cors.get("vary")]))
    named = {**headers, "content-type": file.media_type, "etag": etag, "vary": vary}
    if is_gzipped:
        named["content-encoding"] = "gzip"
    if asked.get("if-none-match") == etag:
        return await exchange.answer(304, headers=named)
    return await exchange.answer(200, file.gzipped if is_gzipped else file.body, named)


def takes_gzip(accepted: str) -> bool:
    """Whether a client says that it can read it; who says nothing may not.

    "If the representation's content coding is one of the content codings listed in the
    Accept-Encoding field value, then it is acceptable unless it is accompanied by a qvalue of 0"
    (RFC 9110, 12.5.3).
    """
    for coding in accepted.split(","):
        name, _, quality = coding.partition(";")
        if name.strip().lower() in ("gzip", "x-gzip"):
            return _NEVER.fullmatch(quality.replace(" ", "")) is None
    return False
