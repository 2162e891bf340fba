"""The command line as a user meets it: other processes, signals, exit statuses."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from flowtrio import (
    DemoClient,
    MemoryConversations,
    MemoryStore,
    OpenAIClient,
    Orchestrator,
)
from flowtrio._run._body import agent_name
from flowtrio.cli import _main
from flowtrio.cli._load import UsageError, load, make_orchestrator, make_served
from flowtrio.testing import check_events
from tests.support.command import FLOWTRIO, environment, run, serving

DOCS: Final = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("serve", "--model", "gpt"), "--model gpt: expected one of demo, openai:NAME"),
        (("serve", "--agent", "nowhere"), "expected package.module:name"),
        (("serve", "--agent", "nowhere:x"), "there is no module 'nowhere'"),
        (("serve", "--agent", "json:x"), "'json' has no 'x'"),
        (("chat", "hi", "--agent", "json:decoder"), "--agent json:decoder"),
        (("serve", "--ws-port", "99999"), "expected a port from 0 to 65535, got '99999'"),
        (("serve", "--port", "x"), "expected a port from 0 to 65535, got 'x'"),
        (("serve", "--keep", "a while"), "expected a time such as 7d, 12h, 30m or 45s"),
        (("serve", "--keep", "0"), "expected more than 0, got '0'"),
        (("serve", "--resume-window", "-1"), "expected a time such as 7d"),
        (("serve", "--drain", "-1"), "expected a time such as 7d, 12h, 30m or 45s, got '-1'"),
        (("serve", "--limit-head", "big"), "expected a number, got 'big'"),
        (("serve", "--limit-head", "0"), "head=0): expected a number above 0"),
        (("serve", "--keyfile", "x"), "--keyfile needs --certfile"),
        (("serve", "--log-format", "xml"), "invalid choice: 'xml'"),
        ((), "COMMAND"),
        (("dance",), "invalid choice: 'dance'"),
        (("runs", "list", "--limit", "0"), "--limit: expected a whole number from 1, got '0'"),
        (("chat", "hi", "--loud"), "unrecognized arguments: --loud"),
        (("check",), "required: FILE"),
        (("timeline", "nowhere.jsonl", "-o"), "expected one argument"),
        (("chat", "hi", "--url", "http://x/"), "expected ws://host:port/path"),
        (("chat", "hi", "--url", "ws://[::1/"), "expected ws://host:port/path"),
        (("chat", "hi", "--url", "ws://.../"), "expected ws://host:port/path"),
        (("chat", "hi", "--url", "ws://127.0.0.1:99999/"), "expected ws://host:port/path"),
        (
            ("chat", "hi", "--url", "ws://x/", "--token", "a\nb"),
            "--token: expected printable ASCII",
        ),
        (("chat", "hi", "--url", "ws://x/", "--model", "demo"), "--model and --agent do not apply"),
        (("chat", "hi", "--file", "/none.png"), "--file: [Errno 2] No such file"),
        (("serve", "--limit-media-types", "png"), "expected types such as 'image/png'"),
        (("chat", "hi", "--token", "good"), "--token is for a server: it needs --url"),
        (("chat", "hi", "--url", "ws://127.0.0.1:1/"), "can't reach ws://127.0.0.1:1/chat: "),
    ],
)
def test_what_cannot_be_done_is_told_in_one_message(arguments: Any, words: str) -> None:
    ended = run(*arguments)

    assert ended.returncode == 2
    assert words in ended.stderr
    assert (ended.stderr.count("\n"), ended.stdout) == (1, "")


def test_an_agents_module_that_runs_a_program_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "program_of_mine.py").write_text("raise RuntimeError('ran')")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(RuntimeError, match="ran") as caught:
        load("program_of_mine:agent")

    [note] = caught.value.__notes__
    assert note.startswith("--agent program_of_mine:agent: 'program_of_mine' failed")
    assert "__main__" in note


def test_what_an_agents_module_lacks_is_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lacking.py").write_text("import not_installed_anywhere")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        load("lacking:agent")


def test_an_agent_is_served_with_the_model_that_is_named_and_an_orchestrator_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "travel.py").write_text(
        "from flowtrio import Agent, DemoClient, Orchestrator\n"
        "agent = Agent(llm_client=DemoClient(), name='travel')\n"
        "own = Orchestrator(agents=[agent])\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    monkeypatch.setattr(sys, "path", [*sys.path])

    served = make_orchestrator("openai:gpt-x", "travel:agent")
    own = make_orchestrator(None, "travel:own")

    clients = [agent.llm_client for made in (served, own) for agent in made.agents or ()]
    assert [type(client) for client in clients] == [OpenAIClient, DemoClient]


SERVED = """
from flowtrio import Agent, DemoClient, Orchestrator

