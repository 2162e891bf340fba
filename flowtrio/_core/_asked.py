"""Keys and tokens: a text, or a function that is asked for one each time."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from ._values import type_name

Asked: TypeAlias = str | Callable[[], str | Awaitable[str]]
"""A text, or a function, async too, that gives it: for keys that do not live long."""


def check_asked(what: str, given: object) -> None:
    """Refuse what is neither a text nor a function; the message does not show it.

    Raises:
      TypeError: it is neither.

    """
    if given is not None and not isinstance(given, str) and not callable(given):
        raise TypeError(f"{what}: expected a text or a function, got {type_name(given)}")


def fits_header(text: str) -> bool:
    """Whether a text can be sent as the value of a header."""
    return text.isascii() and text.isprintable()


async def ask(what: str, given: Asked) -> str:
    """The text itself, or what the function gives now.

    Raises:
      TypeError: it gave no text.
      ValueError: it is empty, or cannot stand in a header; the message does not show it.

    """
    if isinstance(given, str):
        return given
    text = given()
    if inspect.isawaitable(text):
        text = await text
    if not isinstance(text, str):
        raise TypeError(f"{what}(): expected a text, got {type_name(text)}")
    if not (fits_header(text) and text.strip()):
        raise ValueError(f"{what}(): expected printable ASCII characters")
    return text
