"""AG-UI's events, as tests read and judge them.

`told_by` tells a log, `segments_of` tells it as often as it waits for people, each time to a client
that holds what it was told before. `flaws_in` judges the order of events as the protocol's own
verifier does, and their shapes by the protocol's own models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import pydantic
from ag_ui.core import Event

from flowtrio import AgentEvent, EventType
from flowtrio.protocols._agui._mapper import AGUIMapper, Recipient
from flowtrio.serving.http._segments import Segment
from flowtrio.wire._sse import SSEDecoder
from flowtrio.wire._sse import encode_json_event as encode

from .logs import waits_of

T = EventType
Told = dict[str, Any]
_EVENT: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(Event)
_OPENS = {
    "TEXT_MESSAGE_START": "messageId",
    "TOOL_CALL_START": "toolCallId",
    "REASONING_START": "messageId",
    "REASONING_MESSAGE_START": "messageId",
    "SUBAGENT_STARTED": "subagentRunId",
    "STEP_STARTED": "stepName",
}
_GOES_ON = {
    "TEXT_MESSAGE_CONTENT": "TEXT_MESSAGE_START",
    "TOOL_CALL_ARGS": "TOOL_CALL_START",
    "REASONING_MESSAGE_CONTENT": "REASONING_MESSAGE_START",
}
_CLOSES = {
    "TEXT_MESSAGE_END": "TEXT_MESSAGE_START",
    "TOOL_CALL_END": "TOOL_CALL_START",
    "REASONING_MESSAGE_END": "REASONING_MESSAGE_START",
    "REASONING_END": "REASONING_START",
    "SUBAGENT_FINISHED": "SUBAGENT_STARTED",
    "SUBAGENT_ERROR": "SUBAGENT_STARTED",
    "STEP_FINISHED": "STEP_STARTED",
}


def reader(run_id: str = "theirs", messages: Sequence[Told] = (), **options: Any) -> Recipient:
    return Recipient(thread_id="thread", run_id=run_id, messages=list(messages), **options)


def mapper_of(
    log: Sequence[AgentEvent], to: Recipient | None = None, raw: bool = False
) -> AGUIMapper:
    return AGUIMapper(log[0].run_id, reader() if to is None else to, raw)


def told_by(
    log: Sequence[AgentEvent], to: Recipient | None = None, raw: bool = False
) -> list[Told]:
    """All that is told of a log, without a pause."""
    mapper = mapper_of(log, to, raw)
    return [told for event in log for told in mapper.feed(event)]


def read_body(body: bytes) -> list[Told]:
    """The events of an answer."""
    decoder = SSEDecoder()
    return [json.loads(event.data) for event in decoder.receive_data(body) if event.data]


def segment(log: Sequence[AgentEvent], to: Recipient, after: int = -1) -> Segment[Told]:
    mapper = mapper_of(log, to)
    return Segment(mapper=mapper, encode=encode, after=after, shows_errors=True)


class Client:
    """Holds messages as the protocol's own client does."""

    def __init__(self) -> None:
        self.messages: list[Told] = []

    def take(self, told: Iterable[Told]) -> None:
        for event in told:
            self._apply(event)

    def _apply(self, event: Told) -> None:
        match event["type"]:
            case "TEXT_MESSAGE_START" | "REASONING_MESSAGE_START":
                self._message(event["messageId"], event["role"]).setdefault("content", "")
            case "TEXT_MESSAGE_CONTENT" | "REASONING_MESSAGE_CONTENT":
                self._message(event["messageId"])["content"] += event["delta"]
            case "TOOL_CALL_START":
                self._call(event)
            case "TOOL_CALL_ARGS":
                self._call(event)["function"]["arguments"] += event["delta"]
            case "TOOL_CALL_RESULT":
                self._result(event)
            case "MESSAGES_SNAPSHOT":
                self._replace(event["messages"])

    def _message(self, message_id: str, role: str = "") -> Told:
        found = [m for m in self.messages if m["id"] == message_id]
        if not found:
            found = [{"id": message_id, "role": role}]
            self.messages += found
        return found[0]

    def _call(self, event: Told) -> Told:
        calls = [call for m in self.messages for call in m.get("toolCalls", ())]
        found = [call for call in calls if call["id"] == event["toolCallId"]]
        if not found:
            function = {"name": event["toolCallName"], "arguments": ""}
            found = [{"id": event["toolCallId"], "type": "function", "function": function}]
            owner = self._message(event.get("parentMessageId", event["toolCallId"]), "assistant")
            owner.setdefault("toolCalls", []).extend(found)
        return found[0]

    def _result(self, event: Told) -> None:
        of = {"toolCallId": event["toolCallId"], "content": event["content"]}
        place = len(self.messages)
        for number, message in enumerate(self.messages):
            if any(call["id"] == event["toolCallId"] for call in message.get("toolCalls", ())):
                place = number + 1
                while place < len(self.messages) and self.messages[place]["role"] == "tool":
                    place += 1
        self.messages.insert(place, {"id": event["messageId"], "role": "tool", **of})

    def _replace(self, messages: list[Told]) -> None:
        given = {m["id"]: m for m in messages}
        keeps = () if any(m["role"] == "reasoning" for m in messages) else ("reasoning",)
        kept = [m for m in self.messages if m["id"] in given or m["role"] in keeps]
        self.messages = [dict(given.get(m["id"], m)) for m in kept]
        known = {m["id"] for m in self.messages}
        self.messages += [dict(m) for m in messages if m["id"] not in known]


