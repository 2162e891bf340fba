"""The calls that a model's reply asks for: which of them are answered, and running them.

`Agent` runs all calls of a reply. A body that asks a model itself answers them as it likes: all at
once, one by one, or by calling the same tool with the same arguments. Each is answered once; what
else a body calls is its own doing, and no model is told of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import trio
from trio.lowlevel import checkpoint_if_cancelled

from flowtrio._core._chunks import ToolCall
from flowtrio._core._failures import leaves
from flowtrio._core._transcript import result_text
from flowtrio._core._values import check_json, clean_text

from ._calls import ActiveCall, CallEnd
from ._tools import Tool

if TYPE_CHECKING:
    from flowtrio._run._frame import Frame


@attrs.define(eq=False)
class AskedCall:
    """A call that is to be run."""

    call_id: str
    message_id: str | None
    """The reply that asked for it; None for a call of the body's own."""
    call: ToolCall
    asked_by: Asked | None = None
    """Where it is unanswered, if nothing comes of this answer."""


@attrs.frozen
class CallResult:
    """What became of one call of a model's reply."""

    call: ToolCall
    """The call."""
    call_id: str
    """Its id in events."""
    outcome: str
    """``ok error timeout cancelled denied``, as its TOOL_CALL_END says."""
    value: Any
    """What the tool returned, as it returned it; None unless the outcome is ``ok``."""
    error: str | None
    """What went wrong, where something did."""
    _ended: dict[str, Any] = attrs.field(repr=False)

    @property
    def text(self) -> str:
        """What the model is told of it."""
        # Made only for those who ask: a result may be large.
        return result_text(self._ended)


class Asked:
    """The calls that models asked one body for, and that nobody has answered yet."""

    __slots__ = ("_calls", "_last")

    def __init__(self) -> None:
        self._calls: list[AskedCall] = []
        self._last: str | None = None

    def note(self, message_id: str, calls: Sequence[tuple[str, ToolCall]]) -> None:
        """A model's reply asks for these."""
        self._last = message_id
        self._calls += [AskedCall(call_id, message_id, call, self) for call_id, call in calls]

    def take(self, call: ToolCall) -> AskedCall | None:
        """Answer *call* now: the very one, else one that is equal to it, else one of its id."""
        return (
            self.take_very(call)
            or self._take(lambda asked: asked.call == call)
            or self._take(lambda asked: bool(call.id) and asked.call.id == call.id)
        )

    def take_very(self, call: ToolCall) -> AskedCall | None:
        """The same of the very one alone, for somebody else than the body that was given it."""
        return self._take(lambda asked: asked.call is call)

    def take_like(self, tool: Tool[..., Any], arguments: dict[str, Any]) -> AskedCall | None:
        """Answer the oldest call of the last reply that is one of *tool* with these arguments."""
        named = [
            asked
            for asked in self._calls
            if asked.message_id == self._last and asked.call.name == tool.name
        ]
        if not named or (wanted := _decoded(tool, arguments)) is None:
            return None
        same = [asked for asked in named if _decoded(tool, asked.call.arguments) == wanted]
        return self._take(lambda asked: asked is same[0]) if same else None

    def give_back(self, asked: AskedCall) -> None:
        """Nothing came of this answer, and no event tells of it: another one may come."""
        self._calls.append(asked)
        # The oldest is answered first, so it goes where it was.
        self._calls.sort(key=lambda other: int(other.call_id.removeprefix("c")))

    def _take(self, is_it: Callable[[AskedCall], bool]) -> AskedCall | None:
        for place, asked in enumerate(self._calls):
            if is_it(asked):
                return self._calls.pop(place)
        return None


def asked_of(frame: Frame) -> Asked | None:
    """The calls that models asked the body of *frame* for, if any did."""
    return frame.asked if isinstance(frame.asked, Asked) else None


def _find_asked(frame: Frame, call: ToolCall) -> AskedCall | None:
    """Answer *call* in *frame*, whoever around it was given it by a model."""
    unanswered = asked_of(frame)
    own = None if unanswered is None else unanswered.take(call)
    if own is not None:
        return own
    for outer in frame.around():
        unanswered = asked_of(outer)
        if unanswered is not None and (asked := unanswered.take_very(call)) is not None:
            # A START names a message of its own agent only.
            is_own = outer.agent == frame.agent
            return asked if is_own else attrs.evolve(asked, message_id=None)
    return None


@contextmanager
def answering(frame: Frame, calls: Sequence[AskedCall]) -> Iterator[None]:
    """Have those that were cut off before anything was told of them wait for another answer."""
    try:
        yield
    finally:
        law = frame.run.log.law
        for call in calls:
            if call.asked_by is not None and law.is_new(call.call_id):
                call.asked_by.give_back(call)


