"""`ScriptedModel` and `FunctionModel`: models that say what the test wrote down."""

from __future__ import annotations

import abc
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeAlias
from weakref import WeakKeyDictionary, WeakSet

import attrs
import trio
from trio.lowlevel import Task, current_task, in_trio_task

from flowtrio._core._chunks import Chunk, ToolArgs, ToolCall, Usage
from flowtrio.clients._whole import Streaming

from ._requests import check_messages


class _Cut:
    def __repr__(self) -> str:
        return "CUT"


CUT: Final = _Cut()
"""In a turn: the stream ends here, without its finish mark."""

Step: TypeAlias = "str | float | ToolCall | Chunk | Usage | BaseException | _Cut"
"""What a turn is made of: a ``str`` is a chunk of text, a number so many seconds of silence, a
`ToolCall` a call that is written in two fragments, a `Chunk` itself, a `Usage` what the final chunk
tells, an exception is raised, and `CUT` ends the stream. Unless one of the last three or a final
`Chunk` does, the turn ends with a final chunk."""

_STEPS: Final = (str, int, float, ToolCall, Chunk, Usage, BaseException, _Cut)
_EXPECTED: Final = "a text, seconds, a ToolCall, a Chunk, a Usage, an exception or CUT"

DEFAULT_USAGE: Final = Usage(prompt_tokens=10, completion_tokens=5)
"""What a turn costs that says nothing of it."""


@attrs.frozen(kw_only=True)
class ScriptedRequest:
    """What a `ScriptedModel` was asked."""

    messages: list[dict[str, Any]]
    """The conversation."""
    tools: list[dict[str, Any]]
    """What it was offered."""
    options: dict[str, Any]
    """The rest."""


class _StrictModel(Streaming):
    """A client that keeps what it is asked, and fails where a provider or the test would."""

    def __init__(self) -> None:
        self._failure: AssertionError | None = None
        self.requests: list[ScriptedRequest] = []
        """What was asked, in order."""
        self.open_replies = 0
        """Replies begun and neither read to their end nor closed."""

    @abc.abstractmethod
    def _answer(self, request: ScriptedRequest) -> ScriptedReply:
        """Give the reply to a request that a provider would take."""
        ...

    def stream_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> ScriptedReply:
        """Answer one request."""
        request = ScriptedRequest(
            messages=[dict(message) for message in messages],
            tools=[dict(tool) for tool in tools or ()],
            options=options,
        )
        self.requests.append(request)
        try:
            check_messages(request.messages)
            return self._answer(request)
        except AssertionError as exc:
            self._failure = self._failure or exc
            raise

    def check(self) -> None:
        """Assert that no request failed and no reply was left open.

        Raises:
          AssertionError: one did, or was.

        """
        if self._failure is not None:
            raise AssertionError(f"a request failed: {self._failure}") from self._failure
        if self.open_replies:
            raise AssertionError(f"{self.open_replies} replies were left open")

    def __enter__(self) -> Self:
        """Give the model itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Check it, unless the block failed anyway."""
        if exc is None:
            self.check()


