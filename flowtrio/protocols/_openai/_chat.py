"""A run as one chat completion, or as several where the client runs tools of its own.

Chat completions know one text and calls for the client to run. So what the root agent says is the
answer, its messages one behind the other; calls that we run are told as reasoning, if at all, for a
client would run what it finds among the calls. What was said cannot be taken back: an answer that
begins again says so, unless it is held until it is whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import attrs
import msgspec

from flowtrio._core._events import ROOT, AgentEvent, EventType
from flowtrio.serving.http._segments import Waits
from flowtrio.wire._sse import encode_event, encode_json_event

from ._errors import Ending, unreadable
from ._usage import Spent

Item: TypeAlias = dict[str, Any]
"""A chunk, an error, or the mark at the end."""

OVER: Final[Item] = {"flowtrio": "[DONE]"}
"""The mark at the end of an answer that is whole."""
BREAK: Final = "\n\n"
"""Between the messages of one answer."""
AGAIN: Final = "\n\n(The answer begins again.)\n\n"
"""Behind what was said and is discarded."""


def encode_item(item: Item) -> bytes:
    """An item as an event of the stream."""
    return encode_event("[DONE]") if item is OVER else encode_json_event(item)


@attrs.define(eq=False)
class _Message:
    """A message that is being said."""

    deltas: list[Item] = attrs.field(factory=list, init=False)
    """What of it has not been told."""
    is_told: bool = attrs.field(default=False, init=False)
    """Whether text of it has been."""
    is_complete: bool = attrs.field(default=False, init=False)


@attrs.define(eq=False, kw_only=True)
class ChatMapper:
    """Tells a run's log in chunks; see `Mapper`."""

    run_id: str
    model: str
    """The name by which the agent was asked for."""
    client_tools: frozenset[str] = frozenset()
    """Names of the tools that the client runs."""
    is_held: bool = False
    """Whether a message is told when it is complete."""
    shows_usage: bool = False
    shows_tools: bool = True
    """Whether calls that we run are told as reasoning."""
    ending: Ending = attrs.field(factory=Ending, init=False)
    _id: str = attrs.field(default="", init=False)
    _created: int = attrs.field(default=0, init=False)
    _seq: int = attrs.field(default=-1, init=False)
    _spent: Spent = attrs.field(factory=Spent, init=False)
    _open: dict[str, _Message] = attrs.field(factory=dict, init=False)
    """What is being said, in the order in which it began: the first is told as it comes, since two
    texts told at once would be neither."""
    _has_text: bool = attrs.field(default=False, init=False)
    """Whether this answer has text."""
    _said: str | None = attrs.field(default=None, init=False)
    """The root's last message with a text."""
    _thinking: str = attrs.field(default="", init=False)
    """The message whose reasoning is being told; empty at the beginning of a line."""
    _citations: Iterator[int] = attrs.field(factory=itertools.count, init=False)
    _finish_reason: str = attrs.field(default="stop", init=False)
    _calls: dict[str, Item] = attrs.field(factory=dict, init=False)
    """The calls that run, by id."""

    def feed(self, event: AgentEvent) -> list[Item]:
        """See `Mapper`."""
        self._seq = event.seq
        self._spent.feed(event)
        self.ending.feed(event)
        data = event.data
        match event.type:
            case EventType.RUN_START:
                self._created = int(event.timestamp)
                return self._begin(f"chatcmpl-{self.run_id}")
            case EventType.TOOL_CALL_START:
                return self._start(data)
            case EventType.TOOL_CALL_END:
                self._calls.pop(data["call_id"], None)
            case EventType.DONE:
                return self._end(data)
            case _ if event.agent == ROOT:
                return self._tell_root(event.type, data)
            case _:
                pass
        return []

    def resume(self) -> list[Item]:
        """See `Mapper`."""
        self._has_text, self._thinking = False, ""
        self._spent.begin()
        return self._begin(f"chatcmpl-{self.run_id}:{self._seq}")

    def pause(self, waits: Waits) -> list[Item]:
        """See `Mapper`: what is waited for are the client's own tools."""
        calls = [self._calls[e.data["call_id"]] for e in waits.questions.values()]
        told = [
            self._chunk({"tool_calls": [{"index": index, **call}]})
            for index, call in enumerate(calls)
        ]
        return [*told, *self._finish("tool_calls")]

    def fail(self, code: str, error: str) -> list[Item]:
        """See `Mapper`."""
        self.ending.failure = unreadable(code, error)
        return [self.ending.failure.body]

    # What is said

    def _tell_root(self, type: EventType, data: dict[str, Any]) -> list[Item]:
        match type:
            case EventType.MESSAGE_CHUNK if data["chunk"]:
                return self._say(data["message_id"], {"content": data["chunk"]})
            case EventType.MESSAGE_PART:
                return self._say_part(data["message_id"], data["part"])
            case EventType.REASONING_CHUNK:
                return self._think(data["message_id"], data["chunk"])
            case EventType.MESSAGE_RESET:
                return self._reset(data["message_id"])
            case EventType.MESSAGE_COMPLETE:
                return self._complete(data)
            case _:
                return []

    def _say(self, message_id: str, delta: Item) -> list[Item]:
        self._open.setdefault(message_id, _Message()).deltas.append(delta)
        return list(self._flush())

    def _say_part(self, message_id: str, part: dict[str, Any]) -> list[Item]:
        if refused := refused_in(part):
            return self._say(message_id, {"refusal": refused})
        annotation = annotation_of(part)
        if annotation is None:
            return []
        kind, index = annotation.pop("type"), next(self._citations)
        cited = {"index": index, "type": kind, kind: annotation}
        return self._say(message_id, {"annotations": [cited]})

    def _flush(self) -> Iterator[Item]:
        """Tell what may be told."""
        while self._open:
            message_id, message = next(iter(self._open.items()))
            if self.is_held and not message.is_complete:
                return
            for delta in message.deltas:
                if "content" in delta and not message.is_told:
                    message.is_told = True
                    delta = {"content": BREAK * self._has_text + delta["content"]}
                    self._has_text = True
                yield self._chunk(delta)
            message.deltas.clear()
            if not message.is_complete:
                return
            del self._open[message_id]

    def _reset(self, message_id: str) -> list[Item]:
        message = self._open.get(message_id)
        if message is None:
            return []
        message.deltas.clear()
        return [self._chunk({"content": AGAIN})] if message.is_told else []

    def _complete(self, data: dict[str, Any]) -> list[Item]:
        self._finish_reason = "length" if data["finish_reason"] == "length" else "stop"
        self._said = data["content"] or self._said
        if data["message_id"] in self._open:
            self._open[data["message_id"]].is_complete = True
        return list(self._flush())

    def _think(self, message_id: str, text: str) -> list[Item]:
        is_other = self._thinking not in ("", message_id)
        self._thinking = message_id
        return [self._chunk({"reasoning_content": BREAK * is_other + text})]

    def _start(self, data: dict[str, Any]) -> list[Item]:
        name, arguments = data["tool_name"], msgspec.json.encode(data["arguments"]).decode()
        self._calls[data["call_id"]] = {
            "id": f"{self.run_id}:{data['call_id']}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        if name in self.client_tools or not self.shows_tools:
            return []
        line = "\n" * bool(self._thinking) + f"[{name} {arguments}]\n"
        self._thinking = ""
        return [self._chunk({"reasoning_content": line})]

    # Beginning and end

    def _begin(self, id: str) -> list[Item]:
        self._id = id
        return [self._chunk({"role": "assistant", "content": ""})]

    def _end(self, data: dict[str, Any]) -> list[Item]:
        if self.ending.failure is not None:
            return [self.ending.failure.body]
        answer = answer_of(data["result"], self._said)
        said = [] if answer is None else [{"content": BREAK * self._has_text + answer}]
        return [*map(self._chunk, said), *self._finish(self._finish_reason)]

    def _finish(self, reason: str) -> list[Item]:
        last = [self._chunk({}, reason)]
        if self.shows_usage:
            last.append({**self._chunk({}), "choices": [], "usage": self._spent.of_chat()})
        return [*last, OVER]

    def _chunk(self, delta: Item, finish_reason: str | None = None) -> Item:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self.model,
            "choices": [choice],
            **({"usage": None} if self.shows_usage else {}),
        }


