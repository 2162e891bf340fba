"""`SimulatedModel`: a model whose whole behaviour is a value that was drawn beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import attrs

from flowtrio._core._chunks import Chunk, ToolCall
from flowtrio.clients._whole import Streaming

from ._code import AsCode
from ._requests import check_messages
from ._scripted import CUT, ScriptedReply, Step, as_turns

LAST_WORDS = "done"
"""What a model answers that has no turn left."""

Turns: TypeAlias = "Iterable[str | Iterable[Step]]"


class SimulatedFailure(Exception):
    """What a simulated model or tool raises where a failure was drawn."""


def _as_turns(given: Turns) -> tuple[tuple[Step, ...], ...]:
    if isinstance(given, str):
        raise TypeError("turns: expected a list of turns, got one text")
    return tuple(map(tuple, as_turns(given)))


@attrs.define(eq=False, repr=False)
class SimulatedModel(Streaming, AsCode):
    """A client that plays turns by how far a conversation has come, and may be asked at any time.

    Unlike a `ScriptedModel` it keeps no place of its own: the conversation's n-th reply is its n-th
    turn, and after the last one it answers a word and calls nothing. So several agents may share
    it, and the same conversation always gets the same reply. Calls of tools that it was not offered
    are left out, so that one model fits every agent of a run.
    """

    turns: tuple[tuple[Step, ...], ...] = attrs.field(
        default=(), converter=_as_turns, on_setattr=attrs.setters.frozen
    )
    """What it says, as for a `ScriptedModel`."""
    open_replies: int = attrs.field(default=0, init=False)
    """Replies begun and neither read to their end nor closed."""

    def stream_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> ScriptedReply:
        """Play the turn that the conversation has come to.

        Raises:
          AssertionError: a provider would refuse the conversation.

        """
        check_messages(messages)
        replies = sum(message["role"] == "assistant" for message in messages)
        turn = self.turns[replies] if replies < len(self.turns) else (LAST_WORDS,)
        offered = {tool["function"]["name"] for tool in tools or ()}
        return ScriptedReply(self, [*_played(turn, offered)])


def _played(turn: tuple[Step, ...], offered: set[str]) -> Iterator[Step]:
    for step in turn:
        match step:
            case ToolCall():
                if step.name in offered:
                    yield step
            case SimulatedFailure():
                # A new one each time: what is raised collects tracebacks.
                yield SimulatedFailure(*step.args)
            case _:
                yield step


# As JSON, for files from which a run is played again


def turns_to_json(turns: tuple[tuple[Step, ...], ...]) -> list[list[Any]]:
    """Give turns as JSON values.

    Raises:
      TypeError: a step has no such form: a `Usage`, or an exception that is no `SimulatedFailure`.

    """
    return [[_step_to_json(step) for step in turn] for turn in turns]


def turns_from_json(turns: list[list[Any]]) -> tuple[tuple[Step, ...], ...]:
    """Read what `turns_to_json` gave."""
    return tuple(tuple(_step_from_json(step) for step in turn) for turn in turns)


def _step_to_json(step: Step) -> Any:
    match step:
        case str() | int() | float():
            return step
        case ToolCall():
            return {"id": step.id, "name": step.name, "arguments": step.arguments, "raw": step.raw}
        case SimulatedFailure():
            return {"fails": str(step)}
        case Chunk() if step == Chunk(reset=step.reset, reasoning=step.reasoning):
            return {"reset": step.reset, "reasoning": step.reasoning}
        case _ if step is CUT:
            return {"cut": True}
        case _:
            raise TypeError(f"a step {type(step).__name__} cannot be written down")


def _step_from_json(step: Any) -> Step:
    match step:
        case {"id": id, "name": name, "arguments": arguments, "raw": raw}:
            return ToolCall(id, name, arguments, raw)
        case {"fails": text}:
            return SimulatedFailure(text)
        case {"reset": reset, "reasoning": reasoning}:
            return Chunk(reset=reset, reasoning=reasoning)
        case {"cut": True}:
            return CUT
        case str() | int() | float():
            return step
        case _:
            raise ValueError(f"no step of a turn: {step!r}")