class ScriptedModel(_StrictModel):
    """A client that plays turns, strictly.

    A request that no turn is left for fails, and so does a conversation that a provider would
    refuse, or one of several agents that ask side by side: which turn is whose would be by chance.
    `check`, and leaving its ``with`` block, fail where a turn was not asked for, or a request
    failed before.

    Side by side are two tasks that live and have both asked. Not so are a task and one below it
    that it waits for, in ``nursery.start`` or at a nursery's end, or that it started behind its own
    last reply. No other waiting is seen, and whoever is over counts as waited for.

    Args:
      turns: One for each request; each a text, or a list of steps (see `Step`).

    Raises:
      TypeError: a turn is neither, or a step is none.
      ValueError: a step is a silence of less than no time.

    """

    def __init__(self, *turns: str | Iterable[Step]) -> None:
        super().__init__()
        self._turns = deque(as_turns(turns))
        self._is_ordered = any(turn != self._turns[0] for turn in self._turns)
        """Whether it matters who asks first."""
        self._asked: WeakKeyDictionary[Task, _Asked] = WeakKeyDictionary()
        """The last time that each task has asked."""

    def __repr__(self) -> str:
        return f"<ScriptedModel asked={len(self.requests)} left={len(self._turns)}>"

    def _answer(self, request: ScriptedRequest) -> ScriptedReply:
        """Play the next turn."""
        number = len(self.requests)
        if not self._turns:
            raise AssertionError(f"request {number}: no turn is left for it")
        reply = ScriptedReply(self, self._turns.popleft())
        if self._is_ordered and in_trio_task():
            self._check_order(number)
            self._asked[current_task()] = _Asked(reply)
        return reply

    def _check_order(self, number: int) -> None:
        task = current_task()
        above = dict(_above(task))
        for other, asked in self._asked.items():
            if other is task or _is_over(other):
                continue
            is_open = not asked.reply.is_over
            if (child := above.get(other)) is not None:
                is_beside = child in asked.beside or (is_open and not _is_awaited(child))
            else:
                is_beside = is_open or task not in asked.awaited_by
            if is_beside:
                raise AssertionError(
                    f"request {number}: {task.name} asks while {other.name}, which has asked too, "
                    "is at work: which turn is whose would be by chance. Give each agent that runs "
                    "beside others a ScriptedModel of its own, or all of them a FunctionModel"
                )

    def check(self) -> None:
        """Assert that each turn was asked for, and nothing else.

        Raises:
          AssertionError: a turn is left, a request failed, or a reply was left open.

        """
        if self._failure is None and self._turns:
            left = len(self._turns)
            raise AssertionError(f"{left} turn{'s were' if left > 1 else ' was'} not asked for")
        super().check()


class _Asked:
    """What matters of a task's request to those who ask after it."""

    def __init__(self, reply: ScriptedReply) -> None:
        task = current_task()
        self.reply = reply
        self.beside = WeakSet(
            child for nursery in task.child_nurseries for child in nursery.child_tasks
        )
        """The task's children then: who asks in them might have asked before it."""
        self.awaited_by = WeakSet(other for other, child in _above(task) if _is_awaited(child))
        """The tasks above that could not ask before it."""


def _is_over(task: Task) -> bool:
    return getattr(task.coro, "cr_frame", None) is None


def _above(task: Task) -> Iterator[tuple[Task, Task]]:
    """Each task that *task* is below, with the child of it that leads there."""
    while (nursery := task.parent_nursery) is not None:
        yield nursery.parent_task, task
        task = nursery.parent_task


def _is_awaited(task: Task) -> bool:
    """Whether its parent waits for it: at the end of its nursery, or in ``nursery.start``."""
    nursery = task.parent_nursery
    # Trio shows it in the parent's frames too, but none are seen through a simulated tool's driver.
    return nursery is not None and nursery._parent_waiting_in_aexit


class FunctionModel(_StrictModel):
    """A client that answers from a function of the request.

    It keeps no place, so any number of agents may ask it, in any order, and in every run anew. What
    it was asked is checked as by a `ScriptedModel`; an `AssertionError` of the function's own fails
    `check`, too.

    Args:
      fn: Gets a `ScriptedRequest`; gives a turn, which is a text or a list of steps (see `Step`).

    """

    def __init__(self, fn: Callable[[ScriptedRequest], str | Iterable[Step]]) -> None:
        super().__init__()
        self._fn = fn

    def __repr__(self) -> str:
        return f"<FunctionModel asked={len(self.requests)}>"

    def _answer(self, request: ScriptedRequest) -> ScriptedReply:
        """Ask the function; what it gives is a turn, or a `TypeError`."""
        [turn] = as_turns([self._fn(request)])
        return ScriptedReply(self, turn)


