"""Lines that a person types at a terminal, with editing, and the lines before by Up.

``prompt_toolkit`` edits them, in a thread of its own: it waits for its keys on a loop that is not
Trio's. A prompt that is withdrawn is told so there, and the thread leaves the terminal as it was.

While a run goes on the terminal does not show what is typed: a key opens a prompt of its own, and
what stands in it when it is withdrawn stands in the next one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import attrs
import outcome
import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.history import DummyHistory, InMemoryHistory
from prompt_toolkit.input.typeahead import clear_typeahead, get_typeahead, store_typeahead
from prompt_toolkit.output.vt100 import Vt100_Output

if TYPE_CHECKING:
    from prompt_toolkit.history import History


@attrs.define(eq=False)
class LineEditor:
    """Asks a person; see `flowtrio.cli._keyboard.Lines`."""

    _lock: trio.Lock = attrs.Factory(trio.Lock)
    _messages: PromptSession[str] = attrs.Factory(lambda: _open(InMemoryHistory()))
    _answers: PromptSession[str] = attrs.Factory(lambda: _open(DummyHistory()))
    """For what is asked in between: a ``y`` is no line to come back to."""

    _listening: trio.CancelScope | None = None
    """That of `overhear`, until a key is pressed: whoever asks comes first."""
    _draft: str = ""
    """What stood in a prompt of `overhear` that was withdrawn."""
    _found: list[Any] | None = None
    """The terminal's attributes, while they are not as they were."""

    async def ask(self, prompt: str, *, is_fresh: bool = False) -> str | None:
        """Ask on standard error; None at the end, which is Ctrl-D."""
        if self._listening is not None:
            self._listening.cancel(reason="somebody is asked")
        async with self._lock:
            session = self._answers if is_fresh else self._messages
            if is_fresh:
                termios.tcflush(sys.stdin, termios.TCIFLUSH)
                clear_typeahead(session.input)
                return await self._ask(_Prompt(session, prompt))
            draft, self._draft = self._draft, ""
            return await self._ask(_Prompt(session, prompt, draft))

    async def overhear(
        self, prompt: str, paused: Callable[[], AbstractContextManager[object]]
    ) -> str | None:
        """See `flowtrio.cli._keyboard.Lines`."""
        while True:
            async with self._lock:
                with self._silent():
                    with trio.CancelScope() as self._listening:
                        if not self._draft and not self._has_more():
                            await trio.lowlevel.wait_readable(sys.stdin)
                    was_asked, self._listening = self._listening.cancelled_caught, None
                    if not was_asked:
                        return await self._ask_typed(prompt, paused)

    def _has_more(self) -> bool:
        """Whether keys came with those of the line before: no others may follow them."""
        keys = get_typeahead(self._messages.input)
        store_typeahead(self._messages.input, keys)
        return bool(keys)

    async def _ask_typed(
        self, prompt: str, paused: Callable[[], AbstractContextManager[object]]
    ) -> str | None:
        typed = _Prompt(self._messages, prompt, self._draft)
        with paused():
            try:
                return await self._ask(typed)
            finally:
                self._draft = typed.left

    async def _ask(self, prompt: _Prompt) -> str | None:
        try:
            return await _edit(prompt)
        except EOFError:
            return None
        except KeyboardInterrupt:
            # To the editor Ctrl-C is a key. It means here what it means at any other time.
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()

    @contextlib.contextmanager
    def _silent(self) -> Iterator[None]:
        """Have the terminal keep keys for whoever asks next, and show none of them."""
        self._found = termios.tcgetattr(sys.stdin)
        silent = [*self._found]
        silent[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(sys.stdin, termios.TCSANOW, silent)
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """See `flowtrio.cli._keyboard.Lines`."""
        if self._found is not None:
            termios.tcsetattr(sys.stdin, termios.TCSANOW, self._found)
            self._found = None


class _Withdrawn(Exception):
    """Nobody waits for the line any more."""


@attrs.define(eq=False)
class _Prompt:
    """A prompt that may be withdrawn from another thread, at any time."""

    session: PromptSession[str]
    text: str
    draft: str = ""
    """What stands in it already."""
    left: str = ""
    """What stood in it when it was withdrawn."""
    is_withdrawn: bool = False
    has_begun: bool = False

    def run(self) -> str:
        """Wait for the line, in the thread that is the editor's."""
        line: str = self.session.prompt(
            self.text, default=self.draft, pre_run=self._begin, handle_sigint=False
        )
        return line

    def _begin(self) -> None:
        self.has_begun = True
        if self.is_withdrawn:
            self._leave()

    def withdraw(self) -> None:
        """Have `run` end, before or behind its beginning."""
        self.is_withdrawn = True
        loop = self.session.app.loop
        if self.has_begun and loop is not None:
            with contextlib.suppress(RuntimeError):  # It has ended by itself.
                loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        app = self.session.app
        if app.is_running and not app.is_done:
            self.left = self.session.default_buffer.text
            app.exit(exception=_Withdrawn(), style="class:aborting")


async def _edit(prompt: _Prompt) -> str:
    """Wait for a line; one that was entered as the caller was cancelled is given all the same.

    Raises:
      EOFError: Ctrl-D was pressed.
      KeyboardInterrupt: Ctrl-C was.

    """
    ended = trio.Event()
    outcomes: list[outcome.Outcome[str]] = []
    token = trio.lowlevel.current_trio_token()

    def end(how: outcome.Outcome[str]) -> None:
        outcomes.append(how)
        token.run_sync_soon(ended.set)

    trio.lowlevel.start_thread_soon(prompt.run, end)
    try:
        await ended.wait()
    except BaseException:
        prompt.withdraw()
        # The thread is always waited for: it has to leave the terminal as it was.
        with trio.CancelScope(shield=True):
            await ended.wait()
        if _is_withdrawal(outcomes[0]):
            raise
    return outcomes[0].unwrap()


def _is_withdrawal(ended: outcome.Outcome[str]) -> bool:
    return isinstance(ended, outcome.Error) and isinstance(ended.error, _Withdrawn)


def _open(history: History) -> PromptSession[str]:
    # Not every terminal answers when it is asked where its cursor is, and we need not know.
    output = Vt100_Output.from_pty(sys.stderr, term=os.environ.get("TERM"))
    output.enable_cpr = False
    return PromptSession(history=history, output=output, enable_suspend=True)
