"""Odd things to hand to a verb: values, ids, exceptions, chunks. Programs name them by number."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import Any

import trio

import flowtrio
from flowtrio import Chunk, Image, LocalProtocolError, ToolArgs, ToolCall, Usage

PNG = b"\x89PNG\r\n\x1a\n"


class Unprintable(Exception):
    """Cannot even be told."""

    def __str__(self) -> str:
        raise ZeroDivisionError("no text")

    __repr__ = __str__


class Harsh(BaseException):
    """No `Exception`."""


class Text(str):
    """A str that lies."""

    def isascii(self) -> bool:
        raise ZeroDivisionError("asked")

    def __len__(self) -> int:
        raise ZeroDivisionError("asked")


class Word(enum.StrEnum):
    """Text that is more than text."""

    CALL = "c1"


class Unhashable(str):
    """A str that is no key."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError("compared")


def _circle() -> Exception:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def _shared(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value, value]
    return value


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _endless() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


IDS: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: True,
    object,
    lambda: "\ud800",
    list,
    lambda: 1.5,
    lambda: b"c1",
    lambda: Word.CALL,
    lambda: "c" * 10_000,
    lambda: Unhashable("c1"),
    lambda: Text("c1"),
)

VALUES: tuple[Callable[[], Any], ...] = (
    lambda: [1, [2, {"a": 3}]],
    lambda: {"a": [1], "b": None},
    lambda: "text",
    lambda: float("nan"),
    object,
    lambda: "\ud800",
    lambda: {1: "a", "1": "b"},
    lambda: {"x", "y"},
    lambda: 10**400,
    lambda: b"bytes",
    _endless,
    lambda: _nested(500),
    lambda: _shared(8),
    lambda: Text("lies"),
    lambda: {"\ud800": 1},
    lambda: {None: 1},
    lambda: Word.CALL,
    lambda: Image(data=PNG, name="a.png"),
    lambda: ["page 1", Image(data=PNG), {"n": 1}, " "],
    lambda: {"deep": Image(data=PNG)},
    lambda: [Image(data=PNG + bytes(2**20))],
)


def parts() -> list[Any]:
    """A message with an image in it."""
    return [flowtrio.Text("go"), Image(data=PNG)]


FAILURES: tuple[Callable[[], BaseException], ...] = (
    lambda: ValueError("planned"),
    lambda: RuntimeError(""),
    lambda: ExceptionGroup("planned", [ValueError("a"), ExceptionGroup("b", [TypeError("c")])]),
    lambda: Unprintable(),
    _circle,
    lambda: Harsh("planned"),
    lambda: GeneratorExit(),
    lambda: StopAsyncIteration("planned"),
    lambda: trio.EndOfChannel("planned"),
    lambda: trio.ClosedResourceError("planned"),
    lambda: LocalProtocolError("planned"),
    lambda: TimeoutError("planned"),
    lambda: asyncio.CancelledError("planned"),
    lambda: ValueError("\ud800"),
    lambda: MemoryError(),
    lambda: trio.WouldBlock(),
)

INTERRUPTS: tuple[Callable[[], BaseException], ...] = (
    lambda: KeyboardInterrupt("planned"),
    lambda: SystemExit("planned"),
    lambda: BaseExceptionGroup("planned", [ValueError("a"), KeyboardInterrupt("planned")]),
)

CHUNKS: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: 5,
    lambda: "text",
    lambda: Chunk(content=None),  # type: ignore[arg-type]
    lambda: Chunk(content=5),  # type: ignore[arg-type]
    lambda: Chunk(content=b"x"),  # type: ignore[arg-type]
    lambda: Chunk(content=Text("lies")),
    lambda: Chunk(content="\ud800"),
    lambda: Chunk(reasoning="\udc00"),
    lambda: Chunk(reasoning=7),  # type: ignore[arg-type]
    lambda: Chunk(),
    lambda: Chunk(tool_args=None),  # type: ignore[arg-type]
    lambda: Chunk(tool_args=[None]),  # type: ignore[list-item]
    lambda: Chunk(tool_args=[ToolArgs(10**30, "p9", "t9", "{")]),
    lambda: Chunk(tool_args=[ToolArgs([], "p9", "t9", "{")]),  # type: ignore[arg-type]
    lambda: Chunk(tool_args=[ToolArgs("a", 5, 7, 9)]),  # type: ignore[arg-type]
    lambda: Chunk(tool_args=[ToolArgs(0, "p9", "\ud800", "\ud800")]),
    lambda: Chunk(parts=[None]),  # type: ignore[list-item]
    lambda: Chunk(parts=[{"type": "server_tool_call"}]),
    lambda: Chunk(parts=[{"type": "server_tool_call", "id": [], "name": 5, "arguments": 7}]),
    lambda: Chunk(parts=[{"type": "server_tool_result", "id": "s9"}]),
    lambda: Chunk(parts=[{"type": object()}]),
    lambda: Chunk(parts=[{"type": "citation", "x": float("nan")}]),
    lambda: Chunk(parts=[{"type": "refusal", "text": 5}]),
    lambda: Chunk(parts=[{"type": "refusal", "text": "no"}]),
    lambda: Chunk(parts=5),  # type: ignore[arg-type]
    lambda: Chunk(reset=5),  # type: ignore[arg-type]
    lambda: Chunk(reset="\ud800"),
    lambda: Chunk(reset="", content="again"),
    lambda: Chunk(is_final=True, tool_calls=None),  # type: ignore[arg-type]
    lambda: Chunk(is_final=True, tool_calls=[None]),  # type: ignore[list-item]
    lambda: Chunk(is_final=True, tool_calls=[ToolCall(None, None, 5)]),  # type: ignore[arg-type]
    lambda: Chunk(is_final=True, tool_calls=[ToolCall("", "", {})]),
    lambda: Chunk(is_final=True, finish_reason=5),  # type: ignore[arg-type]
    lambda: Chunk(is_final=True, usage="x"),  # type: ignore[arg-type]
    lambda: Chunk(is_final=True, usage=Usage(prompt_tokens=-1)),
    lambda: Chunk(is_final=True, usage=Usage(completion_tokens=10**400)),
    lambda: Chunk(is_final=True, usage=Usage(cost="9e999999")),
    lambda: Chunk(is_final=True, model=7),  # type: ignore[arg-type]
    lambda: Chunk(is_final=True, model="\ud800"),
    lambda: Chunk(is_final=True, carry=object()),  # type: ignore[arg-type]
    lambda: Chunk(is_final="yes"),  # type: ignore[arg-type]
    lambda: Chunk(is_final=True, raw_finish_reason=object()),  # type: ignore[arg-type]
)
