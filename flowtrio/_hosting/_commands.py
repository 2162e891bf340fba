"""Commands for runs, wherever they live: asked of the process that runs them, and answered by it.

A command is posted to its run's owner, with a reference and where the reply goes. Nothing is taken
for done before that reply. Where none comes, the owner is looked up again: it may have another
name, or be gone, and then there is none until somebody has given the run its end. The same
reference is done once, however often it comes.
"""

from __future__ import annotations

import inspect
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec
import trio

from flowtrio._core._media import told_of
from flowtrio._core._parts import UserMessage, read_message
from flowtrio._core._telling import tell
from flowtrio._core._values import check_json, clean_text
from flowtrio._run._controls import Controls

from ._reaping import end_waiting

if TYPE_CHECKING:
    from flowtrio._run._stream import EventStream
    from flowtrio.abc import Listening, SharedStore

    from ._lease import Lease
    from ._recorder import Recorder

NAMES: Final = tuple(name for name in vars(Controls) if not name.startswith("_"))
"""The commands there are: the controls of a stream."""
_SILENCE: Final = 1.0
"""Seconds after which one who does not reply is asked again, if it is still the owner."""
_WITHIN: Final = 5.0
"""Seconds in which a command is accepted, or is not."""
_PAUSE: Final = 0.05
"""Seconds until a run is looked up again whose owner was not there."""
_MOST_ANSWERS: Final = 1000
"""Answers that are kept for those who ask again."""


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    ref: str
    reply_to: str
    tenant_id: str
    run_id: str
    name: str
    arguments: dict[str, Any]


class _Answered(msgspec.Struct, frozen=True, kw_only=True):
    ref: str
    is_known: bool = True
    """Whether the run lives there."""
    took_effect: bool = False
    error: str | None = None
    """Why what was given does not fit."""


_encode: Final = msgspec.json.Encoder().encode
_asked: Final = msgspec.json.Decoder(_Asked)
_answered: Final = msgspec.json.Decoder(_Answered)


