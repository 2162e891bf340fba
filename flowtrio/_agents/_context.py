"""What an agent's body or a tool may do: the verbs of `RunContext`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import attrs
from trio.lowlevel import checkpoint

from flowtrio._core._chunks import Completion, ToolCall
from flowtrio._core._events import EventType
from flowtrio._core._exceptions import LocalProtocolError, ToolFailed
from flowtrio._core._failures import describe
from flowtrio._core._history import read_history
from flowtrio._core._parts import read_message
from flowtrio._core._transcript import Reply, Transcript
from flowtrio._core._values import check_json
from flowtrio._run._body import agent_name, ask_agent, encode_result
from flowtrio._run._frame import Envoy, Frame

from ._about import AboutRun, AppT
from ._answers import AnswerForm
from ._calls import ActiveCall
from ._opened import MessageWriter, Question, plain_text
from ._replies import (
    Asked,
    CallResult,
    answer,
    answering,
    asked_for,
    asked_like,
    asked_of,
    run_calls,
)
from ._signature import Context
from ._steering import ask_aside, ask_model
from ._tools import Tool, as_tool
from ._toolsets import unique_tools

if TYPE_CHECKING:
    from flowtrio._core._parts import Part
    from flowtrio.abc import AgentLike, LLMClient

R = TypeVar("R")

_CHUNK: Final = EventType.MESSAGE_CHUNK
T = TypeVar("T")


@attrs.frozen(eq=False, init=False, repr=False)
class RunContext(AboutRun[AppT], Context):
    """What a running agent or tool may do. Given to it; has no public constructor.

    ``RunContext[App]`` says of which type `app` is.

    All verbs may be used from several tasks at once; their events come in one order. When the call
    or agent that a context belongs to was ended early, what it still says is discarded.
    """

    @classmethod
    def _of(cls, frame: Frame) -> RunContext:
        context = cls.__new__(cls)
        object.__setattr__(context, "_frame", frame)
        return context

    # Saying something

    async def status(self, text: str) -> None:
        """Tell what the run is doing: a STATE_CHANGE with *text* as its reason.

        The status itself stays as it is. The same text twice in a row is told once.
        """
        frame = self._frame
        frame.check_here("tell a status")
        await frame.run.log.set_status(frame, plain_text(text, "status", frame))

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
        frame.check_here("report progress")
        await frame.emit(
            EventType.TOOL_PROGRESS,
            {
                "call_id": frame.call_id,
                "tool_name": frame.tool_name,
                "progress": check_json(
                    value, "progress", limit_bytes=frame.run.limits.result_bytes
                ),
            },
        )

    async def custom(self, name: str, value: Any = None) -> None:
        """Emit an event of the application's own: CUSTOM with a *name* and a JSON *value*."""
        frame = self._frame
        frame.check_here("emit an event")
        limit = frame.run.limits.result_bytes
        data = {
            "name": plain_text(name, "name", frame),
            "value": check_json(value, "value", limit_bytes=limit),
        }
        await frame.emit(EventType.CUSTOM, data)

    def message(self) -> AbstractAsyncContextManager[MessageWriter]:
        """Say something as the agent: ``async with ctx.message() as out: await out.write(text)``.

        The message is complete when the block is left; with ``finish_reason`` ``error`` when it is
        left by an exception, ``cancelled`` when it was cancelled.
        """
        frame = self._frame
        writer = MessageWriter._of(frame, frame.run.log.opened.new_id("m"))
        self._expect(Reply(writer._message_id))
        return writer

    async def model(
        self,
        messages: Sequence[Mapping[str, Any]],
        client: LLMClient | None = None,
        tools: Sequence[Any] = (),
        **options: Any,
    ) -> Completion:
        """Ask a model once; what it says is streamed as this agent's message.

        Where a function around models asks, what is said joins no conversation: it is that of a
        nested agent of the function's name.

        In the root's body, what was said with `EventStream.post` goes behind *messages*, and stands
        in `messages` from then on. Where that cuts the reply, the model is asked once more.

        Args:
          messages: The conversation, in OpenAI's shape; made fit as a run's history is.
          client: The model; by default the agent's own.
          tools: Tools, functions or ready specifications to offer. Calls come back in
            ``completion.tool_calls``; running them, with `call` or `run_calls`, is up to the agent.
          options: Handed on to the client.

        Raises:
          TypeError: *messages* is no list of messages.
          ValueError: a message is none that a model takes.
          ProviderError: the model's host refused or failed.
          RemoteProtocolError: the model's stream was malformed or cut.
          DeadlineExceeded: one of the client's `ModelLimits` passed.

        """
        frame = self._frame
        await frame.check_open("ask a model")
        client = client if client is not None else frame.client
        if client is None:
            raise LocalProtocolError(
                f"agent {frame.agent!r} has no model of its own: expected client=..."
            )
        conversation = read_history(messages, "messages")
        if frame.aside is not None:
            return await ask_aside(
                self.delegate,
                frame.aside,
                lambda ctx: ctx.model(conversation, client, tools, **options),
            )
        specs = [tool if isinstance(tool, dict) else as_tool(tool).spec() for tool in tools]
        with frame.run.visited():
            turn, completion, calls = await ask_model(frame, client, conversation, specs, options)
        if calls:
            frame.asked = asked = asked_of(frame) or Asked()
            asked.note(turn.message_id, calls)
        return completion

    def _expect(self, reply: Reply) -> None:
        frame = self._frame
        if frame.call_id is None:
            frame.transcript.expect(reply)

    # Doing something

    @overload
    async def call(
        self,
        tool: Tool[..., Coroutine[Any, Any, R]] | Callable[..., Coroutine[Any, Any, R]],
        call: ToolCall | None = None,
        /,
        **arguments: Any,
    ) -> R: ...
    @overload
    async def call(
        self,
        tool: Tool[..., R] | Callable[..., R],
        call: ToolCall | None = None,
        /,
        **arguments: Any,
    ) -> R: ...
    async def call(
        self,
        tool: Tool[..., Any] | Callable[..., Any],
        call: ToolCall | None = None,
        /,
        **arguments: Any,
    ) -> Any:
        """Run a tool as a call of this run.

        With a call that `model` gave, ``ctx.call(tool, completion.tool_calls[0])``, this answers
        that call. In an agent's body it also answers one if it is the same by its tool and its
        arguments: the oldest such call of the last reply that has no answer. Any other is a call of
        the agent's own, of which no model is told; one that was answered before becomes such a one.

        Args:
          tool: A `Tool`, or a typed function.
          call: One of ``completion.tool_calls``; it brings the arguments.
          arguments: As a model would give them: JSON values.

        Returns:
          What the tool returned.

        Raises:
          ToolFailed: the call did not end ``ok``; ``outcome`` says how.
          TypeError: *call* is no `ToolCall`, or there are arguments beside it.

        """
        tool = as_tool(tool)
        frame = self._frame
        await frame.check_open(f"call tool {tool.name!r}")
        if call is None:
            asked = asked_like(frame, tool, arguments)
        elif not isinstance(call, ToolCall) or arguments:
            raise TypeError(
                f"can't call {tool.name!r} with {type(call).__name__} and {len(arguments)} "
                "arguments: expected one of completion.tool_calls alone, or arguments by name"
            )
        else:
            asked = asked_for(frame, call)
        active = ActiveCall(frame, asked.call_id, tool.name, asked.message_id)
        with frame.run.visited(), answering(frame, [asked]):
            end = await answer(active, tool, asked.call)
        if end.outcome != "ok":
            raise ToolFailed(
                f"call {active.call_id} of tool {tool.name!r} ended {end.outcome}"
                + (f": {end.error}" if end.error else ""),
                tool_name=tool.name,
                call_id=active.call_id,
                outcome=end.outcome,
            ) from end.exc
        return end.value

    async def run_calls(
        self, completion: Completion, tools: Sequence[Tool[..., Any] | Callable[..., Any]]
    ) -> list[CallResult]:
        """Run the calls of a reply as `Agent` does: in parallel, and each gets an answer.

        A call of an unknown tool, or with arguments that do not fit, ends ``error`` and raises
        nothing here; the model is told by way of `messages`.

        Args:
          completion: What `model` gave.
          tools: Tools, or typed functions; each call takes the one of its name.

        Returns:
          What became of each call, in the order of ``completion.tool_calls``.

        """
        frame = self._frame
        await frame.check_open("run a reply's calls")
        by_name = {tool.name: tool for tool in unique_tools(tools)}
        calls = [asked_for(frame, call) for call in completion.tool_calls]
        with frame.run.visited(), answering(frame, calls):
            return [answered.result() for answered in await run_calls(frame, calls, by_name)]

    async def approve(self, name: str, arguments: Mapping[str, Any] | None = None) -> bool:
        """Ask a person to approve something that is no tool; False if denied or not answered."""
        frame = self._frame
        await frame.check_open("ask for approval")
        active = ActiveCall(
            frame, frame.run.log.opened.new_id("c"), plain_text(name, "name", frame), None
        )
        with frame.run.visited():
            limit = frame.run.limits.result_bytes
            given = check_json(dict(arguments or {}), "arguments", limit_bytes=limit)
            return await active.approve(given)

    @overload
    async def ask(self, prompt: str, schema: None = None) -> str: ...
    @overload
    async def ask(self, prompt: str, schema: type[T]) -> T: ...
    @overload
    async def ask(self, prompt: str, schema: Any) -> Any: ...
    async def ask(self, prompt: str, schema: Any = None) -> Any:
        """Ask the user and wait for the answer; the stream stays open.

        Args:
          prompt: The question.
          schema: For more than a line of text: a type, such as a dataclass, of which this gives a
            value; or a JSON Schema, which gives JSON that fits it (checked where `jsonschema` is
            installed). An answer that does not fit is refused, and the question stays open.

        Raises:
          DeadlineExceeded: nobody answered within ``Limits.input``; also a `TimeoutError`.
          InputDeclined: the user declined to answer.
          TypeError: *schema* is no type with a JSON form, and no JSON Schema.

        """
        frame, prompt = self._frame, plain_text(prompt, "prompt", self._frame)
        form = AnswerForm.of(schema)
        await frame.check_open("ask the user")
        with frame.run.visited():
            return await Question(frame, frame.run.log.opened.new_id("q"), form).ask(prompt)

    async def delegate(
        self,
        agent: AgentLike[R],
        message: str | Sequence[Part],
        history: Sequence[Mapping[str, Any]] = (),
    ) -> R:
        """Run another agent inside this one and give its result.

        Its events come in this run's order, under a path of its own. What it raises is raised here,
        after its AGENT_END. Its conversation is its own and ends with it.

        Args:
          agent: An `Agent`, or any ``async def agent(ctx, message)``.
          message: What it is asked: a text, or a list of parts.
          history: What it is told was said before; see `StreamEngine.stream`.

        Raises:
          TypeError: *message* is neither, or *history* no list of messages.
          ValueError: a message of *history* is none that a model takes.

        """
        parent, run = self._frame, self._frame.run
        said = read_message(message)
        run.info.check_length(said.text, "message")
        transcript = Transcript(read_history(history), said, run.info.run_id)
        await parent.check_open("delegate")
        path = run.log.opened.new_path(parent.agent, agent_name(agent))
        nested = NestedAgent(parent, path, transcript)
        with run.visited():
            value: R = await nested.run(agent, said.text)
            return value

    def start_soon(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Start a background task of this agent or tool; it is awaited at the body's end.

        What it raises is raised by the body's end too, and cancels the body.
        """
        self._frame.start_soon(fn, args)


class NestedAgent:
    """An agent at work inside another one."""

    def __init__(self, parent: Frame, path: str, transcript: Transcript) -> None:
        self.owner = parent
        self.frame = Frame(
            # What stands around its parent's tools and models is the parent's own.
            parent.run,
            parent,
            path,
            transcript=transcript,
            hooks=parent.hooks.of_the_run,
        )
        self._end: dict[str, Any] = {}

    async def run(self, agent: AgentLike, message: str) -> Any:
        """See `RunContext.delegate`."""
        parent, frame, log = self.owner, self.frame, self.owner.run.log
        path = frame.agent
        data = {"agent": path, "call_id": parent.call_id}
        log.transcripts[path] = frame.transcript
        try:
            with parent.bracket(path, self):
                if await log.emit(EventType.AGENT_START, data, frame) is None:
                    raise parent.closed("delegate")
                try:
                    value = await run_agent(frame, agent, message)
                    result = encode_result(value, parent.run.limits.result_bytes)
                except BaseException as exc:
                    if isinstance(exc, Exception):
                        self._end = {"outcome": "error", "error": describe(exc)}
                    frame.close()
                    raise
                if frame.is_closed:
                    # It was ended from elsewhere, and its body was cancelled or took no notice.
                    await checkpoint()
                    raise parent.closed("delegate")
                frame.close()
                self._end = {"outcome": "ok", "result": result}
                await log.emit(EventType.AGENT_END, {**data, **self._told()}, Envoy(parent, path))
        finally:
            frame.leave()
            log.transcripts.pop(path, None)
        return value

    def closing(self) -> dict[str, Any]:
        """See `OpenThing`."""
        self.frame.mark_closed()
        self.frame.stop_body("the agent was ended")
        return self._told()

    def _told(self) -> dict[str, Any]:
        return {
            "outcome": "cancelled",
            "result": None,
            "error": None,
            "usage": self.frame.usage.to_dict(),
            "duration": self.frame.run.log.seconds_since(self.frame.agent),
            **self._end,
        }


async def run_agent(frame: Frame, agent: AgentLike, message: str) -> Any:
    """Run an agent's body in *frame*."""
    return await frame.run_body(ask_agent, frame, agent, message)


def context_of(frame: Frame) -> RunContext:
    """What the body of *frame* is given: the factory that runs are made with."""
    return RunContext._of(frame)
