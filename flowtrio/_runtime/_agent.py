"""The turn loop: stream the model, run its calls, give it their results, until it answers."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic

import attrs
import trio

from flowtrio._core._chunks import ToolCall
from flowtrio._core._events import ROOT
from flowtrio._core._exceptions import LimitExceeded, RemoteProtocolError
from flowtrio._core._failures import leaves
from flowtrio._core._transcript import Reply, Transcript
from flowtrio._core._values import clean_text

from ._calls import ActiveCall
from ._model import Turn
from ._output import Output
from ._tools import Tool, as_tool, encode_result

if TYPE_CHECKING:
    from flowtrio.abc import AgentLike, LLMClient, Message

    from ._context import RunContext
    from ._frame import Frame

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # Without output=T an answer is text; only type checkers know defaults before Python 3.13.
    T = TypeVar("T", default=str)
else:
    from typing import TypeVar

    T = TypeVar("T")

_OUTPUT_ATTEMPTS = 2
"""How often a model is asked for an answer of the right type."""


def _tools(given: Sequence[Tool[..., Any] | Callable[..., Any]]) -> tuple[Tool[..., Any], ...]:
    if isinstance(given, Tool) or callable(given):
        raise TypeError("tools: expected a list of tools, got a tool alone")
    tools = tuple(as_tool(tool) for tool in given)
    names = [tool.name for tool in tools]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"tools of one agent need names of their own: {', '.join(sorted(twice))}")
    return tools


def _check_client(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not callable(getattr(value, "stream_completion", None)):
        raise TypeError(
            f"Agent(llm_client={type(value).__name__}): expected an object with stream_completion()"
        )


@attrs.frozen(kw_only=True, eq=False)
class Agent(Generic[T]):
    """A model with tools. Frozen, and used by many runs at once; can be built outside Trio."""

    llm_client: LLMClient = attrs.field(validator=_check_client, repr=False)
    """The model; anything with ``stream_completion``."""
    tools: tuple[Tool[..., Any], ...] = attrs.field(default=(), converter=_tools)
    """What the model may call: tools, or plain typed functions."""
    instructions: str = ""
    """The system message; empty for none."""
    name: str = "assistant"
    """Name in RUN_START, and in the path where the agent is nested."""
    output: type[T] | None = None
    """Type of the answer, asked for by JSON Schema; None for plain text."""
    _output: Output | None = attrs.field(init=False, default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.output is not None:
            object.__setattr__(self, "_output", Output.of(self.output))

    def replace(self, **changes: Any) -> Agent[T]:
        """The same agent with some attributes changed."""
        return attrs.evolve(self, **changes)

    async def __call__(self, ctx: RunContext, message: str) -> T:
        """Run the turn loop; see `flowtrio.abc.AgentLike`."""
        value: T = await _Loop(self, ctx._frame, message).run()
        return value


class _Loop:
    """One agent at work on one message."""

    def __init__(self, agent: Agent[Any], frame: Frame, message: str) -> None:
        self.agent = agent
        self.frame = frame
        self.run_ = frame.run
        self.tools = {tool.name: tool for tool in agent.tools}
        frame.client = agent.llm_client
        if frame.agent == ROOT:
            self.transcript = frame.run.log.transcripts[ROOT]
        else:
            self.transcript = Transcript(frame.history, message)
            frame.run.log.transcripts[frame.agent] = self.transcript

    async def run(self) -> Any:
        """Take turns until the model answers without calling a tool."""
        specs = [tool.spec() for tool in self.agent.tools]
        options: dict[str, Any] = {}
        output = self.agent._output
        if output is not None:
            options["output_schema"] = (output.name, output.schema)
        attempts = 0
        for _ in self._turns():
            reply = Reply(self.run_.log.new_id("m"))
            self.transcript.expect(reply)
            turn = Turn(self.frame, self.agent.llm_client, reply)
            completion, calls = await turn.run_turn(self._request(), specs, options)
            if calls:
                await self._run_calls(turn.message_id, calls)
            elif output is None:
                return completion.content
            else:
                try:
                    return output.decode(completion.content)
                except ValueError as exc:
                    attempts += 1
                    self._refuse_answer(output, exc, attempts)
        limit = self.run_.limits.turns
        raise LimitExceeded(
            f"agent {self.frame.agent!r} took {limit} turns without an answer", limit="turns"
        )

    def _turns(self) -> Iterable[int]:
        limit = self.run_.limits.turns
        return itertools.count() if limit == math.inf else range(int(limit))

    def _request(self) -> list[Message]:
        messages = self.transcript.messages()
        if not self.agent.instructions:
            return messages
        return [{"role": "system", "content": self.agent.instructions}, *messages]

    def _refuse_answer(self, output: Output, exc: ValueError, attempts: int) -> None:
        """Tell the model what was wrong with its answer, once."""
        if attempts == _OUTPUT_ATTEMPTS:
            raise RemoteProtocolError(
                f"the model's answer does not fit output={output.name}: {exc}", code="bad_output"
            ) from exc
        self.transcript.say("user", f"Your answer does not fit the schema: {exc}. Answer again.")

    # Calls

    async def _run_calls(self, message_id: str, calls: list[tuple[str, ToolCall]]) -> None:
        """Run a reply's calls in parallel; their results reach the conversation by their ENDs."""
        if len(calls) == 1:
            [(call_id, call)] = calls
            return await self._run_call(message_id, call_id, call)
        try:
            async with trio.open_nursery() as nursery:
                for call_id, call in calls:
                    nursery.start_soon(
                        self._run_call,
                        message_id,
                        call_id,
                        call,
                        name=f"tool {call.name} ({call_id})",
                    )
        except BaseExceptionGroup as group:
            # Nothing but Cancelled comes here, and callers want it bare.
            raise next(leaves(group)) from None

    async def _run_call(self, message_id: str, call_id: str, call: ToolCall) -> None:
        active = ActiveCall(self.frame, call_id, clean_text(call.name), message_id)
        tool = self.tools.get(call.name)
        if tool is None:
            known = ", ".join(self.tools) or "none"
            await active.refuse(f"there is no tool of that name; there are: {known}")
        elif call.arguments is None:
            await active.refuse("the arguments are not a JSON object")
        else:
            await active.execute(tool, call.arguments)


def agent_name(agent: Any) -> str:
    """The name of an agent in events: its ``name``, or that of the function."""
    name = getattr(agent, "name", None) or getattr(agent, "__name__", None)
    return name if isinstance(name, str) and name else type(agent).__name__


def as_awaitable(value: Any) -> Awaitable[Any]:
    """What an agent gave when it was called, if that can be awaited.

    Raises:
      TypeError: it was a plain function.

    """
    if not inspect.isawaitable(value):
        raise TypeError(
            f"the agent gave {type(value).__name__}: expected an async def agent(ctx, message)"
        )
    return value


def result_to_json(value: Any) -> Any:
    """An agent's result as events carry it."""
    return encode_result(value, None)


def check_agent(agent: AgentLike) -> AgentLike:
    """Refuse what cannot be run, with a message that says what can.

    Raises:
      TypeError: *agent* is no callable.

    """
    if isinstance(agent, type) or not callable(agent):
        raise TypeError(
            f"can't run {agent!r} as an agent: expected flowtrio.Agent(llm_client=...) or an "
            "async def agent(ctx, message)"
        )
    return agent
