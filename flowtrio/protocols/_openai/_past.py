"""What a run's log tells of its responses: where each ended, and what each was given.

Nothing else is kept of a response. So what its client sent is told by what became of it: what the
user said, results of calls, decisions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs
import msgspec

from flowtrio._agents._client_tool import asks_for_result
from flowtrio._core._events import AgentEvent, EventType
from flowtrio.serving.http._segments import MOMENT, Standing

from ._parts import unfit

_MOST: Final = 100
"""Items of a page at most."""

InputItem: TypeAlias = dict[str, Any]


@attrs.define(eq=False)
class Past(Standing):
    """What a log tells of the responses of its run, up to one place."""

    client_tools: set[str] = attrs.field(factory=set, init=False)
    ends: list[int] = attrs.field(factory=list, init=False)
    """The last event before each decision that a response ended for. One ends no sooner than a
    moment after all waits; what is decided within it came of the same request as what was decided
    just before, or by other ways."""
    given: list[tuple[int, InputItem]] = attrs.field(factory=list, init=False)
    """What clients sent, each with the event that tells of it."""
    _names: dict[str, str] = attrs.field(factory=dict, init=False)
    _waits_since: float = attrs.field(default=math.inf, init=False)
    """When all began to wait for what is asked now."""

    def feed(self, batch: Sequence[AgentEvent]) -> bytes:
        """See `Answer`."""
        for event in batch:
            asked = self._asked()
            if event.seq <= self.last:
                self.given += [(event.seq, item) for item in self._items(event)]
            super().feed([event])
            is_decided = not asked <= self._asked()
            if is_decided and event.timestamp >= self._waits_since + MOMENT:
                self.ends.append(event.seq - 1)
            if not self.waits.for_people:
                self._waits_since = math.inf
            elif is_decided or self._waits_since == math.inf:
                self._waits_since = event.timestamp
            if event.type is EventType.TOOL_CALL_START:
                self._names[event.data["call_id"]] = event.data["tool_name"]
            elif event.type is EventType.INPUT_REQUIRED and asks_for_result(event.data):
                self.client_tools.add(self._names[event.data["call_id"]])
        return b""

    def _asked(self) -> set[str]:
        return {*self.waits.approvals, *self.waits.questions}

    def end_behind(self, after: int) -> int | None:
        """Where the response ended that begins behind an event; None where it has not."""
        return next((end for end in self.ends if end > after), None)

    def given_behind(self, after: int) -> list[InputItem]:
        """What that response was given, in the order in which it came."""
        end = self.end_behind(after)
        return [item for seq, item in self.given if seq > after and (end is None or seq <= end)]

    def _items(self, event: AgentEvent) -> Iterator[InputItem]:
        """What a client has sent that *event* is the first to tell."""
        data, id = event.data, f"in_{event.run_id}:{event.seq}"
        match event.type:
            case EventType.RUN_START | EventType.USER_MESSAGE:
                content = [
                    {"type": "input_text", "text": data["message"]},
                    *map(_part, data["parts"]),
                ]
                said = {"type": "message", "role": "user", "content": content}
                yield {"id": id, **said, "status": "completed"}
            case EventType.INPUT_RESOLVED if data["outcome"] == "answered":
                asked = self.waits.questions.get(data["request_id"])
                if asked is not None and asked.data["call_id"] is not None:
                    call_id = f"{event.run_id}:{asked.data['call_id']}"
                    result = {"type": "function_call_output", "call_id": call_id}
                    yield {"id": id, **result, "output": _sent(data["text"]), "status": "completed"}
            case EventType.TOOL_CALL_START | EventType.TOOL_CALL_END:
                is_decided = data["call_id"] in self.waits.approvals
                is_approved = event.type is EventType.TOOL_CALL_START
                if is_decided and (is_approved or data["outcome"] == "denied"):
                    asked_by = f"mcpr_{event.run_id}:{data['call_id']}"
                    decision = {"type": "mcp_approval_response", "approve": is_approved}
                    yield {"id": id, **decision, "approval_request_id": asked_by}
            case _:
                pass


def _sent(answer: str) -> str:
    """The result of a call as its client sent it: kept as JSON, also where it was none."""
    try:
        value = msgspec.json.decode(answer)
    except msgspec.DecodeError:
        return answer
    return value if isinstance(value, str) else answer


def _part(part: dict[str, Any]) -> dict[str, Any]:
    """What else was sent than a text: a log has not what is in it."""
    if part["kind"] == "image":
        return {"type": "input_image", "detail": "auto"}
    return {"type": "input_file", "filename": part["name"] or "file"}


def page_of(items: Sequence[InputItem], query: Mapping[str, str]) -> dict[str, Any]:
    """The items that a request asks for, as a page; `Refused` if it cannot be one."""
    order, limit, after = query.get("order", "desc"), query.get("limit", "20"), query.get("after")
    if order not in ("asc", "desc"):
        raise unfit("order", "expected asc or desc")
    if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit[:4]) <= _MOST):
        raise unfit("limit", f"expected a number from 1 to {_MOST}")
    ordered = [*items] if order == "asc" else [*reversed(items)]
    ids = [item["id"] for item in ordered]
    if after is not None:
        if after not in ids:
            raise unfit("after", "expected the id of an item")
        ordered = ordered[ids.index(after) + 1 :]
    shown = ordered[: int(limit)]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(shown) < len(ordered),
    }
