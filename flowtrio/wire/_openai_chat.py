"""OpenAI's chat completions, and what compatible servers make of them.

A reply is finished when its choice has a ``finish_reason``, and ends with ``[DONE]`` or with the
body. Usage is told between the two, in a chunk without choices; and some servers tell the reason
with the first chunk already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from flowtrio._core._chunks import Chunk, ToolArgs, Usage

from ._calls import CallWriter
from ._errors import is_said, stream_error
from ._finish import FinishMark
from ._payloads import EventReply, Payloads
from ._reasoning_details import ReasoningDetails
from ._reply import ReplyDecoder, whole_of
from ._sse import MAX_EVENT_BYTES, ServerSentEvent, SSEDecoder
from ._usage import read_usage


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _ToolCall(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: Any = None
    refusal: str | None = None
    reasoning: Any = None
    reasoning_content: Any = None
    reasoning_details: Any = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None
    annotations: Any = None


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None
    error: Any = None


class _Payload(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    model: str | None = None
    error: Any = None
    x_groq: Any = None
    citations: Any = None


_decoder = msgspec.json.Decoder(_Payload)


class ChatDecoder(ReplyDecoder[ServerSentEvent]):
    """Decodes one streamed reply."""

    __slots__ = ()

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        super().__init__(SSEDecoder(max_event_bytes), ChatReply(), "a finish_reason or [DONE]")


class ChatReply(EventReply):
    """Reads the events of one reply; see `flowtrio.wire._reply.Reply`."""

    needs_mark = False

    def __init__(self) -> None:
        self.payloads = Payloads(_decoder)
        self._calls = CallWriter()
        self._choice: int | None = None
        self._mark = FinishMark()
        self._usage: Usage | None = None
        self._model: str | None = None
        self._details = ReasoningDetails()
        self._thoughts: list[str] = []
        self._thoughts_key = "reasoning_content"
        self._cited: set[str] = set()
        self._has_said = False

    def read_payload(self, data: bytes, event: str = "") -> list[Chunk]:
        """Give what one object says; see `EventReply.read`."""
        payload = self.payloads.read(data)
        if payload.error is not None and is_said(payload.error):
            raise stream_error(payload.error)
        for choice in payload.choices or ():
            if choice.error is not None and is_said(choice.error):
                raise stream_error(choice.error)
        chunk = self._payload(payload)
        chunks = [] if chunk is None else [chunk]
        if payload.citations is not None:
            chunks += self._citations(payload.citations)
        return chunks

    def _payload(self, payload: _Payload) -> Chunk | None:
        self._model = self._model or payload.model
        usage = payload.usage
        if usage is None and isinstance(payload.x_groq, dict):
            usage = payload.x_groq.get("usage")
        told = None if usage is None else read_usage(usage)
        if told is not None and (self._usage is None or told.prompt_tokens):
            # Some tell nothing but zeros with each token, and some behind the true counts.
            self._usage = told
        for choice in payload.choices or ():
            index = choice.index or 0
            if self._choice is None:
                self._choice = index
            if index != self._choice:
                continue
            if choice.finish_reason:
                self._mark.tell(choice.finish_reason)
            said = None if choice.delta is None else self._delta(choice.delta)
            if said is None and choice.message is not None and not self._has_said:
                # Not where a host tells all again that it has told in pieces.
                said = self._delta(choice.message)
            if said is not None:
                self._has_said = True
            return said
        return None

    def _delta(self, delta: _Delta) -> Chunk | None:
        content = delta.content
        if type(content) is str and content and _is_bare(delta):
            # A token is nearly always just that: no further look at it.
            return Chunk(content=content)
        if type(content) is not str or delta.tool_calls or delta.refusal:
            content, reasoning, parts = _read_content(content)
        else:
            reasoning, parts = "", []
        reasoning += self._reasoning(delta)
        if delta.refusal:
            parts.append({"type": "refusal", "text": delta.refusal})
        if isinstance(delta.annotations, list):
            parts += [_annotation(item) for item in delta.annotations if isinstance(item, dict)]
        args = self._tool_args(delta)
        if not (content or reasoning or parts or args):
            return None
        return Chunk(content=content, reasoning=reasoning, tool_args=args, parts=parts)

    def _citations(self, citations: Any) -> list[Chunk]:
        """Addresses beside the choices; some servers repeat them with every token."""
        urls = citations if isinstance(citations, list) else ()
        new = [url for url in dict.fromkeys(filter(_is_text, urls)) if url not in self._cited]
        self._cited.update(new)
        return [Chunk(parts=[{"type": "citation", "url": url} for url in new])] if new else []

    def _reasoning(self, delta: _Delta) -> str:
        details = delta.reasoning_details
        if details is None and delta.reasoning is None and delta.reasoning_content is None:
            return ""
        if isinstance(details, list):
            check = [item for item in details if isinstance(item, dict)]
            self._details.add(check)
        else:
            check = []
        for key in ("reasoning_content", "reasoning"):
            given = getattr(delta, key)
            if isinstance(given, str) and given:
                if not self._thoughts:
                    self._thoughts_key = key
                self._thoughts.append(given)
                return given
        texts = [item.get("text") or item.get("summary") for item in check]
        return "".join(text for text in texts if isinstance(text, str))

    def _tool_args(self, delta: _Delta) -> Sequence[ToolArgs]:
        args = []
        for call in delta.tool_calls or ():
            function = call.function or _Function()
            id, name = call.id or "", function.name or ""
            args.append(self._calls.add(call.index, id, name, function.arguments))
        if delta.function_call is not None:
            function = delta.function_call
            args.append(self._calls.add(0, "", function.name or "", function.arguments))
        return args

    def final(self) -> Chunk:
        """The final chunk."""
        calls = self._calls.finish()
        carry: dict[str, Any] = {}
        if self._details:
            carry["reasoning_details"] = self._details.finish()
        elif self._thoughts and calls:
            # DeepSeek refuses the results of calls that come without the thoughts behind them, and
            # vLLM's models forget why they made them. Each wants them by its own word.
            carry[self._thoughts_key] = "".join(self._thoughts)
        return Chunk(
            is_final=True,
            tool_calls=calls,
            finish_reason=self._mark.finish_reason(bool(calls)),
            raw_finish_reason=self._mark.raw,
            usage=self._usage,
            model=self._model,
            carry={"openai_chat": carry} if carry else None,
        )


def decode_completion(body: bytes) -> list[Chunk]:
    """Decode an answer that was not streamed; see `whole_of`."""
    reply = ChatReply()
    return whole_of(reply, reply.read_payload(body), body, "has no finish_reason")


def _read_content(content: Any) -> tuple[str, str, list[dict[str, Any]]]:
    """Text, reasoning and other parts of a content that may be a list of parts."""
    if isinstance(content, str):
        return content, "", []
    text, reasoning, parts = "", "", []
    given = [content] if isinstance(content, dict) else content
    for part in given if isinstance(given, list) else ():
        if not isinstance(part, dict):
            continue
        if isinstance(part.get("text"), str):
            text += part["text"]
        elif part.get("type") == "thinking":
            thinking = part.get("thinking")
            reasoning += thinking if isinstance(thinking, str) else _read_content(thinking)[0]
        else:
            parts.append({**part, "type": str(part.get("type") or "part")})
    return text, reasoning, parts


def _is_bare(delta: _Delta) -> bool:
    """Whether it has nothing but a content."""
    return (
        delta.tool_calls is None
        and delta.refusal is None
        and delta.reasoning is None
        and delta.reasoning_content is None
        and delta.reasoning_details is None
        and delta.function_call is None
        and delta.annotations is None
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _annotation(item: dict[str, Any]) -> dict[str, Any]:
    citation = item.get("url_citation")
    if item.get("type") == "url_citation" and isinstance(citation, dict):
        return {"type": "citation", **{k: v for k, v in citation.items() if k != "type"}}
    return {**item, "type": str(item.get("type") or "annotation")}
