"""The body of an answer: a chain of the library's async generators.

It has to be unwound from the inside, which only an exception at its innermost wait does: a
cancellation, or the body's end.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import trio


def body_of(response: Any) -> AsyncIterator[bytes]:
    """The pieces of an answer's body, as they come."""
    if "content-encoding" in response.headers:
        return response.aiter_bytes()  # type: ignore[no-any-return]
    # What the library has around this, to decompress and to count, costs as much as our decoding.
    return aiter(response.stream)


async def read_at_most(body: AsyncIterator[bytes], limit: int) -> bytes:
    """Read a body to its end, or to the first piece beyond *limit* bytes."""
    pieces, size = [], 0
    async for piece in body:
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            break
    return b"".join(pieces)


async def unwind(body: AsyncIterator[bytes], patience: float) -> None:
    """Read a body to its end for *patience* seconds, then end it by a cancellation of our own."""
    with trio.CancelScope(shield=True) as scope:
        scope.deadline = trio.current_time() + patience
        # Whatever is wrong with the rest, nobody wants it any more.
        with contextlib.suppress(Exception):
            async for _ in body:
                pass
    with contextlib.suppress(Exception):
        await body.aclose()  # type: ignore[attr-defined]