def bare(messages: Iterable[Told]) -> list[Told]:
    """Messages without what only some clients remember."""
    more = ("metadata", "subagentRunId")
    return [{k: v for k, v in m.items() if k not in more} for m in messages]


def segments_of(log: Sequence[AgentEvent], client: Client) -> Iterator[list[Told]]:
    """What is told from each wait for people to the next, to a client that forgets nothing."""
    after = -1
    for place in [*waits_of(log), log[-1].seq]:
        one = segment(log, reader(f"run{after}", client.messages), after)
        told = read_body(one.feed(log[: after + 1]) + one.feed(log[after + 1 : place + 1]))
        client.take(told)
        yield told
        after = place


def texts_in(log: Sequence[AgentEvent]) -> dict[str, str]:
    """What each message of a log says, and each reasoning; refusals are texts."""
    texts: dict[str, str] = {}
    for event in log:
        data, run = event.data, event.run_id
        match event.type:
            case T.MESSAGE_COMPLETE if data["content"]:
                key = f"{run}:{data['message_id']}"
                texts[key] = data["content"]
            case T.MESSAGE_PART if data["part"].get("type") == "refusal":
                key = f"{run}:{data['message_id']}"
                texts[key] = texts.get(key, "") + data["part"]["text"]
            case T.USER_MESSAGE:
                texts[f"{run}:u{event.seq}"] = data["message"]
    return texts


def arguments_in(log: Sequence[AgentEvent]) -> dict[str, str]:
    """What the model wrote of each call, or what it was made with."""
    written: dict[str, str] = {}
    made: dict[str, str] = {}
    for event in log:
        data = event.data
        if event.type is T.TOOL_CALL_ARGS:
            written[data["call_id"]] = written.get(data["call_id"], "") + data["delta"]
        elif event.type in (T.TOOL_CALL_START, T.APPROVAL_REQUIRED):
            made.setdefault(data["call_id"], msgspec.json.encode(data["arguments"]).decode())
    return {f"{log[0].run_id}:{key}": text for key, text in {**made, **written}.items()}


def flaws_in(told: Sequence[Told], is_whole: bool = True) -> list[str]:
    """What the protocol forbids in what is told of one run; without its end, if it is not whole."""
    flaws = [flaw for event in told if (flaw := _misshapen(event))]
    opened: set[tuple[str, ...]] = set()
    ends = [place for place, event in enumerate(told) if event["type"] in _ENDS]
    if told and told[0]["type"] not in ("RUN_STARTED", "RUN_ERROR"):
        flaws.append("it does not begin")
    if ends != ([len(told) - 1] if is_whole else []):
        flaws.append(f"it ends at {ends} of {len(told)}")
    for event in told:
        flaws += _out_of_order(event, opened)
    return flaws


_ENDS = ("RUN_FINISHED", "RUN_ERROR")


def _misshapen(event: Told) -> str | None:
    try:
        read = _EVENT.validate_python(event)
    except pydantic.ValidationError as exc:
        return f"{event['type']}: {exc}"
    if read.model_extra:
        return f"{event['type']}: unknown {sorted(read.model_extra)}"
    nulls = [key for key, value in event.items() if value is None and key not in _ANY]
    return f"{event['type']}: null {nulls}" if nulls else None


_ANY = ("value", "snapshot", "event")
"""What may be null."""


def _out_of_order(event: Told, opened: set[tuple[str, ...]]) -> Iterator[str]:
    kind = event["type"]
    opener = kind if kind in _OPENS else _GOES_ON.get(kind) or _CLOSES.get(kind)
    if opener is not None:
        name = event[_OPENS[opener]]
        owner = event.get("subagentRunId", "") if opener == "STEP_STARTED" else ""
        key = (opener, owner, name)
        if (key in opened) == (kind in _OPENS):
            yield f"{kind} {name}: is {'' if key in opened else 'not '}open"
        if kind in _CLOSES:
            opened.discard(key)
        else:
            opened.add(key)
    if kind == "RUN_FINISHED" and opened:
        yield f"still open: {sorted(opened)}"
