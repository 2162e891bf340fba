"""One run's spans: from the events that open and close something, as they are recorded.

::

    invoke_agent                  RUN_START ... DONE, and AGENT_START ... AGENT_END inside it
      chat                        a MESSAGE_COMPLETE of a model, which tells how long it took
        execute_tool              a call that the provider runs
      execute_tool                TOOL_CALL_START ... TOOL_CALL_END
        chat, execute_tool, ...   what the tool itself does

Their times are the events' own. Parents are given by hand, since what is recorded in one task may
belong to any other: a closer to a tool that was cancelled, say. Only where code of the
application's runs is a span made the current one, and in one frame taken back: in the task that
runs an agent's body or a tool.

What is heard of here has been said already, or done; so nothing is recorded of it that could be
anybody's words, unless that is asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    set_span_in_context,
)

from flowtrio._core._events import ROOT, AgentEvent, EventType

from . import _names as names
from ._logs import ids_of
from ._words import as_json, error_type, messages

if TYPE_CHECKING:
    from flowtrio._agents._context import RunContext
    from flowtrio._core._chunks import ToolCall

    from ._measures import Measures

_FAILED: Final = frozenset({"error", "timeout"})
_USAGE: Final[dict[str, tuple[str, names.Quantity]]] = {
    "prompt_tokens": (names.INPUT_TOKENS, "input tokens"),
    "completion_tokens": (names.OUTPUT_TOKENS, "output tokens"),
    "cached_tokens": (names.CACHED_TOKENS, "cached tokens"),
    "reasoning_tokens": (names.REASONING_TOKENS, "reasoning tokens"),
}
"""For each count of an event's usage, the attribute and the quantity that is measured."""


@attrs.define(eq=False)
class _Opened:
    """An agent or a call: under way, or ended and still somebody's parent."""

    agent: str
    """Whose it is; for an agent its own path."""
    span: Span
    inside: Context
    """Where what stands in it is told, made once: there may be much."""
    began: float
    measured: dict[str, Any]
    """Attributes of what is measured of it."""
    is_open: bool = True