async def agent(ctx, message): ...
def make_agent(name="made"): return Agent(llm_client=DemoClient(), name=name)
def make_function(): return agent
def make_orchestrator(): return Orchestrator(agents=[agent])
class Bot:
    async def __call__(self, ctx, message): ...
bot = Bot()
def wrapped(*args, **options): return agent(*args, **options)

async def slow(): return make_agent()
def one(message): return message
def nothing(): return None
def of_classes(): return Bot
def fails(): raise ValueError("no database")
several = [agent]
"""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "served.py").write_text(SERVED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "served", raising=False)


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("agent", "agent"),
        ("make_agent", "made"),
        ("make_function", "agent"),
        ("make_orchestrator", "agent"),
        ("Bot", "Bot"),
        ("bot", "Bot"),
        ("wrapped", "wrapped"),
    ],
)
def test_an_agent_is_what_is_named_or_what_that_makes(name: str, runs: str) -> None:
    [agent] = make_orchestrator(None, f"served:{name}").agents or ()

    assert agent_name(agent) == runs


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("slow", "--agent served:slow(): can't wait for a coroutine: expected an Agent, "),
        ("one", "--agent served:one: can't run what takes (message) as an agent: expected "),
        ("nothing", "--agent served:nothing(): can't run None as an agent: expected "),
        ("of_classes", "--agent served:of_classes(): can't run <class 'served.Bot'> as an agent"),
        ("several", "--agent served:several: can't run [<function agent at "),
    ],
)
def test_what_is_no_agent_and_makes_none_is_told_before_anything_runs(
    name: str, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        make_orchestrator(None, f"served:{name}")

    assert str(caught.value).startswith(words)
    assert str(caught.value).endswith("a plain function without arguments that makes one of these")


@pytest.mark.usefixtures("served")
def test_a_factory_that_fails_fails_as_its_own_traceback_says() -> None:
    with pytest.raises(ValueError, match="no database") as caught:
        make_orchestrator(None, "served:fails")

    assert caught.value.__notes__ == [
        "--agent served:fails takes no arguments, and was called to make an agent"
    ]


def test_what_cannot_be_asked_for_its_arguments_may_be_an_agent() -> None:
    assert make_served("builtins:dir") is dir


def test_a_model_without_its_key_is_told_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    ended = run("serve", "--model", "openai:gpt-x")

    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "OPENAI_API_KEY" in ended.stderr


# chat


def test_chat_in_a_pipe_is_the_models_text_alone() -> None:
    ended = run("chat", "Hello there", "--file", __file__)

    assert ended.returncode == 0
    assert ended.stdout.startswith("You asked") or ended.stdout.startswith("You said")
    assert "\x1b" not in ended.stdout


def test_chat_writes_a_log_that_check_takes(tmp_path: Path) -> None:
    log = run("chat", "A flight to Paris", "--events").stdout
    check_events([json.loads(line) for line in log.splitlines()])
    path = tmp_path / "log.jsonl"
    path.write_text(log)

    checked = run("check", str(path))
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.endswith("events, lawful\n")
    assert run("check", "-", text=log).returncode == 0


def test_check_names_the_event_that_breaks_a_law(tmp_path: Path) -> None:
    lines = run("chat", "A flight to Paris", "--events").stdout.splitlines()
    broken = run("check", "-", text="\n".join(lines[:5] + lines[6:]))

    assert broken.returncode == 1
    assert "not lawful" in broken.stdout
    assert "L1 is broken" in broken.stdout
    assert "expected seq 5, got 6" in broken.stdout


@pytest.mark.parametrize("text", ["", "hello", "[1]", '{"a": 1}', '{"type": "accepted"}'])
def test_check_tells_what_is_no_log(text: str) -> None:
    ended = run("check", "-", text=text)

    assert ended.returncode == 2
    assert ended.stderr.startswith("-: no log of events: ")


def test_check_tells_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    ended = run("check", str(tmp_path / "nothing"))

    assert ended.returncode == 2
    assert "No such file" in ended.stderr


ENDLESS = """
import trio

