"""The conversations of a run: each of its agents has one, and the events make it grow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flowtrio._core._events import ROOT, AgentEvent, EventType
from flowtrio._core._parts import UserMessage
from flowtrio._core._transcript import Transcript

if TYPE_CHECKING:
    from ._info import RunInfo


class Conversations(dict[str, Transcript]):
    """The conversations of the agents that are at work in one run, by path."""

    __slots__ = ("_heard", "_info", "_shown")

    _shown: dict[str, Sequence[dict[str, Any]]]
    _heard: tuple[Transcript, UserMessage]

    def __init__(self, info: RunInfo) -> None:
        super().__init__()
        self._info = info

    def __missing__(self, path: str) -> Transcript:
        """Make the root agent's for whoever asks first: most runs that idle need none."""
        if path != ROOT:
            raise KeyError(path)
        return self.begin(self._info.history)

    def begin(self, history: Sequence[dict[str, Any]]) -> Transcript:
        """Begin the root agent's, behind what was said before."""
        transcript = self[ROOT] = Transcript(history, self._info.said, self._info.run_id)
        return transcript

    def _of(self, path: str) -> Transcript | None:
        return self[ROOT] if path == ROOT else self.get(path)

    def show(self, call_id: str, content: Sequence[dict[str, Any]]) -> None:
        """Have a model be shown *content* of a call's result, instead of what its END will tell."""
        try:
            self._shown[call_id] = content
        except AttributeError:
            # Made when it is needed: most runs that idle have nothing in it.
            self._shown = {call_id: content}

    def hear(self, transcript: Transcript, said: UserMessage) -> None:
        """Have the next USER_MESSAGE be *said*, with its images and files, and in *transcript*."""
        self._heard = (transcript, said)

    def note(self, event: AgentEvent) -> None:
        """An event may be a part of what was said."""
        data = event.data
        match event.type:
            case EventType.TOOL_CALL_START:
                if transcript := self._of(event.agent):
                    transcript.note_start(data)
            case EventType.TOOL_CALL_END:
                # Whoever ran it: one agent's model may have asked for it, and another agent run it.
                shown = getattr(self, "_shown", {}).pop(data["call_id"], None)
                for transcript in self.values():
                    transcript.note_result(data, shown)
            case EventType.MESSAGE_COMPLETE:
                if transcript := self._of(event.agent):
                    transcript.note_message(data)
            case EventType.APPROVAL_REQUIRED:
                if transcript := self._of(event.agent):
                    transcript.note_approval(data)
            case EventType.USER_MESSAGE:
                transcript, said = self._heard
                transcript.hear(said)
            case EventType.AGENT_END:
                self.pop(event.agent, None)
            case _:
                pass
