"""``flowtrio chat``: a conversation in the terminal.

::

    orchestrator, or a server ─ events ─ screen
                      ◄─ cancel, approve, deny, answer, post ─ keyboard

What is typed while a run goes on is said to it before the model's next reply; what no reply
follows is the next message. Ctrl-C cancels the run, and its end is shown like any other; a second
one leaves at once. Where the output is no terminal it is plain text: what the model says, and
nothing else. Whatever others wrote (a model, a tool, a server) reaches the terminal without control
characters.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import attrs
import msgspec
import trio

from flowtrio._core._events import AgentEvent, EventType
from flowtrio._core._parts import File, Part, Text

from ._keyboard import Keyboard, Lines
from ._screen import PlainScreen, Screen, printable
from ._sources import Run, Source

COMPLETED, FAILED, CANCELLED = 0, 1, 130
"""Exit statuses by outcome; 130 is a shell's for what Ctrl-C ended."""

_FRAME = 1 / 12
"""Seconds between two drawings of what moves."""

_PATIENCE = 2.0
"""Seconds in which what was decided is to be seen in the run's events."""

Message: TypeAlias = str | Sequence[Part]

STATUSES = {"completed": COMPLETED, "cancelled": CANCELLED}


@attrs.define(eq=False)
class Chat:
    """One conversation at a terminal."""

    source: Source
    screen: Screen
    keyboard: Lines = attrs.Factory(Keyboard)
    leave: Callable[[int], object] = os._exit
    """Ends the process at once: for whoever asks twice and does not want to wait for cleanup."""
    files: list[Part] = attrs.Factory(list)
    """What goes with the next message."""
    _run: Run | None = None
    _nursery: trio.Nursery = attrs.field(init=False)
    _prompts: dict[str, trio.CancelScope] = attrs.field(factory=dict, init=False)
    """Open prompts, by what they ask about."""
    _said: deque[Message] = attrs.field(factory=deque, init=False)
    """What was said to the run that goes on, until it is taken there."""

    async def talk(self, text: str | None) -> int:
        """Answer *text*, or what is typed until the input ends; give the exit status."""
        status = CANCELLED
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self._watch_signals)
            status = await (self._converse() if text is None else self._answer(self._message(text)))
            self._nursery.cancel_scope.cancel()
        return status

    async def _converse(self) -> int:
        status = COMPLETED
        while (message := await self._next_message()) is not None:
            async with trio.open_nursery() as listening:
                listening.start_soon(self._listen)
                status = await self._answer(message)
                listening.cancel_scope.cancel(reason="the run has ended")
            if status == CANCELLED:
                # Whoever stops a run does not want the next one to begin by itself.
                self._said.clear()
        return status

    async def _next_message(self) -> Message | None:
        """What was said too late for a run, or else what is typed now."""
        if self._said:
            return self._said.popleft()
        while (line := await self.keyboard.ask("> ")) is not None:
            if line.startswith(_FILE):
                self._attach(line.removeprefix(_FILE).strip())
            elif line.strip() or self.files:
                return self._message(line)
        return None

    def _attach(self, path: str) -> None:
        try:
            self.files.append(read_file(path))
        except (OSError, ValueError) as exc:
            sys.stderr.write(f"flowtrio: {printable(str(exc))}\n")

    async def _listen(self) -> None:
        """Say to the run what is typed while it goes on."""
        while True:
            line = await self.keyboard.overhear(_SAY, self.screen.paused)
            if line is not None and line.startswith(_FILE):
                self._attach(line.removeprefix(_FILE).strip())
            elif line is not None and line.strip():
                self._post(line)

    def _post(self, line: str) -> None:
        is_now = line.startswith(_NOW)
        text = line.removeprefix(_NOW).strip() if is_now else line
        if not text:
            return
        message = self._message(text)
        try:
            # Whether it was taken is told by the run: a server may refuse it without a word.
            if self._run is not None:  # The line was entered as the run ended.
                self._run.post(message, interrupt=is_now)
        except ValueError as exc:
            sys.stderr.write(f"flowtrio: {printable(str(exc))}\n")
        else:
            self._said.append(message)

    def _message(self, text: str) -> Message:
        """A text with the files that go with it."""
        files, self.files = self.files, []
        return [Text(text), *files] if files else text

    async def _answer(self, message: Message) -> int:
        status = FAILED
        async with self.source.start(message) as run:
            self._run = run
            with self.screen, self._redrawing():
                async for event in run:
                    self.screen.show(event)
                    self._withdraw(event)
                    if event.type in (EventType.APPROVAL_REQUIRED, EventType.INPUT_REQUIRED):
                        scope = self._prompts[_subject(event)] = trio.CancelScope()
                        self._nursery.start_soon(self._consult, run, event, scope)
                    elif event.type is EventType.USER_MESSAGE:
                        self._taken(event.data["message"])
                    elif event.type is EventType.DONE:
                        status = STATUSES.get(event.data["status"], FAILED)
        self._run = None
        return status

    def _taken(self, text: str) -> None:
        """What was said is in the conversation now, and said no more."""
        taken = (said for said in self._said if _text_of(said) == text)
        if (said := next(taken, None)) is not None:
            self._said.remove(said)

    @contextlib.contextmanager
    def _redrawing(self) -> Iterator[None]:
        """Have the screen drawn anew all the time, by this thread: no other prints on it."""
        scope = trio.CancelScope()
        self._nursery.start_soon(self._redraw, scope)
        try:
            yield
        finally:
            scope.cancel(reason="the run has ended")

    async def _redraw(self, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                await trio.sleep(_FRAME)
                self.screen.redraw()

    # The person

    async def _consult(self, run: Run, event: AgentEvent, scope: trio.CancelScope) -> None:
        """Ask in place, while the run's other events go on being shown."""
        is_question = event.type is EventType.INPUT_REQUIRED
        decide = self._answer_question if is_question else self._decide_call
        with scope:
            while True:
                try:
                    await decide(run, event.data)
                except ValueError as exc:
                    sys.stderr.write(f"{printable(str(exc))}\n")
                else:
                    # A server refuses what does not fit and does not say so here: asked once more.
                    await trio.sleep(_PATIENCE)

    async def _answer_question(self, run: Run, data: dict[str, Any]) -> None:
        schema = data.get("schema")
        hint = "" if schema is None else f"(JSON: {msgspec.json.encode(schema).decode()}) "
        text = await self._ask(printable(f"{data['prompt']} {hint}"))
        if text is None:
            run.dismiss(data["request_id"], "declined at the terminal")
        else:
            run.answer(data["request_id"], text)

    async def _decide_call(self, run: Run, data: dict[str, Any]) -> None:
        call_id, name = data["call_id"], data["tool_name"]
        arguments = msgspec.json.encode(data["arguments"]).decode()
        text = await self._ask(printable(f"Let {name} run with {arguments}? [y/N/e] "))
        match (text or "").strip().lower():
            case "y" | "yes":
                run.approve(call_id)
            case "e" | "edit":
                edited = await self._ask(printable(f"Arguments of {name} as JSON: "))
                run.approve(call_id, msgspec.json.decode(edited or "", type=dict[str, Any]))
            case _:
                run.deny(call_id, "denied at the terminal")

    async def _ask(self, prompt: str) -> str | None:
        with self.screen.paused():
            return await self.keyboard.ask(prompt, is_fresh=True)

    def _withdraw(self, event: AgentEvent) -> None:
        """Close the prompt whose question has been settled, by whomever."""
        scope = self._prompts.pop(_subject(event), None)
        if scope is not None:
            scope.cancel(reason="settled")

    async def _watch_signals(
        self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                self._interrupt()

    def _interrupt(self) -> None:
        if self._run is None:
            self._nursery.cancel_scope.cancel(reason=_INTERRUPTED)
        elif not self._run.cancel(_INTERRUPTED):
            self.screen.__exit__(None, None, None)
            self.keyboard.release()
            self.leave(CANCELLED)


_FILE = "/file "
"""What a line begins with that names a file for the next message."""

_NOW = "!"
"""What a line begins with for which the reply that is being written is cut."""

_SAY = "say> "
"""Before what is typed while a run goes on."""

_INTERRUPTED = "interrupted at the terminal"


def read_file(path: str) -> Part:
    """Read a file that is sent with a message; one of no known type has to be a text.

    Raises:
      OSError: it cannot be read.
      ValueError: it is nothing that can be sent.

    """
    try:
        return File(path=path)
    except ValueError as exc:
        try:
            file = File(path=path, media_type="text/plain")
            (file.data or b"").decode()
        except ValueError:
            raise exc from None
        return file


def _subject(event: AgentEvent) -> str:
    """The call or question that an event is about, or nothing."""
    match event.type:
        case EventType.APPROVAL_REQUIRED | EventType.TOOL_CALL_START | EventType.TOOL_CALL_END:
            return str(event.data["call_id"])
        case EventType.INPUT_REQUIRED | EventType.INPUT_RESOLVED:
            return str(event.data["request_id"])
        case _:
            return ""


def _text_of(message: Message) -> str:
    if isinstance(message, str):
        return message
    return "".join(part.text for part in message if isinstance(part, Text))


class EventScreen(PlainScreen):
    """Writes each event as a line of JSON: ``--events``."""

    def show(self, event: AgentEvent) -> None:
        """See `Screen`."""
        self.write(msgspec.json.encode(event).decode() + "\n")