def answer_of(result: Any, said: str | None) -> str | None:
    """What an agent returned, as far as its answer is not told by what it said.

    As the conversation has it: a text unless it is the last message's; any other value, as JSON,
    where nothing was said.
    """
    if isinstance(result, str):
        return result if result.strip() and result != said else None
    if result is None or said is not None:
        return None
    return msgspec.json.encode(result).decode()


def refused_in(part: dict[str, Any]) -> str:
    """What a part of a message says as a refusal; nothing where it is none."""
    text = part.get("text")
    return text if part.get("type") == "refusal" and isinstance(text, str) else ""


def annotation_of(part: dict[str, Any]) -> dict[str, Any] | None:
    """A part of a message as a citation of an address; None where it is none."""
    url = part.get("url")
    if part.get("type") != "citation" or not isinstance(url, str):
        return None
    places = {key: part.get(key) for key in ("start_index", "end_index")}
    return {
        "type": "url_citation",
        "url": url,
        "title": str(part.get("title") or ""),
        **{key: place if isinstance(place, int) else 0 for key, place in places.items()},
    }


def fold(items: Sequence[Item]) -> Item:
    """All items of an answer without a failure as one chat completion."""
    chunks = [item for item in items if item is not OVER]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    refusal = _joined(deltas, "refusal") or None
    calls = _unnumbered(deltas, "tool_calls")
    message: Item = {
        "role": "assistant",
        "content": _joined(deltas, "content") or (None if refusal or calls else ""),
        "refusal": refusal,
        "annotations": _unnumbered(deltas, "annotations"),
    }
    if reasoning := _joined(deltas, "reasoning_content"):
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    first = chunks[0]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reasons[-1]}
    return {
        **{key: first[key] for key in ("id", "created", "model")},
        "object": "chat.completion",
        "choices": [choice],
        "usage": chunks[-1]["usage"],
    }


def _unnumbered(deltas: Iterable[Item], key: str) -> list[Item]:
    """The entries of all lists, without their places: those are for who puts pieces together."""
    entries = [entry for delta in deltas for entry in delta.get(key, ())]
    return [{k: v for k, v in entry.items() if k != "index"} for entry in entries]


def _joined(deltas: Iterable[Item], key: str) -> str:
    return "".join(delta.get(key, "") for delta in deltas)