def asked_for(frame: Frame, call: ToolCall) -> AskedCall:
    """*call* as one that is to be run, and answered if nobody did that yet."""
    asked = _find_asked(frame, call)
    if asked is None:
        asked = AskedCall(frame.run.log.opened.new_id("c"), None, call)
    # The one that was given, which may have been edited; a copy, as others hold it too.
    given = call.arguments
    arguments = None if given is None else check_json(given, "arguments")
    return attrs.evolve(asked, call=attrs.evolve(call, arguments=arguments))


def asked_like(frame: Frame, tool: Tool[..., Any], given: dict[str, Any]) -> AskedCall:
    """The call of *tool* with these arguments that a model asked for, or one of the body's own."""
    arguments = check_json(given, "arguments", limit_bytes=frame.run.limits.result_bytes)
    unanswered = asked_of(frame)
    if unanswered is not None and frame.call_id is None:
        asked = unanswered.take_like(tool, arguments)
        if asked is not None:
            return attrs.evolve(asked, call=attrs.evolve(asked.call, arguments=arguments))
    call = ToolCall(id="", name=tool.name, arguments=arguments)
    return AskedCall(frame.run.log.opened.new_id("c"), None, call)


def _decoded(tool: Tool[..., Any], arguments: dict[str, Any] | None) -> bytes | None:
    """Arguments with the defaults filled in, to be compared; None if they do not fit the tool.

    As JSON, since values of one's own types need not know when they are equal, and 1 equals True.
    """
    if arguments is None:
        return None
    try:
        decoded = tool.decode(arguments)
    except ValueError:
        return None
    try:
        decoded = check_json(decoded, "arguments")
    except (TypeError, ValueError):
        # A type of one's own that only reads: what was given is compared.
        decoded = arguments
    return msgspec.json.encode(decoded, order="deterministic")


async def run_calls(
    frame: Frame, calls: Sequence[AskedCall], tools: Mapping[str, Tool[..., Any]]
) -> list[Answer]:
    """Run a reply's calls in parallel; gives the answer to each, in their order.

    The model is told of them by way of the conversation, which takes their results from the log.
    """
    answers = [Answer(frame, asked, tools) for asked in calls]
    if len(answers) == 1:
        await answers[0].run()
        return answers
    left = deque(answers)
    try:
        async with trio.open_nursery() as nursery:
            try:
                await checkpoint_if_cancelled()
                # Begun one after the other, they start in the model's order.
                for answered in answers:
                    if not answered.begin_nowait():
                        _spawn(nursery, left, answered)
                        await answered.begin()
            finally:
                # What is left where that was cut off has its end too.
                _spawn(nursery, left, None)
    except BaseExceptionGroup as group:
        # Nothing but Cancelled comes here, and callers want it bare.
        raise next(leaves(group)) from None
    return answers


def _spawn(nursery: trio.Nursery, left: deque[Answer], until: Answer | None) -> None:
    """Let those go on that stand before one of them."""
    while left and left[0] is not until:
        answered = left.popleft()
        nursery.start_soon(answered.run, name=answered.name)


class Answer:
    """The answer to one call of a reply, by the tool of its name if there is one."""

    __slots__ = ("_active", "_asked", "_tool", "_tools")

    def __init__(self, frame: Frame, asked: AskedCall, tools: Mapping[str, Tool[..., Any]]) -> None:
        self._asked = asked
        self._tools = tools
        self._tool = tools.get(asked.call.name)
        name = clean_text(asked.call.name)
        self._active = ActiveCall(frame, asked.call_id, name, asked.message_id)

    @property
    def name(self) -> str:
        """The name of its task."""
        return f"tool {self._active.tool_name} ({self._asked.call_id})"

    def begin_nowait(self) -> bool:
        """See `ActiveCall.begin_nowait`."""
        arguments = self._asked.call.arguments
        if self._tool is None or arguments is None:
            return True
        return self._active.begin_nowait(self._tool, arguments)

    async def begin(self) -> None:
        """See `ActiveCall.begin`."""
        arguments = self._asked.call.arguments
        assert self._tool is not None
        assert arguments is not None
        await self._active.begin(self._tool, arguments)

    def run(self) -> Coroutine[Any, Any, CallEnd]:
        """Run the call to its end."""
        if self._tool is None:
            known = ", ".join(self._tools) or "none"
            return self._active.refuse(f"there is no tool of that name; there are: {known}")
        return answer(self._active, self._tool, self._asked.call)

    def result(self) -> CallResult:
        """What became of it; it has ended."""
        asked, end, told = self._asked, self._active.end, self._active.ended
        assert end is not None
        assert told is not None
        return CallResult(asked.call, asked.call_id, end.outcome, end.value, end.error, told)


def answer(
    active: ActiveCall, tool: Tool[..., Any], call: ToolCall
) -> Coroutine[Any, Any, CallEnd]:
    """Run *tool* with the arguments of *call*: to be awaited."""
    if call.arguments is None:
        return active.refuse("the arguments are not a JSON object")
    return active.execute(tool, call.arguments)
