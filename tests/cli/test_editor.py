"""The chat in a terminal, as a person sees it: what stands on the screen, and what keys do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from flowtrio.cli._editor import _edit, _Prompt, _Withdrawn
from tests.support.command import environment
from tests.support.terminal import Terminal, open_terminal
from tests.support.ws_peer import open_server

AGENTS = '''
from pathlib import Path

import trio

from flowtrio import Agent, Chunk

async def long(ctx, message):
    """Say many lines."""
    async with ctx.message() as out:
        for number in range(90):
            await out.write(f"line {number} of {message}\\n\\n")
            if number % 8 == 0:
                await trio.sleep(0.03)
        await out.write(f"the end of {message}")

async def echo(ctx, message):
    async with ctx.message() as out:
        await out.write(f"you said {message!r}")

async def asks(ctx, message):
    async with ctx.message() as out:
        colour = await ctx.ask("Colour?")
        await out.write(f"it is {colour!r}")

async def hurries(ctx, message):
    """Ask, and go on without an answer as soon as there is a file."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ctx.ask, "Colour?")
        while not Path("settled").exists():
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    async with ctx.message() as out:
        await out.write("too late")

class Talker:
    """Says lines until there is a file, and then what the user said last."""

    async def stream_completion(self, messages, tools=None, **_):
        said = [message["content"] for message in messages if message["role"] == "user"]
        if len(said) > 1:
            yield Chunk(content=f"you said {said[-1]!r}")
        number = 0
        while len(said) == 1 and not Path("enough").exists():
            yield Chunk(content=f"line {number}\\n\\n")
            number += 1
            await trio.sleep(0.01)
        yield Chunk(is_final=True, finish_reason="stop")

def talker():
    return Agent(llm_client=Talker())