async def endless(ctx, message):
    async with ctx.message() as out:
        await out.write("begun")
        await trio.sleep_forever()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where there is an agent that never ends by itself: ``odd:endless``."""
    (tmp_path / "odd.py").write_text(ENDLESS)
    return tmp_path


def test_a_chat_that_is_interrupted_says_so(folder: Path) -> None:
    chat = subprocess.Popen(
        [*FLOWTRIO, "chat", "hello", "--agent", "odd:endless", "--events"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=folder,
    )
    assert chat.stdout is not None
    lines = [chat.stdout.readline()]
    while "message_chunk" not in lines[-1]:
        lines.append(chat.stdout.readline())
    chat.send_signal(signal.SIGINT)
    rest, errors = chat.communicate(timeout=60)

    events = [json.loads(line) for line in [*lines, *rest.splitlines()]]
    check_events(events)
    assert events[-1]["data"]["status"] == "cancelled"
    assert chat.returncode == 130
    assert "Traceback" not in errors


# chat, in a terminal and with a server


@contextmanager
def terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A chat in a terminal of its own, and the terminal's other side."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    chat = subprocess.Popen(
        [*FLOWTRIO, "chat", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        preexec_fn=take_terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(slave)
    try:
        yield chat, master
    finally:
        chat.kill()
        chat.wait()
        os.close(master)


def see(master: int, mark: str | None = None) -> str:
    """What the terminal shows up to a mark, or to the end; a minute is too long for anything."""
    seen = b""
    while mark is None or mark.encode() not in seen:
        assert select.select([master], [], [], 60)[0], seen
        try:
            # Byte by byte up to a mark: what stands behind it is for whoever looks next.
            data = os.read(master, 1 << 16 if mark is None else 1)
        except OSError:
            data = b""
        if not data:
            assert mark is None, f"ended before {mark!r}: {seen!r}"
            break
        seen += data
    return seen.decode("utf-8", "replace")


def test_a_terminal_shows_text_two_spinners_and_the_usage() -> None:
    with terminal("Book a flight to Paris") as (chat, master):
        shown = see(master)

        assert chat.wait(60) == 0
    frames = shown.split("\r\x1b[2K")
    assert any("You asked" in f and "search" not in f for f in frames), "no streaming text"
    both = [f for f in frames if "search_flights(" in f and "search_hotels(" in f]
    assert any(re.search("[⠀-⣿]", frame) for frame in both), "no two spinners at once"
    assert "airlines asked" in shown
    assert "tokens, " in re.sub(r"\x1b\[[0-9;]*m", "", shown)


def test_ctrl_c_in_a_terminal_ends_with_what_was_said_and_the_word_cancelled() -> None:
    with terminal("Book a flight to Paris") as (chat, master):
        see(master, "demonstration")
        os.write(master, b"\x03")
        rest = see(master)

        assert chat.wait(60) == 130
    assert "I am a demonstration" in rest
    assert "cancelled" in rest
    assert "Traceback" not in rest
    assert rest.rfind("\x1b[?25h") > rest.rfind("\x1b[?25l"), "the cursor stays hidden"


STUBBORN = """
import trio

