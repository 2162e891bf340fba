"""``flowtrio chat``: a conversation in the terminal.

::

    orchestrator, or a server ─ events ─ screen
                      ◄─ cancel, approve, deny, answer ─ keyboard

Ctrl-C cancels the run, and its end is shown like any other; a second one leaves at once. Where the
output is no terminal it is plain text: what the model says, and nothing else. Whatever others wrote
(a model, a tool, a server) reaches the terminal without control characters.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import termios
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

import attrs
import msgspec
import trio

from flowtrio._core._events import AgentEvent, AgentStatus, EventType
from flowtrio._core._exceptions import FlowtrioError
from flowtrio._core._parts import File, Part, Text
from flowtrio._hosting._orchestrator import Orchestrator

from ._screen import PlainScreen, Screen, printable

COMPLETED, FAILED, CANCELLED = 0, 1, 130
"""Exit statuses by outcome; 130 is a shell's for what Ctrl-C ended."""

_FRAME = 1 / 12
"""Seconds between two drawings of what moves."""

_PATIENCE = 2.0
"""Seconds in which what was decided is to be seen in the run's events."""

_STATUSES = {"completed": COMPLETED, "cancelled": CANCELLED}


class Run(AsyncIterable[AgentEvent], Protocol):
    """What a chat needs of a run, here or on a server: `flowtrio.EventStream` is one."""

    def cancel(self, reason: str | None = None) -> bool:
        """End it on purpose."""
        ...

    def approve(self, call_id: str, arguments: Mapping[str, Any] | None = None) -> bool:
        """Let a call begin."""
        ...

    def deny(self, call_id: str, reason: str | None = None) -> bool:
        """Refuse a call."""
        ...

    def answer(self, request_id: str, value: Any) -> bool:
        """Answer a question."""
        ...

    def dismiss(self, request_id: str, reason: str | None = None) -> bool:
        """Decline to answer one."""
        ...


class Source(Protocol):
    """Where a chat's runs are: an orchestrator in this process, or a server."""

    def start(self, message: str | Sequence[Part]) -> AbstractAsyncContextManager[Run]:
        """Start the run that answers *message*, in the chat's one conversation."""
        ...


@attrs.frozen
class LocalSource:
    """Runs in this process."""

    orchestrator: Orchestrator

    def start(self, message: str | Sequence[Part]) -> AbstractAsyncContextManager[Run]:
        """See `Source`."""
        return self.orchestrator.process_stream(message, session_id="chat")


class RemoteError(Exception):
    """A server cannot be reached, is lost, or refuses."""

    def __init__(self, message: str, *, has_begun: bool) -> None:
        super().__init__(message)
        self.has_begun = has_begun
        """Whether the run had begun."""


@attrs.frozen
class RemoteSource:
    """Runs on a server, all of one conversation."""

    url: str
    """Address of its WebSocket."""
    token: str | None = attrs.field(default=None, repr=False)
    patience: float = 30
    """Seconds without a connection after which a run is given up."""
    _session_id: str = attrs.Factory(lambda: secrets.token_urlsafe(16))

    @asynccontextmanager
    async def start(self, message: str | Sequence[Part]) -> AsyncIterator[Run]:
        """See `Source`."""
        # A chat without a server needs none of what this imports.
        from flowtrio.remote._connect import connect

        async with AsyncExitStack() as stack:
            opening = connect(self.url, token=self.token, patience=self.patience)
            try:
                remote = await stack.enter_async_context(opening)
            except ConnectionError as exc:
                raise RemoteError(str(exc), has_begun=False) from None
            run = remote.process_stream(message, self._session_id)
            await stack.enter_async_context(run)
            try:
                yield run
            except (KeyError, IndexError):
                raise  # of our own making, and no unknown run
            except (trio.BrokenResourceError, FlowtrioError, LookupError) as exc:
                has_begun = run.status is not AgentStatus.INITIALIZING
                raise RemoteError(_failure(exc, has_begun), has_begun=has_begun) from None


