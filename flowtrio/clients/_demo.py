"""`DemoClient`: a model for trying things out, with no key and no network."""

from __future__ import annotations

import json
import random
import re
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import trio

from flowtrio._core._chunks import Chunk, ToolArgs, ToolCall, Usage
from flowtrio.abc import Message, ToolSpec

from ._here import check_trio
from ._whole import Streaming

_RESULT_LENGTH = 160
"""Characters of a tool's result that the answer quotes."""


class DemoClient(Streaming):
    """A demonstration: it understands nothing, but streams, reasons about tools and calls them.

    It calls the first two tools it is offered, in parallel, with arguments made up from their
    schema and the message, then the last of three or more where the message contains "approve",
    and then answers with what they gave. The same seed gives the same replies.

    Args:
      seed: Of everything it makes up.
      delay: Seconds before each chunk.
      model: The name it answers under.

    """

    provider: str = "demo"
    """Who answers, as MESSAGE_COMPLETE tells it."""

    def __init__(self, *, seed: int = 0, delay: float = 0.03, model: str = "demo") -> None:
        self.seed = seed
        self.delay = delay
        self.model = model

    def __repr__(self) -> str:
        return f"<DemoClient seed={self.seed} delay={self.delay}>"

    def stream_completion(
        self,
        messages: Sequence[Mapping[str, Any] | Message],
        tools: Sequence[ToolSpec] | None = None,
        **options: Any,
    ) -> DemoReply:
        """Make up one reply; see `flowtrio.abc.LLMClient`."""
        author = _Author(self, list(messages), list(tools or ()), options)
        return DemoReply(author.chunks(), self.delay)


class DemoReply(AsyncIterator[Chunk], trio.abc.AsyncResource):
    """One reply on its way; nothing has to be closed, but it can be."""

    def __init__(self, chunks: list[Chunk], delay: float) -> None:
        self._chunks = deque(chunks)
        self._delay = delay

    async def __anext__(self) -> Chunk:
        """Give the next chunk, after the delay."""
        if not self._chunks:
            raise StopAsyncIteration
        check_trio()
        await trio.sleep(self._delay)
        return self._chunks.popleft()

    async def aclose(self) -> None:
        """Forget the rest."""
        self._chunks.clear()
        check_trio()
        await trio.lowlevel.checkpoint()


