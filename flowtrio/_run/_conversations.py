"""The conversations of a run: each of its agents has one, and the events make it grow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flowtrio._core._events import AgentEvent, EventType
from flowtrio._core._parts import UserMessage
from flowtrio._core._transcript import Transcript


class Conversations(dict[str, Transcript]):
    """The conversations of the agents that are at work in one run, by path."""

    __slots__ = ("_heard", "_shown")

    _shown: dict[str, Sequence[dict[str, Any]]]
    _heard: tuple[Transcript, UserMessage]

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
                if transcript := self.get(event.agent):
                    transcript.note_start(data)
            case EventType.TOOL_CALL_END:
                # Whoever ran it: one agent's model may have asked for it, and another agent run it.
                shown = getattr(self, "_shown", {}).pop(data["call_id"], None)
                for transcript in self.values():
                    transcript.note_result(data, shown)
            case EventType.MESSAGE_COMPLETE:
                if transcript := self.get(event.agent):
                    transcript.note_message(data)
            case EventType.APPROVAL_REQUIRED:
                if transcript := self.get(event.agent):
                    transcript.note_approval(data)
            case EventType.USER_MESSAGE:
                transcript, said = self._heard
                transcript.hear(said)
            case EventType.AGENT_END:
                self.pop(event.agent, None)
            case _:
                pass
