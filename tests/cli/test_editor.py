"""The chat in a terminal, as a person sees it: what stands on the screen, and what keys do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
from prompt_toolkit import PromptSession
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from flowtrio.cli._editor import _Prompt, _Withdrawn
from tests.support.command import environment
from tests.support.terminal import Terminal, open_terminal

AGENTS = '''
import trio

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
    """Ask, and go on when nobody answers."""
    with trio.move_on_after(1.5):
        await ctx.ask("Colour?")
    async with ctx.message() as out:
        await out.write("too late")
'''


@pytest.fixture(autouse=True)
def agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agents.py").write_text(AGENTS)
    monkeypatch.chdir(tmp_path)


def shows(text: str):
    return lambda terminal: text in "\n".join(terminal.everything)


# The screen


@pytest.mark.parametrize("rows", [6, 24, 50])
def test_after_many_long_answers_the_screen_shows_the_end_of_the_last_and_the_prompt(
    rows: int,
) -> None:
    turns = 30 if rows > 6 else 3
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
        for turn in range(30):
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
        before = termios.tcgetattr(terminal.master)
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
        assert termios.tcgetattr(terminal.master) == before
    assert b"Traceback" not in terminal.raw


def test_ctrl_d_ends_the_chat_with_the_last_runs_status() -> None:
    with open_terminal("chat", "--agent", "agents:echo") as terminal:
        terminal.until_prompt()
        terminal.type("\x04")

        assert terminal.end() == 0


@pytest.mark.parametrize("name", ["dumb", ""])
def test_a_terminal_that_cannot_edit_is_asked_line_by_line(name: str) -> None:
    with open_terminal("chat", "--agent", "agents:echo", TERM=name) as terminal:
        terminal.until(lambda t: t.cursor_line == ">")
        terminal.type("hello\n")
        terminal.until(shows("you said 'hello'"))
        terminal.until(lambda t: t.cursor_line == ">")
        terminal.type("\x04")

        assert terminal.end() == 0


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