class _Author:
    """Makes one reply up."""

    def __init__(
        self,
        client: DemoClient,
        messages: list[Mapping[str, Any]],
        tools: list[ToolSpec],
        options: dict[str, Any],
    ) -> None:
        self.client = client
        self.tools = [tool["function"] for tool in tools]
        self.options = options
        asked = [i for i, message in enumerate(messages) if message.get("role") == "user"]
        since = messages[asked[-1] :] if asked else messages
        self.message = _text_of(since[0].get("content")) if since else ""
        self.results = [m for m in since if m.get("role") == "tool"]
        self.called = [
            call["function"]["name"] for m in since for call in m.get("tool_calls") or ()
        ]
        self.prompt = sum(len(_text_of(m.get("content")).split()) for m in messages)
        self.random = random.Random(f"{client.seed}/{self.message}/{len(self.results)}")

    def chunks(self) -> list[Chunk]:
        wanted = self._wanted()
        text = self._opening(wanted) if wanted else self._answer()
        chunks = [Chunk(content=piece) for piece in _pieces(text)]
        calls = []
        for index, tool in enumerate(wanted):
            raw = json.dumps(self._arguments(tool), ensure_ascii=False)
            call_id = f"demo_{self.random.randrange(16**8):08x}"
            half = len(raw) // 2
            for text in (raw[:half], raw[half:]):
                args = ToolArgs(index, call_id, tool["name"], text)
                chunks.append(Chunk(tool_args=[args]))
            calls.append(ToolCall(call_id, tool["name"], json.loads(raw), raw))
        usage = Usage(prompt_tokens=self.prompt, completion_tokens=len(chunks))
        reason = "tool_calls" if calls else "stop"
        return [
            *chunks,
            Chunk(
                is_final=True,
                tool_calls=calls,
                finish_reason="tool_calls" if calls else "stop",
                raw_finish_reason=reason,
                usage=usage,
                model=self.client.model,
            ),
        ]

    def _wanted(self) -> list[dict[str, Any]]:
        """The tools to call in this reply."""
        if not self.called:
            return self.tools[:2]
        last = self.tools[-1] if len(self.tools) > 2 else None
        if last is not None and "approve" in self.message.lower():
            return [] if last["name"] in self.called else [last]
        return []

    def _opening(self, wanted: list[dict[str, Any]]) -> str:
        names = " and ".join(tool["name"] for tool in wanted)
        if self.called:
            return f"That looks good. You said I may go on, so I ask for your approval of {names}. "
        return (
            f"You asked: {_quote(self.message)}. I am a demonstration and understand nothing, but "
            f"I can call {names} at the same time and tell you what they say. "
        )

    def _answer(self) -> str:
        schema = self.options.get("output_schema")
        if schema is not None:
            return json.dumps(self._sample("answer", schema[1], schema[1]), ensure_ascii=False)
        if not self.results:
            return (
                f"You said: {_quote(self.message)}. This is flowtrio's demonstration model: it has "
                "no network and no key, it streams these words one after another, and it calls "
                "tools when it is given some. Choose a real model to get a real answer."
            )
        found = "; ".join(
            f"{name} says {_quote(_text_of(result.get('content')), _RESULT_LENGTH)}"
            for name, result in zip(self.called, self.results, strict=False)
        )
        return (
            f"Here is what I found for you. {found}. That is all: everything above came from the "
            "tools, streamed in one order while they ran side by side, and I only wrote it down."
        )

    # Arguments

    def _arguments(self, tool: dict[str, Any]) -> Any:
        schema = tool.get("parameters") or {}
        return self._sample("", {**schema, "type": "object"}, schema)

    def _sample(self, name: str, schema: dict[str, Any], root: dict[str, Any]) -> Any:
        """A value that fits *schema*, as far as a demonstration goes."""
        if "$ref" in schema:
            target = root.get("$defs", {}).get(schema["$ref"].rpartition("/")[2], {})
            return self._sample(name, target, root)
        for choices in (schema.get("anyOf"), schema.get("oneOf")):
            if choices:
                return self._sample(name, choices[0], root)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._choose(schema["enum"])
        match schema.get("type"):
            case "object":
                required = schema.get("required", ())
                properties = schema.get("properties", {})
                return {key: self._sample(key, properties[key], root) for key in required}
            case "array":
                count = max(1, schema.get("minItems", 1))
                return [self._sample(name, schema.get("items", {}), root) for _ in range(count)]
            case "integer" | "number":
                low = schema.get("minimum", 1)
                return self.random.randint(low, max(low, schema.get("maximum", low + 4)))
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return self._place()

    def _choose(self, values: Sequence[Any]) -> Any:
        """One of *values*: the one that the message names, if it names one."""
        message = self.message.casefold()
        named = [v for v in values if isinstance(v, str) and v.casefold() in message]
        return named[0] if named else self.random.choice(values)

    def _place(self) -> str:
        """What the message is about: a place that it names, else its last word."""
        named = re.search(r"(?i)\b(?:to|in|at|for|from)\s+([^\W\d_][\w-]*)", self.message)
        words = re.findall(r"[\w-]+", self.message)
        return named[1] if named else words[-1] if words else "Paris"


def _pieces(text: str) -> Iterator[str]:
    """Cut text the way tokens come: word by word, the space before the word."""
    return iter(re.findall(r"\s*\S+|\s+$", text))


def _quote(text: str, length: int = 80) -> str:
    text = " ".join(text.split())
    return f'"{text}"' if len(text) <= length else f'"{text[: length - 1]}…"'


def _text_of(content: Any) -> str:
    """The text of a message's content, which may be a list of parts."""
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