class _Counts(Protocol):
    """Whoever gives replies and wants to know how many are open."""

    open_replies: int


class ScriptedReply(AsyncIterator[Chunk], trio.abc.AsyncResource):
    """One turn on its way."""

    def __init__(self, model: _Counts, steps: Sequence[Step]) -> None:
        self._model = model
        self._steps = deque(_expand(steps))
        self._is_open = False
        self._is_closed = False

    @property
    def is_over(self) -> bool:
        """Whether nothing comes any more."""
        return self._is_closed

    async def __anext__(self) -> Chunk:
        """Give the next chunk."""
        self._open()
        try:
            return await self._next()
        except BaseException:
            self._close()
            raise

    async def _next(self) -> Chunk:
        await trio.lowlevel.checkpoint()
        while self._steps and not self._is_closed:
            step = self._steps.popleft()
            match step:
                case int() | float():
                    await trio.sleep(step)
                case BaseException():
                    raise step
                case _:
                    if step.is_final:
                        self._steps.clear()
                        self._close()
                    return step
        raise StopAsyncIteration

    def _open(self) -> None:
        if not self._is_open and not self._is_closed:
            self._is_open = True
            self._model.open_replies += 1

    def _close(self) -> None:
        self._is_closed = True
        if self._is_open:
            self._is_open = False
            self._model.open_replies -= 1

    async def aclose(self) -> None:
        """Leave the rest unsaid."""
        self._close()
        await trio.lowlevel.checkpoint()


def as_turns(given: Iterable[str | Iterable[Step]]) -> list[list[Step]]:
    """Write turns out as lists of steps.

    Raises:
      TypeError: a turn is neither a text nor a list of steps, or a step is none.
      ValueError: a step is a silence of less than no time.

    """
    turns: list[list[Step]] = []
    for number, turn in enumerate(given, start=1):
        if not isinstance(turn, str | Iterable) or isinstance(turn, bytes | Mapping):
            raise TypeError(
                f"turn {number}: expected a text or a list of steps, got {type(turn).__name__}"
            )
        steps: list[Step] = [turn] if isinstance(turn, str) else list(turn)
        for place, step in enumerate(steps, start=1):
            _check_step(f"turn {number}, step {place}", step)
        turns.append(steps)
    return turns


def _check_step(where: str, step: object) -> None:
    if isinstance(step, type) and issubclass(step, BaseException):
        raise TypeError(f"{where}: expected an exception, got the class {step.__name__}: call it")
    if isinstance(step, bool) or not isinstance(step, _STEPS):
        raise TypeError(f"{where}: expected {_EXPECTED}, got {type(step).__name__}")
    if isinstance(step, int | float) and not step >= 0:
        raise ValueError(f"{where}: expected seconds of silence from 0, got {step!r}")


def _expand(steps: Sequence[Step]) -> list[float | BaseException | Chunk]:
    """Write the steps out as what happens: silence, failures and chunks."""
    played: list[float | BaseException | Chunk] = []
    calls: list[ToolCall] = []
    usage = DEFAULT_USAGE
    for step in steps:
        match step:
            case str():
                played.append(Chunk(content=step))
            case ToolCall():
                played += _written(len(calls), step)
                calls.append(step)
            case Usage():
                usage = step
            case _Cut():
                return played
            case BaseException():
                return [*played, step]
            case Chunk():
                played.append(step)
                if step.is_final:
                    return played
            case _:
                played.append(step)
    reason: Any = "tool_calls" if calls else "stop"
    final = Chunk(
        is_final=True, tool_calls=calls, finish_reason=reason, raw_finish_reason=reason, usage=usage
    )
    return [*played, final]


def _written(index: int, call: ToolCall) -> list[Chunk]:
    raw = call.raw or json.dumps(call.arguments)
    half = len(raw) // 2
    return [
        Chunk(tool_args=[ToolArgs(index, call.id, call.name, text)])
        for text in (raw[:half], raw[half:])
    ]