def check_command(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A command's arguments as JSON.

    Raises:
      ValueError: there is no such command.
      TypeError: it has other arguments, or they are no JSON.

    """
    if name not in NAMES:
        raise ValueError(f"command {name!r}: expected one of {', '.join(NAMES)}")
    bound = inspect.signature(getattr(Controls, name)).bind(None, **arguments).arguments
    del bound["self"]
    if name == "post":
        said = read_message(bound["message"])
        bound["message"] = {"text": said.text, "parts": said.parts}
    given: dict[str, Any] = check_json(dict(bound), name)
    return given


def apply_command(stream: EventStream, name: str, given: Mapping[str, Any]) -> bool:
    """Do to a run here what `check_command` has read.

    Raises:
      ValueError: what is given does not fit what the run waits for.

    """
    if name not in NAMES:
        # Another process may know more than this one.
        raise ValueError(f"command {name!r}: expected one of {', '.join(NAMES)}")
    arguments = dict(given)
    if name == "post":
        said = arguments["message"]
        arguments["message"] = message_of(said["text"], said["parts"])
    took_effect: bool = getattr(stream, name)(**arguments)
    return took_effect


def message_of(text: str, parts: Any) -> UserMessage:
    """A user's message from its text and, where there is more, its content."""
    content = list(parts)
    return UserMessage(text, content or text, tuple(told_of(content)))


@attrs.define(eq=False)
class Commands:
    """Commands of and for one process."""

    store: SharedStore
    lease: Lease
    recorder: Recorder
    spawn: Callable[..., None]
    """Starts a task of the process."""
    _reply_to: str = attrs.field(factory=lambda: f"from:{secrets.token_hex(8)}", init=False)
    _listening: dict[str, Listening] = attrs.field(factory=dict, init=False)
    _waiting: dict[str, Callable[[_Answered], None]] = attrs.field(factory=dict, init=False)
    """Who waits for which reply."""
    _answers: OrderedDict[str, _Answered] = attrs.field(factory=OrderedDict, init=False)

    # Of this process

    async def listen_as(self, owner: str) -> None:
        """Take commands under a name, and under none that was used before; and replies."""
        await self._listen(self._reply_to, self._take_reply)
        await self._listen(f"to:{owner}", self._take)
        for channel in [*self._listening]:
            if channel not in (self._reply_to, f"to:{owner}"):
                self._listening.pop(channel).close()

    async def _listen(self, channel: str, callback: Callable[[bytes], None]) -> None:
        if channel not in self._listening:
            self._listening[channel] = await self.store.listen(channel, callback)

    def close(self) -> None:
        """Take no more."""
        while self._listening:
            self._listening.popitem()[1].close()

    async def command(
        self, tenant_id: str, run_id: str, name: str, given: dict[str, Any]
    ) -> bool | None:
        """Do something to a run, wherever it lives.

        Returns:
          Whether it took effect; None where there is no such run.

        Raises:
          ValueError: what is given does not fit.
          trio.TooSlowError: who runs it did not reply.

        """
        ref = secrets.token_hex(8)
        if name == "post":
            # Sent twice, it is said once, whoever has it by then.
            given["post_id"] = given.get("post_id") or ref
        with trio.move_on_after(_WITHIN):
            while True:
                hosted = self.recorder.runs.get((tenant_id, run_id))
                if hosted is not None and not hosted.is_apart:
                    return apply_command(hosted.stream, name, given)
                header = await self.store.header(tenant_id, run_id)
                if header is None:
                    return None
                if header.ended_at is not None:
                    return False
                if header.owner is not None:
                    asked = _Asked(
                        ref=ref,
                        reply_to=self._reply_to,
                        tenant_id=tenant_id,
                        run_id=run_id,
                        name=name,
                        arguments=given,
                    )
                    answer = await self._ask(header.owner, asked)
                    if answer is not None and answer.error is not None:
                        raise ValueError(answer.error)
                    if answer is not None and answer.is_known:
                        return answer.took_effect
                elif name != "cancel":
                    # It waits to be claimed, and so for nobody's answer.
                    return False
                elif self.lease.is_held:
                    reason = clean_text(given.get("reason") or "cancelled before it began")
                    if await end_waiting(self.store, header, self.lease.owner, reason):
                        return True
                await trio.sleep(_PAUSE)
        raise trio.TooSlowError(f"run {run_id!r}: who runs it did not reply")

    async def _ask(self, owner: str, asked: _Asked) -> _Answered | None:
        """Ask an owner; None where it is not there, or silent."""
        answers: list[_Answered] = []
        has_come = trio.Event()

        def take(answer: _Answered) -> None:
            answers.append(answer)
            has_come.set()

        self._waiting[asked.ref] = take
        try:
            if await self.store.send(f"to:{owner}", _encode(asked)):
                with trio.move_on_after(_SILENCE):
                    await has_come.wait()
        finally:
            del self._waiting[asked.ref]
        return answers[0] if answers else None

    def _take_reply(self, data: bytes) -> None:
        answer = _answered.decode(data)
        if (take := self._waiting.get(answer.ref)) is not None:
            take(answer)

    # For runs here

    def _take(self, data: bytes) -> None:
        asked = _asked.decode(data)
        answer = self._answers.get(asked.ref)
        if answer is None:
            answer = self._do(asked)
            if answer.is_known:
                self._answers[asked.ref] = answer
            if len(self._answers) > _MOST_ANSWERS:
                self._answers.popitem(last=False)
        self.spawn(self._reply, asked.reply_to, _encode(answer))

    def _do(self, asked: _Asked) -> _Answered:
        hosted = self.recorder.runs.get((asked.tenant_id, asked.run_id))
        if hosted is None or hosted.is_apart:
            return _Answered(ref=asked.ref, is_known=False)
        try:
            took_effect = apply_command(hosted.stream, asked.name, asked.arguments)
        except (TypeError, ValueError) as exc:
            return _Answered(ref=asked.ref, error=str(exc))
        return _Answered(ref=asked.ref, took_effect=took_effect)

    async def _reply(self, channel: str, data: bytes) -> None:
        try:
            await self.store.send(channel, data)
        except Exception as exc:
            # It is asked again.
            tell(logging.WARNING, "a reply to a command is not sent", exc=exc)
