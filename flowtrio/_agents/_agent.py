"""The turn loop: stream the model, run its calls, give it their results, until it answers."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

import attrs

from flowtrio._core._exceptions import LimitExceeded, RemoteProtocolError
from flowtrio._core._fit import is_blank
from flowtrio._core._parts import read_message
from flowtrio._core._transcript import Reply, Transcript
from flowtrio._core._values import clean_text, squashed, told
from flowtrio._run._frame import Frame
from flowtrio._run._hooks import check_hook

from ._budget import is_last_request
from ._given import ForRun, given_to, read_settings, settings_of_turn
from ._model import Turn
from ._output import Output
from ._replies import AskedCall, run_calls
from ._steering import Listener
from ._toolsets import Offer, tools_and_toolsets

if TYPE_CHECKING:
    from flowtrio._core._chunks import Completion
    from flowtrio._core._parts import Part
    from flowtrio.abc import AroundModel, AroundTool, LLMClient, Message, Toolset

    from ._context import RunContext
    from ._tools import Tool

if TYPE_CHECKING:
    from typing_extensions import TypeForm, TypeVar

    # Without output=T an answer is text; only type checkers know defaults before Python 3.13.
    T = TypeVar("T", default=str)
else:
    from typing import TypeVar

    T = TypeVar("T")

_CUTS = 2
"""How many replies in a row may be cut at the model's length before their calls are whole."""
_CONTEXT_IS_FULL = frozenset(
    {
        *("modelcontextwindowexceeded", "contextwindowexceeded", "contextlengthexceeded"),
        # Mistral's.
        "modellength",
    }
)
"""The providers' words, squashed, for a reply that no shorter answer would save."""
_OUTPUT_ATTEMPTS = 2
"""How often a model is asked for an answer of the right type."""


