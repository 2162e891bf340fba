"""The user's word while an agent is at work: taken before each of its replies.

Only the run's root agent takes it: its turn loop, or its body, where that asks a model.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar

import trio

from flowtrio._core._events import ROOT
from flowtrio._core._fit import is_blank
from flowtrio._core._transcript import Reply

from ._model import Turn

if TYPE_CHECKING:
    from flowtrio._core._chunks import Completion, ToolCall
    from flowtrio._core._transcript import Transcript
    from flowtrio._run._frame import Frame
    from flowtrio.abc import LLMClient, Message

_C = TypeVar("_C")


class Listener:
    """One who takes what the user says, until there is no next reply of it.

    For any agent but the root it does nothing.
    """

    __slots__ = ("_frame", "_inbox", "_is_listening", "_transcript")

    def __init__(self, frame: Frame, transcript: Transcript) -> None:
        self._frame = frame
        self._transcript = transcript
        self._inbox = frame.run.inbox
        self._is_listening = False

    def __enter__(self) -> Self:
        """Listen: a turn loop begins."""
        if _is_root(self._frame):
            self._is_listening = True
            self._inbox.listeners += (self._transcript,)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def stop(self) -> None:
        """No reply follows that could take anything."""
        self._is_listening = False
        inbox = self._inbox
        inbox.listeners = tuple(t for t in inbox.listeners if t is not self._transcript)

    def listen_as_body(self) -> None:
        """A body asks a model, and may do so again."""
        self._is_listening = self._inbox.body_listens = True

    async def take(self) -> list[Message]:
        """Take what there is: told, and in the conversation. Gives it as a request has it."""
        taken: list[Message] = []
        frame, inbox = self._frame, self._inbox
        while self._is_listening and inbox.waiting:
            if not await frame.run.log.wait_for_room(frame):
                raise frame.closed("take what the user said")
            # Another one may have taken it meanwhile.
            if inbox.waiting:
                said = inbox.hear(frame.run.log, self._transcript, frame)
                taken.append({"role": "user", "content": said.content})
        return taken

    async def take_or_stop(self) -> bool:
        """Take what there is; or stop, in the step in which there is nothing. False then."""
        if await self.take():
            return True
        self.stop()
        return False

    async def ask(
        self,
        turn: Turn,
        messages: list[Message],
        tools: list[dict[str, Any]],
        options: dict[str, Any],
    ) -> tuple[Completion, list[tuple[str, ToolCall]]] | str:
        """Ask the model; gives what was said where the user cut the reply."""
        inbox, run = self._inbox, self._frame.run
        if not self._is_listening:
            return await turn.run_turn(messages, tools, options)
        scope = trio.CancelScope()
        inbox.replies += (scope,)
        try:
            with scope:
                return await turn.run_turn(messages, tools, options)
        except Exception as exc:
            if not scope.cancel_called or run.log.law.open_message(turn.message_id) is None:
                raise
            # It was told to stop, and broke while it did.
            run.note_error(exc, "model")
        finally:
            inbox.replies = tuple(other for other in inbox.replies if other is not scope)
        message = run.log.law.open_message(turn.message_id)
        run.log.close(turn.brackets())
        return "" if message is None else message.text.getvalue()


async def ask_model(
    frame: Frame,
    client: LLMClient,
    conversation: list[Message],
    tools: list[dict[str, Any]],
    options: dict[str, Any],
) -> tuple[Turn, Completion, list[tuple[str, ToolCall]]]:
    """Ask a model for a body, with what the user said meanwhile; anew where that cuts the reply."""
    user = Listener(frame, frame.transcript)
    if _is_root(frame):
        user.listen_as_body()
    while True:
        conversation = [*conversation, *await user.take()]
        # Running the calls, with `call`, is up to the agent: so they are none of the run's yet.
        reply = Reply(frame.run.log.opened.new_id("m"))
        if frame.call_id is None:
            frame.transcript.expect(reply)
        turn = Turn(frame, client, reply, writes_calls=False)
        try:
            told = await user.ask(turn, conversation, tools, options)
        except BaseException:
            frame.run.log.close(turn.brackets())
            raise
        if not isinstance(told, str):
            return turn, *told
        if not is_blank(told):
            conversation.append({"role": "assistant", "content": told})


async def ask_aside(
    delegate: Callable[[Callable[[_C, str], Awaitable[str]], str], Awaitable[str]],
    name: str,
    ask: Callable[[_C], Awaitable[Completion]],
) -> Completion:
    """Ask a model for what stands around models: as a nested agent, whose talk ends with it."""
    said: list[Completion] = []

    async def aside(ctx: _C, message: str) -> str:
        said.append(await ask(ctx))
        return said[0].content

    aside.__name__ = name
    await delegate(aside, "")
    return said[0]


def _is_root(frame: Frame) -> bool:
    return frame.agent == ROOT and frame.call_id is None
