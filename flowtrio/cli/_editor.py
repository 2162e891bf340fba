"""Lines that a person types at a terminal, with editing, and the lines before by Up.

``prompt_toolkit`` edits them, in a thread of its own: it waits for its keys on a loop that is not
Trio's. A prompt that is withdrawn is told so there, and the thread leaves the terminal as it was.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
from typing import TYPE_CHECKING

import attrs
import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.history import DummyHistory, InMemoryHistory
from prompt_toolkit.input.typeahead import clear_typeahead
from prompt_toolkit.output.vt100 import Vt100_Output

if TYPE_CHECKING:
    from prompt_toolkit.history import History


@attrs.define(eq=False)
class LineEditor:
    """Asks a person; see `flowtrio.cli._chat.Lines`."""

    _lock: trio.Lock = attrs.Factory(trio.Lock)
    _messages: PromptSession[str] = attrs.Factory(lambda: _open(InMemoryHistory()))
    _answers: PromptSession[str] = attrs.Factory(lambda: _open(DummyHistory()))
    """For what is asked in between: a ``y`` is no line to come back to."""

    async def ask(self, prompt: str, *, is_fresh: bool = False) -> str | None:
        """Ask on standard error; None at the end, which is Ctrl-D."""
        async with self._lock:
            session = self._answers if is_fresh else self._messages
            if is_fresh:
                termios.tcflush(sys.stdin, termios.TCIFLUSH)
                clear_typeahead(session.input)
            try:
                return await _edit(session, prompt)
            except EOFError:
                return None
            except KeyboardInterrupt:
                # To the editor Ctrl-C is a key. It means here what it means at any other time.
                signal.raise_signal(signal.SIGINT)
                await trio.sleep_forever()


class _Withdrawn(Exception):
    """Nobody waits for the line any more."""


@attrs.define(eq=False)
class _Prompt:
    """A prompt that may be withdrawn from another thread, at any time."""

    session: PromptSession[str]
    text: str
    is_withdrawn: bool = False
    has_begun: bool = False

    def run(self) -> str:
        """Wait for the line, in the thread that is the editor's."""
        line: str = self.session.prompt(self.text, pre_run=self._begin, handle_sigint=False)
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
            app.exit(exception=_Withdrawn(), style="class:aborting")


async def _edit(session: PromptSession[str], text: str) -> str:
    """Wait for a line.

    Raises:
      EOFError: Ctrl-D was pressed.
      KeyboardInterrupt: Ctrl-C was.

    """
    prompt = _Prompt(session, text)
    raised: BaseException | None = None
    line = ""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_withdraw_when_cancelled, prompt)
        try:
            # The thread is always waited for: it has to leave the terminal as it was.
            with trio.CancelScope(shield=True):
                line = await trio.to_thread.run_sync(prompt.run)
        except _Withdrawn:
            await trio.lowlevel.checkpoint_if_cancelled()
        except BaseException as exc:
            raised = exc  # Not from within a nursery, which would put it into a group.
        nursery.cancel_scope.cancel(reason="the line is there")
    if raised is not None:
        raise raised
    return line


async def _withdraw_when_cancelled(prompt: _Prompt) -> None:
    try:
        await trio.sleep_forever()
    finally:
        prompt.withdraw()


def _open(history: History) -> PromptSession[str]:
    # Not every terminal answers when it is asked where its cursor is, and we need not know.
    output = Vt100_Output.from_pty(sys.stderr, term=os.environ.get("TERM"))
    output.enable_cpr = False
    return PromptSession(history=history, output=output, enable_suspend=True)