async def stubborn(ctx, message):
    try:
        await ctx.status("begun")
        await trio.sleep_forever()
    finally:
        print("CLEANING", flush=True)
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()
"""


def test_a_second_ctrl_c_in_a_terminal_leaves_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    monkeypatch.chdir(tmp_path)
    with terminal("hello", "--agent", "stubborn:stubborn") as (chat, master):
        see(master, "begun")
        os.write(master, b"\x03")
        shown = see(master, "CLEANING")
        os.write(master, b"\x03")
        shown += see(master)

        assert chat.wait(60) == 130
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l"), "the cursor stays hidden"


def test_chat_with_a_server_is_like_one_without() -> None:
    with serving("--token", "good") as served:
        url = served.socket
        server = ("--url", url, "--token", "good")
        ended = run("chat", "Hello there", *server)
        log = run("chat", "A flight to Paris", "--events", *server).stdout
        refused = run("chat", "hi", "--url", url, "--token", "bad")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == run("chat", "Hello there").stdout
    check_events([json.loads(line) for line in log.splitlines()])
    assert refused.returncode == 2
    assert refused.stderr == (
        f"flowtrio: can't reach {url}: the server answers 401 (the token is missing or wrong)\n"
    )


def test_chat_tells_that_a_server_went_away_in_mid_run(folder: Path) -> None:
    with serving("--agent", "odd:endless", cwd=folder) as served:
        url = served.socket
        chat = subprocess.Popen(
            [*FLOWTRIO, "chat", "hello", "--url", url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert chat.stdout is not None
        begun = chat.stdout.read(5)
        served.process.kill()
        served.process.wait()
        with socket.create_server(("127.0.0.1", int(url.split(":")[2].split("/")[0]))) as taken:
            # Somebody else answers there now, who refuses what a chat asks for.
            taken.settimeout(60)
            peer, _ = taken.accept()
            peer.recv(4096)
            peer.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            peer.close()
            rest, errors = chat.communicate(timeout=60)

    assert chat.returncode == 1
    assert begun + rest == "begun\n"
    assert errors == f"flowtrio: lost {url}: the server answers 404\n"


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    chat = subprocess.Popen(
        [*FLOWTRIO, "chat", "A flight to Paris"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert chat.stdout is not None
    chat.stdout.read(1)
    chat.stdout.close()
    assert chat.stderr is not None
    errors = chat.stderr.read()
    chat.stderr.close()

    assert (chat.wait(60), errors) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has it")
@pytest.mark.parametrize(
    "arguments",
    [("chat", "A flight to Paris"), ("chat", "--events", "hi"), ("check", str(DOCS / "run.jsonl"))],
)
def test_a_disk_that_is_full_is_told_in_a_line(arguments: tuple[str, ...]) -> None:
    command = [*FLOWTRIO, *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)

    assert done.stderr.endswith("flowtrio: can't write: No space left on device\n")
    assert "Traceback" not in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("encoding", "word"), [("ascii", "\\u00e9 \\ud83d\\ude00"), ("utf-8", "é 😀")]
)
def test_what_a_place_has_no_bytes_for_is_escaped(encoding: str, word: str) -> None:
    """So lines of events are the same JSON everywhere, and nothing is a traceback."""
    done = subprocess.run(
        [*FLOWTRIO, "chat", "--events", "é 😀"],
        stdout=subprocess.PIPE,
        env={**environment(), "PYTHONIOENCODING": encoding},
        check=True,
    )
    lines = done.stdout.decode(encoding).splitlines()

    assert word in lines[0]
    assert json.loads(lines[0])["data"]["message"] == "é 😀"


def test_what_else_goes_wrong_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(options: Any) -> int:
        raise ExceptionGroup("two", [OSError(errno.ENOSPC, "full"), ValueError("odd")])

    monkeypatch.setattr(_main, "_check", fails)
    with pytest.raises(ExceptionGroup, match="two"):
        _main.main(["check", "-"])


# timeline


def test_timeline_draws_a_log(tmp_path: Path) -> None:
    log = run("chat", "A flight to Paris", "--events").stdout
    path = tmp_path / "out.svg"
    drawn = run("timeline", "-", "-o", str(path), text=log)

    assert (drawn.returncode, drawn.stdout, drawn.stderr) == (0, "", "")
    assert "search_hotels" in path.read_text(encoding="utf-8")
    assert run("timeline", "-", text=log).stdout == path.read_text(encoding="utf-8")


def test_timeline_draws_the_run_that_is_chosen() -> None:
    log = "".join(run("chat", text, "--events").stdout for text in ("one", "two"))
    first, last = (json.loads(log.splitlines()[place])["run_id"] for place in (0, -1))
    ended = run("timeline", "-", text=log)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert f"choose with --run one of its runs: {first}, {last}" in ended.stderr
    assert "“two”" in run("timeline", "-", "--run", last, text=log).stdout


@pytest.mark.parametrize(
    ("arguments", "text", "words"),
    [
        (("-",), "hello", "-: no log of events: line 1 is not JSON"),
        (("nowhere.jsonl",), "", "No such file"),
        (
            ("-", "-o", "/nowhere/x.svg"),
            '{"type": "done", "data": {}}',
            "can't write /nowhere/x.svg",
        ),
    ],
)
def test_timeline_tells_in_one_line_what_it_cannot_do(
    arguments: tuple[str, ...], text: str, words: str
) -> None:
    ended = run("timeline", *arguments, text=text)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_store_takes_the_place_of_an_orchestrators_own(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Orchestrator(llm_client=DemoClient(), runs_per_tenant=3, on_busy="reject")
    monkeypatch.setattr("flowtrio.cli._load.make_served", lambda name: own)
    stores = {"store": MemoryStore(), "conversations": MemoryConversations()}
    served = make_orchestrator(None, "mine:own", stores)

    assert (served.store, served.conversations) == (stores["store"], stores["conversations"])
    assert (served.runs_per_tenant, served.on_busy) == (3, "reject")
    assert make_orchestrator(None, "mine:own") is own