def _check_client(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not callable(getattr(value, "stream_completion", None)):
        raise TypeError(
            f"Agent(llm_client={type(value).__name__}): expected an object with stream_completion()"
        )


if TYPE_CHECKING:
    Instructions: TypeAlias = Callable[[RunContext[Any]], str | Awaitable[str]]
else:
    Instructions = Callable[..., Any]


def _check_instructions(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not (isinstance(value, str) or callable(value)):
        raise TypeError(
            f"Agent(instructions={told(value)}): expected a text, or a function of the context"
        )


def _none() -> Any:
    # A default as it stands would be taken by type checkers for the type of every answer.
    return None


@attrs.frozen(kw_only=True, eq=False)
class Agent(Generic[T]):
    """A model with tools. Frozen, and used by many runs at once; can be built outside Trio."""

    llm_client: LLMClient = attrs.field(validator=_check_client, repr=False)
    """The model; anything with ``stream_completion``."""
    tools: tuple[Tool[..., Any] | Toolset, ...] = attrs.field(
        default=(), converter=tools_and_toolsets
    )
    """What the model may call: tools, plain typed functions, and toolsets, which are asked for
    theirs at each turn."""
    instructions: str | Instructions = attrs.field(default="", validator=_check_instructions)
    """The system message; empty for none. Or a function of the context that gives it, asked at each
    turn; it may be async."""
    name: str = "assistant"
    """Name in RUN_START, and in the path where the agent is nested."""
    # A union is no type[T]; and mypy takes one as a TypeForm only where no "| None" stands beside.
    output: TypeForm[T] = attrs.field(factory=_none)
    """Type of the answer, asked for by JSON Schema; left out, or None, for plain text."""
    model_settings: dict[str, Any] = attrs.field(
        default=attrs.Factory(dict), converter=read_settings, repr=False
    )
    """Options of the client for each of its replies: ``temperature``, ``max_tokens``, … A
    ``tool_choice`` that asks for a call holds for the first turn only."""
    around_tool: AroundTool | None = attrs.field(default=None, validator=check_hook, repr=False)
    """Stands around each tool call, inside the engine's; see `flowtrio.abc.AroundTool`."""
    around_model: AroundModel | None = attrs.field(default=None, validator=check_hook, repr=False)
    """Stands around each reply of a model, likewise; see `flowtrio.abc.AroundModel`."""
    _output: Output | None = attrs.field(init=False, default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.output is not None:
            object.__setattr__(self, "_output", Output.of(self.output))

    def replace(self, **changes: Any) -> Agent[T]:
        """The same agent with some attributes changed."""
        return attrs.evolve(self, **changes)

    async def __call__(self, ctx: RunContext, message: str | Sequence[Part]) -> T:
        """Run the turn loop; see `flowtrio.abc.AgentLike`.

        A body may call it as well: ``await agent(ctx, "Summarise: …")``. The model is asked exactly
        that, behind the history of the body's agent; the body's own message means its images and
        files, too. What it says is said by that agent, and joins
        its conversation when this ends, but for a tool's: there only what the tool returns counts.
        """
        said = read_message(message)
        caller = ctx._frame
        if caller.aside is not None:
            value_aside: T = await ctx.delegate(self, message, caller.transcript.history)
            return value_aside
        given = given_to(caller)
        await caller.check_open("run an agent")
        transcript = caller.transcript.begin(said, is_told=caller.call_id is None)
        frame = Frame(
            caller.run,
            caller,
            caller.agent,
            call_id=caller.call_id,
            tool_name=caller.tool_name,
            client=self.llm_client,
            transcript=transcript,
            hooks=caller.hooks.inside(self.around_tool, self.around_model),
        )
        try:
            with caller.run.visited():
                value: T = await _Loop(self, frame, transcript, given).run()
        finally:
            # Where this was cut off, the body may go on without it.
            frame.leave()
            transcript.end()
        return value


class _Loop:
    """One agent at work on one message."""

    def __init__(
        self, agent: Agent[Any], frame: Frame, transcript: Transcript, given: ForRun
    ) -> None:
        self.agent = agent
        self.frame = frame
        self.run_ = frame.run
        # The names of both together have to differ.
        tools = tools_and_toolsets([*agent.tools, *given.tools]) if given.tools else agent.tools
        self.offer = Offer(tools, frame)
        self.settings = {**agent.model_settings, **given.model_settings}
        self.transcript = transcript
        self.user = Listener(frame, transcript)

    async def run(self) -> Any:
        """Take turns until the model answers without calling a tool."""
        with self.user:
            return await self._take_turns()

    async def _take_turns(self) -> Any:
        output, limit = self.agent._output, self.run_.limits.turns
        attempts = cuts = 0
        is_first = True
        for turns in self._turns():
            options = settings_of_turn(self.settings, is_first=is_first)
            if output is not None:
                options = {**options, "output_schema": (output.name, output.schema)}
            await self.offer.ask()
            await self.user.take()
            instructions = await self._instructions()
            if turns == limit or is_last_request(self.run_):
                self.user.stop()
            reply = Reply(self.run_.log.opened.new_id("m"))
            self.transcript.expect(reply)
            turn = Turn(self.frame, self.agent.llm_client, reply)
            request = self._request(instructions)
            told = await self.user.ask(turn, request, self.offer.specs, options)
            if isinstance(told, str):
                continue
            completion, calls = told
            cuts = cuts + 1 if turn.cut_calls else 0
            # What was cut has called nothing.
            is_first = is_first and cuts > 0
            if cuts:
                self._check_cut(completion, cuts)
            elif calls:
                asked = [AskedCall(call_id, turn.message_id, call) for call_id, call in calls]
                await run_calls(self.frame, asked, self.offer.by_name)
            elif output is None:
                if not await self.user.take_or_stop():
                    return completion.content
            else:
                if completion.finish_reason == "length":
                    _check_context(completion)
                    raise _too_long("the answer was cut, so that it is no whole value")
                try:
                    value = output.decode(completion.content)
                except ValueError as exc:
                    _check_refused(completion, output)
                    attempts += 1
                    self._refuse_answer(output, exc, attempts)
                else:
                    if not await self.user.take_or_stop():
                        return value
        raise LimitExceeded(
            f"agent {self.frame.agent!r} took {limit} turns without an answer", limit="turns"
        )

    def _turns(self) -> Iterable[int]:
        limit = self.run_.limits.turns
        return itertools.count(1) if limit == math.inf else range(1, int(limit) + 1)

    async def _instructions(self) -> str:
        instructions = self.agent.instructions
        if not callable(instructions):
            return instructions
        text = await self._asked_instructions(instructions)
        # Looking something up takes its time, and what is said meanwhile is for this reply.
        await self.user.take()
        return text

    def _request(self, instructions: str) -> list[Message]:
        messages = self.transcript.messages()
        if is_blank(instructions):
            return messages
        return [{"role": "system", "content": instructions}, *messages]

    async def _asked_instructions(self, fn: Instructions) -> str:
        given = fn(self.frame.make_context(self.frame))
        text = await given if inspect.isawaitable(given) else given
        if not isinstance(text, str):
            raise TypeError(f"instructions: expected the function to give a str, got {told(text)}")
        return clean_text(str.__str__(text))

    def _check_cut(self, completion: Completion, cuts: int) -> None:
        """A reply with calls was cut. The model is told by their results, once."""
        _check_context(completion)
        if cuts == _CUTS:
            raise _too_long(f"{cuts} replies in a row were cut before their calls were whole")

    def _refuse_answer(self, output: Output, exc: ValueError, attempts: int) -> None:
        """Tell the model what was wrong with its answer, once."""
        if attempts == _OUTPUT_ATTEMPTS:
            raise RemoteProtocolError(
                f"the model's answer does not fit output={output.name}: {exc}", code="bad_output"
            ) from exc
        self.transcript.say("user", f"Your answer does not fit the schema: {exc}. Answer again.")


def _check_refused(completion: Completion, output: Output) -> None:
    """What the model said instead of an answer is none; asked again, it would say the same."""
    if any(part.get("type") == "refusal" for part in completion.parts):
        raise RemoteProtocolError(
            f"the model refused to give an answer of the type output={output.name}", code="refused"
        )


def _check_context(completion: Completion) -> None:
    """No shorter answer would save a reply whose context is full."""
    if squashed(completion.raw_finish_reason or "") in _CONTEXT_IS_FULL:
        raise RemoteProtocolError(
            "the conversation fills the model's context window", code="context_window"
        )


def _too_long(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"the model reached its max_tokens: {what}", code="max_tokens")
