"""What an agent's body or a tool may do: the verbs of `RunContext`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from flowtrio._core._chunks import Completion
from flowtrio._core._events import EventType
from flowtrio._core._exceptions import DeadlineExceeded, LocalProtocolError, ToolFailed
from flowtrio._core._failures import describe
from flowtrio._core._transcript import Reply
from flowtrio._core._values import check_json, clean_text

from ._agent import agent_name, as_awaitable, result_to_json
from ._calls import ActiveCall
from ._frame import Frame
from ._model import Turn
from ._pending import Pending
from ._tools import Tool, as_tool

if TYPE_CHECKING:
    from flowtrio.abc import AgentLike, LLMClient

_CHUNK: Final = EventType.MESSAGE_CHUNK


@attrs.frozen(eq=False, init=False, repr=False)
class RunContext:
    """What a running agent or tool may do. Given to it; has no public constructor.

    All verbs may be used from several tasks at once; their events come in one order. When the call
    or agent that a context belongs to was ended early, what it still says is discarded.
    """

    _frame: Frame

    @classmethod
    def _of(cls, frame: Frame) -> RunContext:
        context = cls.__new__(cls)
        object.__setattr__(context, "_frame", frame)
        return context

    def __repr__(self) -> str:
        return f"<RunContext run={self.run_id!r} agent={self.agent!r}>"

    @property
    def run_id(self) -> str:
        """The run."""
        return self._frame.run.info.run_id

    @property
    def agent(self) -> str:
        """Path of the agent: ``root``, ``root/researcher``."""
        return self._frame.agent

    @property
    def tenant_id(self) -> str:
        """Whose run it is; ``default`` without an orchestrator."""
        return self._frame.run.info.tenant_id

    @property
    def session_id(self) -> str | None:
        """The conversation, or None for a run that has none."""
        return self._frame.run.info.session_id

    @property
    def history(self) -> Sequence[dict[str, Any]]:
        """What was said before this agent's message; empty for a nested agent."""
        return self._frame.history

    @property
    def app(self) -> Any:
        """What the application gave with ``app=``."""
        return self._frame.run.info.app

    # Saying something

    async def status(self, text: str) -> None:
        """Tell what the run is doing: a STATE_CHANGE with *text* as its reason.

        The status itself stays as it is. The same text twice in a row is told once.
        """
        await self._frame.run.log.set_status(_text(text, "status"))

    async def progress(self, value: Any) -> None:
        """Report on the running tool call: TOOL_PROGRESS with a JSON *value*.

        Raises:
          LocalProtocolError: this context belongs to an agent's body, not to a tool call.

        """
        frame = self._frame
        if frame.call_id is None:
            raise LocalProtocolError(
                f"can't report progress from agent {frame.agent!r}: expected a tool call's context"
            )
        await frame.emit(
            EventType.TOOL_PROGRESS,
            {
                "call_id": frame.call_id,
                "tool_name": frame.tool_name,
                "progress": check_json(value, "progress"),
            },
        )

    async def custom(self, name: str, value: Any = None) -> None:
        """Emit an event of the application's own: CUSTOM with a *name* and a JSON *value*."""
        data = {"name": _text(name, "name"), "value": check_json(value, "value")}
        await self._frame.emit(EventType.CUSTOM, data)

    @asynccontextmanager
    async def message(self) -> AsyncIterator[MessageWriter]:
        """Say something as the agent: ``async with ctx.message() as out: await out.write(text)``.

        The message is complete when the block is left; with ``finish_reason`` ``error`` when it is
        left by an exception, ``cancelled`` when it was cancelled.
        """
        frame = self._frame
        run = frame.run
        reply = self._expect_reply()
        if not (frame.is_closed or run.is_closing):
            run.log.law.begin_message(reply.message_id, frame.agent)
        writer = MessageWriter._of(frame, reply.message_id)
        with frame.bracket(reply.message_id):
            try:
                yield writer
            except Exception:
                writer._complete_now("error")
                raise
            await writer._complete()

    async def model(
        self,
        messages: Sequence[Mapping[str, Any]],
        client: LLMClient | None = None,
        tools: Sequence[Any] = (),
        **options: Any,
    ) -> Completion:
        """Ask a model once; what it says is streamed as this agent's message.

        Args:
          messages: The conversation, in OpenAI's shape.
          client: The model; by default the agent's own.
          tools: Tools, functions or ready specifications to offer. Calls come back in
            ``completion.tool_calls``; running them, with `call`, is up to the agent.
          options: Handed on to the client.

        Raises:
          ProviderError: the model's host refused or failed.
          RemoteProtocolError: the model's stream was malformed or cut.
          DeadlineExceeded: one of the client's `ModelLimits` passed.

        """
        frame = self._frame
        client = client if client is not None else frame.client
        if client is None:
            raise LocalProtocolError(
                f"agent {frame.agent!r} has no model of its own: expected client=..."
            )
        specs = [tool if isinstance(tool, dict) else as_tool(tool).spec() for tool in tools]
        # Running the calls, with `call`, is up to the agent: so they are none of the run's yet.
        turn = Turn(frame, client, self._expect_reply(), writes_calls=False)
        try:
            completion, _ = await turn.run_turn([dict(m) for m in messages], specs, options)
        except BaseException:
            frame.run.close_brackets(turn.brackets())
            raise
        return completion

    def _expect_reply(self) -> Reply:
        frame = self._frame
        reply = Reply(frame.run.log.new_id("m"))
        transcript = frame.run.log.transcripts.get(frame.agent)
        if frame.call_id is None and transcript is not None:
            transcript.expect(reply)
        return reply

    # Doing something

    async def call(self, tool: Tool[..., Any] | Callable[..., Any], /, **arguments: Any) -> Any:
        """Run a tool as a call of this run.

        Args:
          tool: A `Tool`, or a typed function.
          arguments: As a model would give them: JSON values.

        Returns:
          What the tool returned.

        Raises:
          ToolFailed: the call did not end ``ok``; ``outcome`` says how.

        """
        tool = as_tool(tool)
        frame = self._frame
        active = ActiveCall(frame, frame.run.log.new_id("c"), tool.name, None)
        end = await active.execute(tool, check_json(arguments, "arguments"))
        if end.outcome != "ok":
            raise ToolFailed(
                f"call {active.call_id} of tool {tool.name!r} ended {end.outcome}"
                + (f": {end.error}" if end.error else ""),
                tool_name=tool.name,
                call_id=active.call_id,
                outcome=end.outcome,
            ) from end.exc
        return end.value

    async def approve(self, name: str, arguments: Mapping[str, Any] | None = None) -> bool:
        """Ask a person to approve something that is no tool; False if denied or not answered."""
        frame = self._frame
        active = ActiveCall(frame, frame.run.log.new_id("c"), _text(name, "name"), None)
        return await active.approve(check_json(dict(arguments or {}), "arguments"))

    async def ask(self, prompt: str) -> str:
        """Ask the user and wait for the answer; the stream stays open.

        Raises:
          DeadlineExceeded: nobody answered within ``Limits.input``; also a `TimeoutError`.

        """
        frame, run = self._frame, self._frame.run
        request_id, seconds = run.log.new_id("q"), run.limits.input
        pending = run.pending[request_id] = Pending("input")
        try:
            with frame.bracket(request_id):
                await frame.emit(
                    EventType.INPUT_REQUIRED,
                    {"request_id": request_id, "prompt": _text(prompt, "prompt")},
                )
                await run.log.set_status()
                if run.is_unattended:
                    pending.abandon()
                with frame.waiting_for_person(), trio.move_on_after(seconds):
                    await pending.wait()
                await frame.emit(
                    EventType.INPUT_RESOLVED,
                    {
                        "request_id": request_id,
                        "outcome": "answered" if pending.is_decided else "timeout",
                        "text": pending.value,
                    },
                )
        finally:
            del run.pending[request_id]
        await run.log.set_status()
        if not pending.is_decided:
            raise DeadlineExceeded(
                f"question {request_id} got no answer within {seconds} s", deadline="input"
            )
        return str(pending.value)

    async def delegate(self, agent: AgentLike, message: str) -> Any:
        """Run another agent inside this one and give its result.

        Its events come in this run's order, under a path of its own. What it raises is raised here,
        after its AGENT_END.
        """
        parent, run = self._frame, self._frame.run
        message = _text(message, "message")
        path = run.log.new_path(parent.agent, agent_name(agent))
        frame = Frame(run, parent, path)
        run.log.agents[path] = frame
        try:
            with parent.bracket(path):
                await run.log.emit(
                    EventType.AGENT_START, {"agent": path, "call_id": parent.call_id}, path
                )
                try:
                    value = await run_agent(frame, agent, message)
                    result = result_to_json(value)
                except Exception as exc:
                    frame.close()
                    run.log.record(
                        EventType.AGENT_END,
                        self._agent_end(frame, "error", error=describe(exc)),
                        path,
                    )
                    raise
                except BaseException:
                    frame.close()
                    raise
                await run.log.emit(
                    EventType.AGENT_END, self._agent_end(frame, "ok", result=result), path
                )
        finally:
            frame.leave()
            run.log.agents.pop(path, None)
        return value

    def _agent_end(
        self, frame: Frame, outcome: str, *, result: Any = None, error: str | None = None
    ) -> dict[str, Any]:
        return {
            "agent": frame.agent,
            "call_id": self._frame.call_id,
            "outcome": outcome,
            "result": result,
            "error": error,
            "usage": frame.usage.to_dict(),
            "duration": frame.run.log.seconds_since(frame.agent),
        }

    def start_soon(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Start a background task of this agent or tool; it is awaited at the body's end.

        What it raises is raised by the body's end too, and cancels the body.
        """
        self._frame.start_soon(fn, args)


class MessageWriter:
    """Writes one message of an agent. Made by `RunContext.message`."""

    __slots__ = ("_frame", "_is_complete", "_message_id")

    _frame: Frame
    _message_id: str
    _is_complete: bool

    @classmethod
    def _of(cls, frame: Frame, message_id: str) -> MessageWriter:
        writer = cls.__new__(cls)
        writer._frame, writer._message_id, writer._is_complete = frame, message_id, False
        return writer

    async def write(self, text: str) -> None:
        """Say a piece of the message."""
        frame = self._frame
        data = {"chunk": _text(text, "text"), "message_id": self._message_id}
        if frame.is_closed:
            await frame.emit(_CHUNK, data)
        else:
            # For every token, a call less.
            await frame.run.log.emit(_CHUNK, data, frame.agent)

    async def _complete(self) -> None:
        await self._frame.emit(EventType.MESSAGE_COMPLETE, self._data("stop"))

    def _complete_now(self, finish_reason: str) -> None:
        frame = self._frame
        if not frame.is_closed and frame.run.log.law.open_message(self._message_id) is not None:
            frame.run.log.record(EventType.MESSAGE_COMPLETE, self._data(finish_reason), frame.agent)

    def _data(self, finish_reason: str) -> dict[str, Any]:
        message = self._frame.run.log.law.open_message(self._message_id)
        return {
            "message_id": self._message_id,
            "content": "" if message is None else message.text.getvalue(),
            "finish_reason": finish_reason,
            "usage": None,
            "model": None,
        }


async def run_agent(frame: Frame, agent: AgentLike, message: str) -> Any:
    """Run an agent's body in *frame*."""
    return await frame.run_body(
        lambda: as_awaitable(agent(RunContext._of(frame), message)),
    )


def _text(value: str, what: str) -> str:
    if type(value) is str and value.isascii():
        return value
    if not isinstance(value, str):
        raise TypeError(f"{what}: expected a str, got {type(value).__name__}")
    # Events hold plain text: an enum's member, say, is one that is more.
    return clean_text(str.__str__(value))
