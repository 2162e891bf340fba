"""How a line is closed, by a server or by what stands before it, and what that is for the next one.

The codes are those of RFC 6455, section 7.4, and of IANA's registry. Most say that this line is
over, and the next one goes on. Some say that what we send is not taken: sent again, it would be
refused again, and so without an end.
"""

from __future__ import annotations

from typing import Final

import trio
from trio_websocket import ConnectionClosed

_WORDS: Final = {
    1000: "the server closed the connection",
    1001: "the server goes away",
    1002: "the server says that we broke the protocol",
    1003: "the server does not take this kind of data",
    1005: "the server closed the connection without saying why",
    1006: "the connection was lost",
    1007: "the server says that what we sent is malformed",
    1008: "the server's policy refuses us",
    1009: "what we sent is larger than the server takes",
    1010: "the server misses an extension of the protocol",
    1011: "the server failed",
    1012: "the server restarts",
    1013: "the server is too busy",
    1014: "a gateway had no good answer from the server",
    3000: "the server wants us to authenticate",
    3003: "the server forbids it",
    3008: "the server waited for too long",
}
_REFUSED: Final = frozenset({1002, 1003, 1007, 1008, 1009, 1010, 3000, 3003})
_TOO_BIG: Final = 1009
LOST_CODE: Final = 1006
MOST_REFUSALS: Final = 3
"""So many lines in a row that are refused are enough."""


class TooMuch(trio.BrokenResourceError):
    """The server sent more in one message than is taken here."""


class GaveUpOne(trio.BrokenResourceError):
    """A message was too large, and is not sent again: the next line is none the worse for it."""


def code_of(failure: ConnectionClosed) -> int:
    """The code that a line was closed with; 1006, as by RFC 6455, where it just broke."""
    return failure.reason.code if failure.reason is not None else LOST_CODE


def is_too_big(failure: Exception) -> bool:
    """Whether the server got a message that is larger than it takes."""
    return isinstance(failure, ConnectionClosed) and code_of(failure) == _TOO_BIG


def is_refused(failure: Exception) -> bool:
    """Whether the same is likely to happen on the next line."""
    if isinstance(failure, ConnectionClosed):
        return code_of(failure) in _REFUSED
    return isinstance(failure, TooMuch)


def words_of_closing(failure: ConnectionClosed) -> str:
    """Why a line was closed, for people; the server's own words may hold anything: not told."""
    code = code_of(failure)
    return f"{_WORDS.get(code, 'the server closed the connection')} (close code {code})"
