"""What a model's stream costs to decode, for each of its events.

Ours is `ChatDecoder`: an SSE decoder that keeps every rule of the format, typed decoding, and a
`Chunk` for each event. It is held against the shortest thing that works on the same bytes: split
the lines, `json.loads` what follows ``data:``, pick out the text. And against what is made for it,
httpx-sse with `json.loads`, in bulk: a whole reply in the largest pieces that a socket gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial

import httpx
import httpx_sse

from flowtrio.wire._openai_chat import ChatDecoder

from ._measure import Row, Stopwatch, compare, interleave

TARGET = 1
"""All the rules for no more than the naive way costs; not asked of bytes cut as none are sent."""


def body(events: int) -> list[bytes]:
    """A reply as OpenAI sends it, cut at its events; the token's number stands for its text."""
    head = {
        "id": "chatcmpl-9bqKSzUvQ2mTgk4QXo1dEwHhFzVdL",
        "object": "chat.completion.chunk",
        "created": 1_716_230_000,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_3aa7262c27",
    }

    def event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        text = json.dumps({**head, "choices": [choice]}, separators=(",", ":"))
        return f"data: {text}\n\n".encode()

    texts = [event({"content": f" {number}"}) for number in range(events)]
    return [*texts, event({}, "stop"), b"data: [DONE]\n\n"]


def in_pieces(pieces: Sequence[bytes], size: int) -> list[bytes]:
    """The same bytes, cut where a socket might."""
    whole = b"".join(pieces)
    return [whole[start : start + size] for start in range(0, len(whole), size)]


def decode_ours(pieces: Sequence[bytes]) -> list[str]:
    decoder = ChatDecoder()
    texts: list[str] = []
    for piece in pieces:
        texts += [chunk.content for chunk in decoder.receive_data(piece) if chunk.content]
    assert decoder.is_complete
    return texts


def decode_naively(pieces: Sequence[bytes]) -> list[str]:
    rest = b""
    texts: list[str] = []
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data: ") and line != b"data: [DONE]":
                content = json.loads(line[6:])["choices"][0]["delta"].get("content")
                if content:
                    texts.append(content)
    return texts


def decode_by_httpx_sse(pieces: Sequence[bytes]) -> list[str]:
    headers = {"content-type": "text/event-stream"}
    response = httpx.Response(200, headers=headers, content=iter(pieces))
    texts: list[str] = []
    for event in httpx_sse.EventSource(response).iter_sse():
        if event.data != "[DONE]":
            content = json.loads(event.data)["choices"][0]["delta"].get("content")
            if content:
                texts.append(content)
    return texts


def side(decode: Callable[[Sequence[bytes]], list[str]], pieces: list[bytes], events: int) -> float:
    """CPU seconds for each event."""
    watch = Stopwatch()
    texts = decode(pieces)
    spent = watch.seconds_each(events)
    assert texts == [f" {number}" for number in range(events)]
    return spent


def rows(quick: bool) -> list[Row]:
    """The table's lines on this subject."""
    events, rounds = (5_000, 3) if quick else (40_000, 7)
    by_event = body(events)
    found = []
    for name, pieces, target in (
        ("each by itself", by_event, TARGET),
        ("in blocks of 16 KiB", in_pieces(by_event, 16 * 1024), TARGET),
        ("in splinters of 50 bytes", in_pieces(by_event, 50), None),
    ):
        taken = interleave(
            rounds,
            ours=partial(side, decode_ours, pieces, events),
            naive=partial(side, decode_naively, pieces, events),
        )
        found.append(
            compare(
                f"event, {name} / split + json.loads",
                taken["ours"],
                taken["naive"],
                target=target,
            )
        )
    bulk = in_pieces(by_event, 64 * 1024)
    taken = interleave(
        rounds,
        ours=partial(side, decode_ours, bulk, events),
        theirs=partial(side, decode_by_httpx_sse, bulk, events),
    )
    found.append(
        compare(
            "event, in bulk / httpx-sse + json.loads",
            taken["ours"],
            taken["theirs"],
            target=TARGET,
        )
    )
    return found