class RunSpans:
    """The trace of one run; a `flowtrio.abc.RunTelemetry`."""

    def __init__(
        self,
        tracer: Tracer,
        measures: Measures,
        run_id: str,
        tenant_id: str,
        *,
        has_content: bool,
    ) -> None:
        self._tracer = tracer
        self._measures = measures
        self._has_content = has_content
        self._identity = {names.RUN_ID: run_id, names.TENANT_ID: tenant_id}
        self._conversation: dict[str, str] = {}
        self._outside: Context = Context()
        """Where the run was started."""
        self._agents: dict[str, _Opened] = {}
        self._calls: dict[str, _Opened] = {}
        self._provided: dict[str, list[list[AgentEvent]]] = {}
        """By message, the calls that its provider runs: START, and END once there is one."""
        self._error: dict[str, Any] = {}
        """The data of ERROR."""

    # What is heard

    def observe(self, event: AgentEvent, /) -> None:
        """See `flowtrio.abc.Telemetry`."""
        try:
            self._hear(event)
        except BaseException:
            self._end_the_rest(event)
            raise

    def _hear(self, event: AgentEvent) -> None:
        data = event.data
        match event.type:
            case EventType.RUN_START:
                self._run_started(event)
            case EventType.AGENT_START:
                parent, _, name = event.agent.rpartition("/")
                around = self._around(parent, data["call_id"])
                self._open_agent(event, name.partition("#")[0], around, {})
            case EventType.AGENT_END:
                self._end_agent(event, data["outcome"], data["error"])
            case EventType.TOOL_CALL_START if data["provider_executed"]:
                self._provided.setdefault(data["message_id"], []).append([event])
            case EventType.TOOL_CALL_START:
                around = self._around(event.agent, data["parent_call_id"])
                self._open_call(event, around, "function")
            case EventType.TOOL_CALL_END:
                self._call_ended(event)
            case EventType.MESSAGE_COMPLETE:
                self._message_complete(event)
            case EventType.ERROR:
                self._error = data
            case EventType.DONE:
                self._end_agent(event, data["status"], None)
                self._end_the_rest(event)
            case _:
                pass

    # Agents

    def _run_started(self, event: AgentEvent) -> None:
        data = event.data
        self._outside = get_current()
        if data["session_id"] is not None:
            self._conversation = {names.CONVERSATION: data["session_id"]}
        opened = self._open_agent(event, data["agent"], self._outside, self._identity)
        if self._tells_content(opened):
            opened.span.set_attribute(names.INPUT_MESSAGES, messages("user", data["message"]))

    def _open_agent(
        self, event: AgentEvent, name: str, around: Context, more: Mapping[str, Any]
    ) -> _Opened:
        measured = {names.OPERATION: names.INVOKE_AGENT, names.AGENT_NAME: name}
        opened = self._open(event, event.timestamp, around, SpanKind.INTERNAL, name, measured, more)
        self._agents[event.agent] = opened
        return opened

    def _end_agent(self, event: AgentEvent, outcome: str, error: str | None) -> None:
        opened, result = self._agents[event.agent], event.data["result"]
        opened.span.set_attribute(names.OUTCOME, outcome)
        if result is not None and self._tells_content(opened):
            text = result if isinstance(result, str) else as_json(result)
            opened.span.set_attribute(names.OUTPUT_MESSAGES, messages("assistant", text))
        is_ok = outcome in ("ok", "completed")
        code = self._error.get("code") if event.type is EventType.DONE else None
        why = None if is_ok else code or error_type(outcome, error)
        words = self._error.get("error") if event.type is EventType.DONE else error
        self._end(opened, event, outcome, why, words)
        seconds = event.timestamp - opened.began
        self._measure("agent duration", seconds, opened, why)

    # Calls

    def _open_call(self, event: AgentEvent, around: Context, kind: str) -> None:
        data = event.data
        measured = {
            names.OPERATION: names.EXECUTE_TOOL,
            names.TOOL_NAME: data["tool_name"],
            names.TOOL_TYPE: kind,
        }
        name, more = data["tool_name"], {names.TOOL_CALL_ID: data["call_id"]}
        opened = self._open(event, event.timestamp, around, SpanKind.INTERNAL, name, measured, more)
        if self._tells_content(opened):
            opened.span.set_attribute(names.TOOL_ARGUMENTS, as_json(data["arguments"]))
        self._calls[data["call_id"]] = opened

    def _call_ended(self, event: AgentEvent) -> None:
        call_id = event.data["call_id"]
        for calls in self._provided.values():
            for heard in calls:
                if heard[0].data["call_id"] == call_id:
                    heard.append(event)
                    return
        # One that never started was not executed, and its name may be anything a model said.
        if call_id in self._calls:
            self._end_call(event)

    def _end_call(self, event: AgentEvent) -> None:
        data = event.data
        opened, outcome = self._calls[data["call_id"]], data["outcome"]
        opened.span.set_attribute(names.OUTCOME, outcome)
        if data["result"] is not None and self._tells_content(opened):
            opened.span.set_attribute(names.TOOL_RESULT, as_json(data["result"]))
        why = None if outcome == "ok" else error_type(outcome, data["error"])
        self._end(opened, event, outcome, why, data["error"])
        self._measure("tool duration", event.timestamp - opened.began, opened, why)

    # Messages

    def _message_complete(self, event: AgentEvent) -> None:
        data = event.data
        around = self._around(event.agent, data["parent_call_id"])
        provided = self._provided.pop(data["message_id"], ())
        # A message of which nobody asked a model took no time of one.
        if data["duration"] is not None:
            # Its end may have waited for a slow reader, its calls cannot have begun before it.
            times = [event.timestamp - data["duration"], *(c[0].timestamp for c in provided)]
            around = self._chat(event, min(times), around)
        for start, *end in provided:
            self._open_call(start, around, "extension")
            for event in end:
                self._end_call(event)

    def _chat(self, event: AgentEvent, began: float, around: Context) -> Context:
        data, model = event.data, event.data["requested_model"]
        measured = {
            names.OPERATION: names.CHAT,
            names.PROVIDER: data["provider"],
            names.REQUEST_MODEL: model,
            names.RESPONSE_MODEL: data["model"],
        }
        measured = {name: value for name, value in measured.items() if value is not None}
        usage = data["usage"] or {}
        # What is not measured is an estimate, of which the conventions want to know nothing.
        counts = usage if usage.get("quality") == "measured" else {}
        reason = data["finish_reason"]
        more = {
            names.REQUEST_STREAM: True,
            names.FINISH_REASONS: (reason,),
            **{name: counts[key] for key, (name, _) in _USAGE.items() if key in counts},
        }
        if data["first_token"] is not None:
            more[names.FIRST_CHUNK] = data["first_token"]
        opened = self._open(event, began, around, SpanKind.CLIENT, model, measured, more)
        if self._tells_content(opened):
            said = messages("assistant", data["content"], reason)
            opened.span.set_attribute(names.OUTPUT_MESSAGES, said)
        why = {"error": names.OTHER_ERROR, "cancelled": "cancelled"}.get(reason)
        self._end(opened, event, reason, why, None)
        self._measure("chat duration", data["duration"], opened, why)
        if data["first_token"] is not None:
            self._measures.record("first chunk", data["first_token"], measured, opened.inside)
        for key, (_, quantity) in _USAGE.items():
            if key in counts:
                self._measures.record(quantity, counts[key], measured, opened.inside)
        return opened.inside

    # Spans

    def _around(self, agent: str, call_id: str | None) -> Context:
        """Inside what an agent does something, that it says was begun in a call."""
        call = None if call_id is None else self._calls.get(call_id)
        # A call of somebody further out is where the agent itself was begun.
        opened = call if call is not None and call.agent == agent else self._agents[agent]
        return opened.inside

    def _open(
        self,
        event: AgentEvent,
        began: float,
        around: Context,
        kind: SpanKind,
        name: str | None,
        measured: dict[str, Any],
        more: Mapping[str, Any],
    ) -> _Opened:
        operation = measured[names.OPERATION]
        span = self._tracer.start_span(
            operation if name is None else f"{operation} {name}",
            around,
            kind,
            {**measured, **self._conversation, **more},
            start_time=_nanoseconds(began),
        )
        inside = set_span_in_context(span, self._outside)
        return _Opened(event.agent, span, inside, began, measured)

    def _tells_content(self, opened: _Opened) -> bool:
        """Whether anybody reads it: of runs that are not sampled it need not be written."""
        return self._has_content and opened.span.is_recording()

    def _end(
        self, opened: _Opened, event: AgentEvent, outcome: str, why: str | None, words: str | None
    ) -> None:
        span = opened.span
        if why is not None:
            span.set_attribute(names.ERROR_TYPE, why)
        if outcome in _FAILED:
            span.set_status(StatusCode.ERROR, words if self._has_content else None)
        span.end(_nanoseconds(event.timestamp))
        # All that is needed of it from now on: others may still have it for a parent.
        opened.span, opened.is_open = NonRecordingSpan(span.get_span_context()), False
        opened.inside = set_span_in_context(opened.span, self._outside)

    def _measure(
        self, quantity: names.Quantity, seconds: float, opened: _Opened, why: str | None
    ) -> None:
        measured = opened.measured
        if why is not None:
            measured = {**measured, names.ERROR_TYPE: why}
        self._measures.record(quantity, seconds, measured, opened.inside)

    def _end_the_rest(self, event: AgentEvent) -> None:
        """End what is open, where something went wrong, and forget all of it."""
        for opened in (*self._calls.values(), *reversed(self._agents.values())):
            if opened.is_open:
                opened.span.end(_nanoseconds(event.timestamp))
                opened.is_open = False
        self._calls.clear()
        self._provided.clear()

    # Around what the application does

    @property
    def log_keys(self) -> Mapping[str, str]:
        """See `flowtrio.abc.RunTelemetry`."""
        root = self._agents.get(ROOT)
        return {} if root is None else ids_of(root.span.get_span_context())

    async def around_agent(self, ctx: RunContext, proceed: Callable[[], Awaitable[Any]], /) -> Any:
        """See `flowtrio.abc.AroundAgent`."""
        return await _inside(self._agents.get(ctx.agent), proceed)

    async def around_tool(
        self, ctx: RunContext, call: ToolCall, proceed: Callable[[], Awaitable[Any]], /
    ) -> Any:
        """See `flowtrio.abc.AroundTool`."""
        return await _inside(self._calls.get(call.id), proceed)


async def _inside(opened: _Opened | None, proceed: Callable[[], Awaitable[Any]]) -> Any:
    if opened is None:
        return await proceed()
    # Both in this frame: whatever leaves it, the task's context is the one that was attached to.
    token = attach(set_span_in_context(opened.span))
    try:
        return await proceed()
    finally:
        detach(token)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
