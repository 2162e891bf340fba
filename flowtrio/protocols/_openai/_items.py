"""The items of one of OpenAI's responses: as they stand, and the events that tell of them.

`Outputs` are all of them; `Speech` makes those of texts, refusals and reasoning.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, TypeAlias

import attrs

from flowtrio._core._events import EventType

from ._chat import Item, annotation_of, refused_in


@attrs.define(eq=False)
class Output:
    """An item of the response."""

    index: int
    value: Item
    """As it stands."""
    is_discarded: bool = False


Opening: TypeAlias = Generator[Item, None, Output]
"""Events, and at last the item that they are about."""


@attrs.define(eq=False)
class Outputs:
    """All of one response."""

    items: list[Output] = attrs.field(factory=list, init=False)

    def open(self, id: str, value: Item, status: str | None = "in_progress") -> Opening:
        """Begin an item, told with the status."""
        output = Output(len(self.items), {"id": id, **value})
        if status is not None:
            output.value["status"] = status
        self.items.append(output)
        item = {**output.value, **({"content": []} if "content" in value else {})}
        item = {**item, **({"summary": []} if "summary" in value else {})}
        yield {"type": "response.output_item.added", "output_index": output.index, "item": item}
        return output

    def done(self, output: Output, status: str | None) -> Item:
        """End an item, with its status where it has one."""
        if status is not None:
            output.value["status"] = status
        item = dict(output.value)
        return {"type": "response.output_item.done", "output_index": output.index, "item": item}

    def in_item(self, kind: str, output: Output, **more: Any) -> Item:
        """Tell something of an item."""
        place = {"item_id": output.value["id"], "output_index": output.index}
        return {"type": f"response.{kind}", **place, **more}

    def in_part(self, kind: str, said: Output, **more: Any) -> Item:
        """Tell something of the part that a text's item ends with."""
        return self.in_item(kind, said, content_index=len(said.value["content"]) - 1, **more)

    def in_summary(self, kind: str, output: Output, **more: Any) -> Item:
        """Tell something of the one summary of reasoning."""
        return self.in_item(f"reasoning_summary_{kind}", output, summary_index=0, **more)


@attrs.define(eq=False)
class Message:
    """A message that is being said, as the items that are open for it."""

    reasoning: Output | None = None
    said: Output | None = None
    count: int = 0
    """Items that it had."""


@attrs.define(eq=False)
class Speech:
    """What is said in one response: messages with their texts, refusals and reasoning."""

    outputs: Outputs
    _run_id: str
    _messages: dict[str, Message] = attrs.field(factory=dict, init=False)

    def tell(self, type: EventType, data: Item) -> Iterator[Item]:
        """Tell an event of a message."""
        message = self._messages.setdefault(data["message_id"], Message())
        match type:
            case EventType.MESSAGE_CHUNK if data["chunk"]:
                yield from self.say(data["message_id"], message, "output_text", data["chunk"])
            case EventType.REASONING_CHUNK if data["chunk"]:
                yield from self._think(data["message_id"], message, data["chunk"])
            case EventType.MESSAGE_PART:
                yield from self._tell_part(data["message_id"], message, data["part"])
            case EventType.MESSAGE_RESET:
                yield from self.close(message, "incomplete")
            case EventType.MESSAGE_COMPLETE:
                del self._messages[data["message_id"]]
                is_whole = data["finish_reason"] not in ("cancelled", "error", "length")
                yield from self.close(message, "completed" if is_whole else "cut")
            case _:
                pass

    def _tell_part(self, message_id: str, message: Message, part: Item) -> Iterator[Item]:
        if refused := refused_in(part):
            yield from self.say(message_id, message, "refusal", refused)
        elif (annotation := annotation_of(part)) is not None:
            yield from self.say(message_id, message, "output_text", "")
            assert message.said is not None
            cited = message.said.value["content"][-1]["annotations"]
            cited.append(annotation)
            place = {"annotation": annotation, "annotation_index": len(cited) - 1}
            yield self.outputs.in_part("output_text.annotation.added", message.said, **place)

    def say(self, message_id: str, message: Message, kind: str, text: str) -> Iterator[Item]:
        """Say more of a message, in a part of this kind."""
        if message.reasoning is not None:
            yield from self._close_reasoning(message.reasoning, "completed")
            message.reasoning = None
        if message.said is None:
            value = {"type": "message", "role": "assistant", "content": []}
            message.said = yield from self.outputs.open(
                self._id_of("msg", message_id, message), value
            )
        said = message.said
        parts = said.value["content"]
        if not parts or parts[-1]["type"] != kind:
            yield from self._close_part(said)
            parts.append(_part(kind))
            yield self.outputs.in_part("content_part.added", said, part=_part(kind))
        if text:
            key = "refusal" if kind == "refusal" else "text"
            parts[-1][key] += text
            yield self.outputs.in_part(f"{kind}.delta", said, delta=text, **_logprobs(kind))

    def _think(self, message_id: str, message: Message, text: str) -> Iterator[Item]:
        if message.reasoning is None:
            value = {"type": "reasoning", "summary": []}
            id = self._id_of("rs", message_id, message)
            message.reasoning = yield from self.outputs.open(id, value)
            message.reasoning.value["summary"].append({"type": "summary_text", "text": ""})
            part = {"type": "summary_text", "text": ""}
            yield self.outputs.in_summary("part.added", message.reasoning, part=part)
        message.reasoning.value["summary"][0]["text"] += text
        yield self.outputs.in_summary("text.delta", message.reasoning, delta=text)

    def _id_of(self, kind: str, message_id: str, message: Message) -> str:
        message.count += 1
        more = f":{message.count}" if message.count > 1 else ""
        return f"{kind}_{self._run_id}:{message_id}{more}"

    def close(self, message: Message, status: str) -> Iterator[Item]:
        """End what is open of a message; what is discarded is ``incomplete``."""
        is_discarded = status == "incomplete"
        told = "incomplete" if status == "cut" else status
        if message.reasoning is not None:
            message.reasoning.is_discarded = is_discarded
            yield from self._close_reasoning(message.reasoning, told)
        if message.said is not None:
            message.said.is_discarded = is_discarded
            yield from self._close_part(message.said)
            yield self.outputs.done(message.said, told)
        message.reasoning = message.said = None

    def _close_reasoning(self, reasoning: Output, status: str) -> Iterator[Item]:
        [part] = reasoning.value["summary"]
        yield self.outputs.in_summary("text.done", reasoning, text=part["text"])
        yield self.outputs.in_summary("part.done", reasoning, part=dict(part))
        yield self.outputs.done(reasoning, status)

    def _close_part(self, said: Output) -> Iterator[Item]:
        parts = said.value["content"]
        if parts:
            part = parts[-1]
            kind = part["type"]
            key = "refusal" if kind == "refusal" else "text"
            yield self.outputs.in_part(f"{kind}.done", said, **{key: part[key]}, **_logprobs(kind))
            yield self.outputs.in_part("content_part.done", said, part=dict(part))


def _part(kind: str) -> Item:
    if kind == "refusal":
        return {"type": kind, "refusal": ""}
    return {"type": kind, "text": "", "annotations": [], "logprobs": []}


def _logprobs(kind: str) -> Item:
    return {"logprobs": []} if kind == "output_text" else {}