async def stubborn(ctx, message):
    """Ends late."""
    try:
        await ctx.status("ready")
        await trio.sleep_forever()
    finally:
        Path("stopping").touch()
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()
'''


@pytest.fixture(autouse=True)
def agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agents.py").write_text(AGENTS)
    monkeypatch.chdir(tmp_path)


def shows(text: str):
    return lambda terminal: any(text in line for line in reversed(terminal.everything))


# The screen


@pytest.mark.parametrize("rows", [6, 24, 50])
def test_after_many_long_answers_the_screen_shows_the_end_of_the_last_and_the_prompt(
    rows: int,
) -> None:
    turns = 10 if rows > 6 else 3
    with open_terminal("chat", "--agent", "agents:long", rows=rows, columns=80) as terminal:
        terminal.until_prompt()
        for turn in range(turns):
            terminal.type(f"turn {turn}\n")
            terminal.until(shows(f"the end of turn {turn}"))
            terminal.until_prompt()

            # An answer is higher than the screen, which is full of it to its last line.
            *answer, end, usage, prompt = terminal.lines
            assert (end, prompt) == (f"the end of turn {turn}", ">")
            assert "tokens" in usage
            assert len(answer) >= rows - 5
        everything = terminal.everything

    said = [f"line {n} of turn {turn}" for turn in range(turns) for n in range(90)]
    assert [line for line in everything if line.startswith("line ")] == said


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
@pytest.mark.parametrize("rows", [24, 50])
def test_it_is_so_in_tmux(rows: int, tmp_path: Path) -> None:
    def tmux(*arguments: str) -> str:
        command = ["tmux", "-S", str(tmp_path / "socket"), "-f", "/dev/null", *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=20, env=environment()
        ).stdout

    def until(text: str) -> list[str]:
        for _ in range(600):
            lines = tmux("capture-pane", "-p").rstrip("\n").split("\n")
            if lines[-1] == ">" and text in "\n".join(lines):
                return lines
            time.sleep(0.05)
        pytest.fail(f"this is all: {lines}")

    chat = f"{sys.executable} -m flowtrio chat --agent agents:long"
    tmux("new-session", "-d", "-x", "80", "-y", str(rows), chat)
    try:
        until(">")
        for turn in range(10):
            tmux("send-keys", f"turn {turn}", "Enter")
            lines = until(f"the end of turn {turn}\n")

            assert lines[-3] == f"the end of turn {turn}"
            assert len(lines) >= rows - 2
    finally:
        tmux("kill-server")


# Editing


def ask(terminal: Terminal, keys: str, answer: str) -> None:
    terminal.type(keys)
    terminal.until(shows(answer))
    terminal.until_prompt()


def test_lines_are_edited_and_come_back_by_up() -> None:
    left, up, home, delete = "\x1b[D", "\x1b[A", "\x01", "\x1b[3~"
    with open_terminal("chat", "--agent", "agents:echo") as terminal:
        terminal.until_prompt()
        ask(terminal, f"helo{left}l\r", "you said 'hello'")
        ask(terminal, f"{home}second\r", "you said 'second'")
        ask(terminal, f"{up}{up} again\r", "you said 'hello again'")
        ask(terminal, f"{up}{home}{delete}J\r", "you said 'Jello again'")
        ask(terminal, "größe 漢字\x7f\r", "you said 'größe 漢'")
        # Several lines that are pasted are one message.
        ask(terminal, "\x1b[200~one\rtwo\x1b[201~\r", r"you said 'one\ntwo'")
        terminal.type("\x04")

        assert terminal.end() == 0


def test_an_answer_is_no_line_to_come_back_to() -> None:
    with open_terminal("chat", "--agent", "agents:asks") as terminal:
        terminal.until_prompt()
        terminal.type("first\r")
        terminal.until(lambda t: t.cursor_line == "Colour?")
        terminal.until(Terminal.is_quiet)
        ask(terminal, "blue\r", "it is 'blue'")
        terminal.type("\x1b[A")
        terminal.until(lambda t: t.cursor_line == "> first")


def test_a_prompt_that_is_settled_elsewhere_is_withdrawn_with_what_was_typed() -> None:
    with open_terminal("chat", "--agent", "agents:hurries") as terminal:
        terminal.until_prompt()
        terminal.type("go\r")
        terminal.until(lambda t: t.cursor_line == "Colour?")
        terminal.until(Terminal.is_quiet)
        terminal.type("blu")
        terminal.until(lambda t: t.cursor_line == "Colour? blu")
        Path("settled").touch()
        terminal.until(shows("too late"))
        terminal.until_prompt()

        assert "Colour? blu" in terminal.lines
        terminal.type("\x03")
        assert terminal.end() == 130


def test_an_approval_is_asked_in_place() -> None:
    with open_terminal("chat") as terminal:
        terminal.until_prompt()
        terminal.type("I approve of Rome\r")
        terminal.until(lambda t: t.cursor_line.endswith("[y/N/e]"))
        terminal.until(Terminal.is_quiet)
        terminal.type("y\r")
        terminal.until(shows("tokens"))
        terminal.until_prompt()

        assert "✓ book_trip(" in "\n".join(terminal.everything)


@pytest.mark.parametrize("how", ["key", "signal"])
@pytest.mark.parametrize("where", ["prompt", "question"])
def test_ctrl_c_where_a_line_is_typed_leaves_or_cancels_and_the_terminal_is_as_it_was(
    where: str, how: str
) -> None:
    with open_terminal("chat", "--agent", "agents:asks") as terminal:
        terminal.until_prompt()
        if where == "question":
            terminal.type("go\r")
            terminal.until(lambda t: t.cursor_line == "Colour?")
            terminal.until(Terminal.is_quiet)

        def interrupt() -> None:
            if how == "key":
                terminal.type("\x03")
            else:
                os.kill(terminal.process.pid, signal.SIGINT)

        interrupt()
        if where == "question":
            terminal.until(shows("cancelled: interrupted at the terminal"))
            terminal.until_prompt()
            interrupt()

        assert terminal.end() == 130
        assert terminal.is_as_found
    assert b"Traceback" not in terminal.raw


def test_ctrl_d_ends_the_chat_with_the_last_runs_status() -> None:
    with open_terminal("chat", "--agent", "agents:echo") as terminal:
        terminal.until_prompt()
        terminal.type("\x04")

        assert terminal.end() == 0


# While a run goes on


@contextmanager
def talking(*arguments: str) -> Iterator[Terminal]:
    """A run that goes on until there is the file ``enough``, or something is said to it."""
    with open_terminal("chat", *(arguments or ("--agent", "agents:talker"))) as terminal:
        terminal.until_prompt()
        terminal.type("first\r")
        terminal.until(shows("line 3"))
        yield terminal


def said(terminal: Terminal) -> list[str]:
    """The lines that the model said, as they stand on the screen in the end."""
    return [line for line in terminal.everything if line.startswith("line ")]


def check_typing(terminal: Terminal, *, may_be_late: bool = False) -> None:
    """What is typed is not mangled by what is said meanwhile; nothing of that is lost.

    Over a network it may come when no reply follows any more: then it is the next message.
    """
    terminal.type("hur")
    terminal.until(lambda t: t.cursor_line == "say> hur" and t.is_quiet())
    terminal.type("ry\x1b[D\x1b[D\x1b[D\x1b[D\x1b[DX\x08\r")
    # The empty line behind it is taken when this one has been said.
    terminal.type("\r")
    terminal.until(lambda t: {"say> hurry", "say>"} <= {*t.everything} and t.cursor_line != "say>")
    Path("enough").touch()
    terminal.until(shows("you said 'hurry'"))
    terminal.until_prompt()
    lines = said(terminal)

    told = [n for n, line in enumerate(terminal.everything) if line == "› hurry"]
    assert len(told) == 1 or (not told and may_be_late)
    assert lines == [f"line {number}" for number in range(len(lines))]
    assert all(n > terminal.everything.index(lines[-1]) for n in told)


def test_what_is_typed_while_a_run_goes_on_is_said_to_it_and_not_mangled() -> None:
    with talking() as terminal:
        check_typing(terminal)


async def test_so_it_is_with_a_server() -> None:
    sys.path.insert(0, "")
    try:
        import agents

        async with open_server(agents.talker()) as served:

            def check() -> None:
                with talking("--url", served.url) as terminal:
                    check_typing(terminal, may_be_late=True)

            await trio.to_thread.run_sync(check)
    finally:
        sys.path.remove("")
        sys.modules.pop("agents", None)


def test_lines_that_come_at_once_are_said_one_after_another() -> None:
    """As when several are pasted: no key follows that would tell of the second."""
    with talking() as terminal:
        terminal.type("one\rtwo\r")
        terminal.until(lambda t: {"say> one", "say> two"} <= {*t.everything})

        assert not Path("enough").exists()


def test_a_line_that_begins_with_an_exclamation_mark_cuts_the_reply() -> None:
    with talking() as terminal:
        terminal.type("! stop that\r")
        terminal.until(shows("you said 'stop that'"))
        terminal.until_prompt()

        assert not Path("enough").exists()


def test_what_stood_in_the_line_when_the_run_ended_stands_in_the_next() -> None:
    with talking() as terminal:
        terminal.type("half a")
        terminal.until(lambda t: t.cursor_line == "say> half a")
        Path("enough").touch()
        terminal.until(lambda t: t.cursor_line == "> half a" and t.is_quiet())
        terminal.type(" line\r")
        terminal.until(shows("you said 'half a line'"))
        terminal.until_prompt()


def test_an_empty_line_says_nothing_and_nothing_typed_is_shown_elsewhere() -> None:
    with talking() as terminal:
        terminal.type("\r")
        terminal.until(lambda t: "say>" in t.everything)
        Path("enough").touch()
        terminal.until_prompt()

        lines = said(terminal)
        assert lines == [f"line {number}" for number in range(len(lines))]
        assert not any("›" in line for line in terminal.everything)


@pytest.mark.parametrize("is_typing", [False, True])
def test_ctrl_c_while_a_run_goes_on_cancels_it_and_the_terminal_is_as_it_was(
    is_typing: bool,
) -> None:
    with open_terminal("chat", "--agent", "agents:talker") as terminal:
        terminal.until_prompt()
        terminal.type("first\r")
        terminal.until(shows("line 3"))
        if is_typing:
            terminal.type("hal")
            terminal.until(lambda t: t.cursor_line == "say> hal")
        terminal.type("\x03")
        terminal.until(shows("cancelled: interrupted at the terminal"))
        terminal.until(lambda t: t.cursor_line.startswith(">") and t.is_quiet())
        terminal.type("\x03")

        assert terminal.end() == 130
        assert terminal.is_as_found
    assert b"Traceback" not in terminal.raw


def test_a_second_ctrl_c_leaves_the_terminal_as_it_was() -> None:
    with open_terminal("chat", "--agent", "agents:stubborn") as terminal:
        terminal.until_prompt()
        terminal.type("go\r")
        terminal.until(shows("ready"))
        terminal.type("\x03")
        while not Path("stopping").exists():
            time.sleep(0.01)
        terminal.type("\x03")

        assert terminal.end() == 130
        assert terminal.is_as_found


@pytest.mark.parametrize("name", ["dumb", ""])
def test_a_terminal_that_cannot_edit_is_asked_line_by_line(name: str) -> None:
    with open_terminal("chat", "--agent", "agents:echo", TERM=name) as terminal:
        terminal.until(lambda t: t.cursor_line == ">")
        terminal.type("hello\n")
        terminal.until(shows("you said 'hello'"))
        terminal.until(lambda t: t.cursor_line == ">")
        terminal.type("\x04")

        assert terminal.end() == 0


class Late(_Prompt):
    """A prompt that ends as it is withdrawn, by a key that was pressed before."""

    is_withdrawn: threading.Event
    raises: type[BaseException] | None = None

    def run(self) -> str:
        assert self.is_withdrawn.wait(10)
        if self.raises is not None:
            raise self.raises
        return "hurry"

    def withdraw(self) -> None:
        self.is_withdrawn.set()


@pytest.mark.parametrize("raised", [None, EOFError, KeyboardInterrupt, _Withdrawn])
async def test_a_key_that_was_pressed_as_the_prompt_is_withdrawn_is_not_lost(
    autojump_clock: object, raised: type[BaseException] | None
) -> None:
    """The run may end while the editor's thread still tidies the terminal behind Enter."""
    prompt = Late(cast("PromptSession[str]", None), "> ")
    prompt.is_withdrawn, prompt.raises = threading.Event(), raised
    said: list[object] = []
    with trio.move_on_after(1) as scope:
        try:
            said.append(await _edit(prompt))
        except (EOFError, KeyboardInterrupt) as exc:
            said.append(type(exc))
        await trio.lowlevel.checkpoint()

    assert said == ([] if raised is _Withdrawn else [raised or "hurry"])
    assert scope.cancelled_caught


def test_a_prompt_that_is_withdrawn_before_it_begins_ends_as_it_begins() -> None:
    """As where the question was settled before the editor's thread had its turn."""
    outcome: list[object] = []
    with create_pipe_input() as keys:
        session: PromptSession[str] = PromptSession(input=keys, output=DummyOutput())
        prompt = _Prompt(session, "> ")
        prompt.withdraw()

        def run() -> None:
            try:
                outcome.append(prompt.run())
            except _Withdrawn as exc:
                outcome.append(type(exc))

        # One that hangs is not waited for.
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(10)

    assert outcome == [_Withdrawn]