def _failure(exc: Exception, has_begun: bool) -> str:
    if isinstance(exc, trio.BrokenResourceError):
        return str(exc)
    return f"{'lost the run' if has_begun else 'no run'}: {exc}"


class Lines(Protocol):
    """Where the lines come from that are asked for."""

    async def ask(self, prompt: str, *, is_fresh: bool = False) -> str | None:
        """Ask on standard error, so that a redirected output stays clean; None at the end.

        Args:
          prompt: What is asked.
          is_fresh: Whether a line that was typed before the prompt is no answer to it.

        """
        ...


@attrs.define(eq=False)
class Keyboard:
    """Lines that a pipe brings, or that a person types whose terminal cannot edit them."""

    fd: int = 0
    """Standard input. It is read here and nowhere else, as its lines come: a thread that waited for
    one could not be woken when the chat ends."""
    _typed: bytes = b""
    _lock: trio.Lock = attrs.Factory(trio.Lock)

    async def ask(self, prompt: str, *, is_fresh: bool = False) -> str | None:
        """See `Lines`."""
        async with self._lock:
            if is_fresh and os.isatty(self.fd):
                termios.tcflush(self.fd, termios.TCIFLUSH)
                self._typed = b""
            sys.stderr.write(prompt)
            sys.stderr.flush()
            try:
                return await self._read_line()
            except trio.Cancelled:
                # Nobody answers any more: what is shown next begins on a line of its own.
                sys.stderr.write("\n")
                sys.stderr.flush()
                raise

    async def _read_line(self) -> str | None:
        while b"\n" not in self._typed:
            # Files are always readable, and refuse to be waited for.
            with contextlib.suppress(PermissionError):
                await trio.lowlevel.wait_readable(self.fd)
            if not (data := os.read(self.fd, 1 << 16)):
                line, self._typed = self._typed, b""
                return line.decode("utf-8", "replace") if line else None
            self._typed += data
        line, _, self._typed = self._typed.partition(b"\n")
        return line.decode("utf-8", "replace")


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

    async def talk(self, text: str | None) -> int:
        """Answer *text*, or what is typed until the input ends; give the exit status."""
        status = CANCELLED
        async with trio.open_nursery() as self._nursery:
            await self._nursery.start(self._watch_signals)
            status = await (self._converse() if text is None else self._answer(text))
            self._nursery.cancel_scope.cancel()
        return status

    async def _converse(self) -> int:
        status = COMPLETED
        while (line := await self.keyboard.ask("> ")) is not None:
            if line.startswith(_FILE):
                self._attach(line.removeprefix(_FILE).strip())
            elif line.strip() or self.files:
                status = await self._answer(line)
        return status

    def _attach(self, path: str) -> None:
        try:
            self.files.append(read_file(path))
        except (OSError, ValueError) as exc:
            sys.stderr.write(f"flowtrio: {printable(str(exc))}\n")

    async def _answer(self, text: str) -> int:
        status = FAILED
        message = [Text(text), *self.files] if self.files else text
        self.files = []
        async with self.source.start(message) as run:
            self._run = run
            with self.screen, self._redrawing():
                async for event in run:
                    self.screen.show(event)
                    self._withdraw(event)
                    if event.type in (EventType.APPROVAL_REQUIRED, EventType.INPUT_REQUIRED):
                        scope = self._prompts[_subject(event)] = trio.CancelScope()
                        self._nursery.start_soon(self._consult, run, event, scope)
                    elif event.type is EventType.DONE:
                        status = _STATUSES.get(event.data["status"], FAILED)
        self._run = None
        return status

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
            self.leave(CANCELLED)


_FILE = "/file "
"""What a line begins with that names a file for the next message."""

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


class EventScreen(PlainScreen):
    """Writes each event as a line of JSON: ``--events``."""

    def show(self, event: AgentEvent) -> None:
        """See `Screen`."""
        self.write(msgspec.json.encode(event).decode() + "\n")
