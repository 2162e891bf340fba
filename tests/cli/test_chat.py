"""A conversation at a terminal, with a screen and a keyboard of the test's own."""

from __future__ import annotations

import os
import pty
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from flowtrio import (
    Agent,
    Chunk,
    DemoClient,
    EventType,
    Limits,
    Orchestrator,
    RunContext,
    Text,
    tool,
)
from flowtrio._core._events import AgentEvent
from flowtrio.cli._chat import (
    CANCELLED,
    COMPLETED,
    FAILED,
    Chat,
    EventScreen,
    read_file,
)
from flowtrio.cli._keyboard import Keyboard
from flowtrio.cli._screen import PlainScreen
from flowtrio.cli._sources import LocalSource, RemoteError, RemoteSource
from flowtrio.testing import check_events
from flowtrio.wire._json import decode_json
from tests.support.fake_server import Connection, open_fake_server
from tests.support.ws_peer import open_server
from tests.testing.test_checks import answers


@attrs.define(eq=False)
class Shown(PlainScreen):
    """A screen that keeps what it is to show."""

    events: list[AgentEvent] = attrs.Factory(list)
    on: dict[str, Callable[[], object]] = attrs.Factory(dict)
    """What else is done when an event of a type, or a status with a reason, is shown."""
    pauses: int = 0
    is_left: bool = False

    def __exit__(self, *exc: object) -> None:
        self.is_left = True

    def show(self, event: AgentEvent) -> None:
        self.events.append(event)
        self.on.get(event.data.get("reason") or str(event.type), lambda: None)()

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.pauses += 1
        yield


@asynccontextmanager
async def typing(lines: str = "") -> AsyncIterator[tuple[Keyboard, int]]:
    """A keyboard on a pipe: what was typed before, and where to type more."""
    reader, writer = os.pipe()
    os.write(writer, lines.encode())
    try:
        yield Keyboard(reader), writer
    finally:
        os.close(reader)
        os.close(writer)


async def talk(
    agent: Any, text: str | None, lines: str = "", *, screen: Shown | None = None
) -> tuple[int, Shown]:
    """One conversation; the input ends behind *lines*."""
    screen = Shown() if screen is None else screen
    reader, writer = os.pipe()
    os.write(writer, lines.encode())
    os.close(writer)
    try:
        with trio.fail_after(30):
            async with Orchestrator(agents=[agent]) as orchestrator:
                chat = Chat(LocalSource(orchestrator), screen, Keyboard(reader))
                status = await chat.talk(text)
    finally:
        os.close(reader)
    return status, screen


def outcome(screen: Shown) -> tuple[str, Any]:
    data = screen.events[-1].data
    return data["status"], data["result"]


demo = Agent(llm_client=DemoClient(delay=0))


async def asks(ctx: RunContext, message: str) -> str:
    return await ctx.ask("Colour?")


async def needs(ctx: RunContext, message: str) -> bool:
    return await ctx.approve("paint", {"colour": "blue"})


async def fails(ctx: RunContext, message: str) -> None:
    raise ValueError("no")


async def waits(ctx: RunContext, message: str) -> None:
    await ctx.status("ready")
    await trio.sleep_forever()


# Outcomes


async def test_a_text_is_answered_and_that_is_all() -> None:
    status, screen = await talk(demo, "hello", "never read\n")

    assert status == COMPLETED
    assert outcome(screen)[0] == "completed"
    assert screen.is_left
    check_events(screen.events)


async def test_a_run_that_fails_gives_its_status() -> None:
    status, screen = await talk(fails, "hello")

    assert (status, outcome(screen)[0]) == (FAILED, "error")


async def test_lines_are_answered_one_after_another_in_one_conversation() -> None:
    status, screen = await talk(demo, None, "one\n\n  \ntwo")
    starts = [event.data for event in screen.events if event.type == "run_start"]

    assert status == COMPLETED
    assert [start["message"] for start in starts] == ["one", "two"]
    assert len({start["session_id"] for start in starts}) == 1


async def test_the_status_is_the_last_runs() -> None:
    assert (await talk(fails, None, "one\n\n"))[0] == FAILED
    assert (await talk(fails, None, ""))[0] == COMPLETED


# Somebody is asked


async def test_a_question_is_answered_in_place(capsys: pytest.CaptureFixture[str]) -> None:
    _, screen = await talk(asks, "hello", "blue\n")

    assert outcome(screen) == ("completed", "blue")
    assert screen.pauses == 1
    assert capsys.readouterr().err == "Colour? "


@pytest.mark.parametrize(
    ("line", "approved"),
    [
        ("y\n", True),
        ("YES \n", True),
        ("n\n", False),
        ("\n", False),
        ("yess\n", False),
        ("", False),
    ],
)
async def test_a_call_is_approved_by_yes_alone(
    line: str, approved: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    _, screen = await talk(needs, "hello", line)

    assert outcome(screen) == ("completed", approved)
    assert capsys.readouterr().err == 'Let paint run with {"colour":"blue"}? [y/N/e] '


async def test_a_question_is_declined_where_the_keyboard_has_ended() -> None:
    _, screen = await talk(asks, "hello", "")

    assert outcome(screen)[0] == "error"
    [resolved] = [e.data for e in screen.events if e.type == "input_resolved"]
    assert resolved["outcome"] == "declined"


async def test_an_answer_that_does_not_fit_is_asked_for_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def counts(ctx: RunContext, message: str) -> int:
        return await ctx.ask("How many?", int)

    _, screen = await talk(counts, "hello", "many\n3\n")

    assert outcome(screen) == ("completed", 3)
    assert capsys.readouterr().err == (
        'How many? (JSON: {"type":"integer"}) '
        "answer to q1: Expected `int`, got `str`\n"
        'How many? (JSON: {"type":"integer"}) '
    )


async def test_arguments_are_edited_before_they_are_approved() -> None:
    @tool(needs_approval=True)
    async def paint(colour: str) -> str:
        """Paint."""
        return colour

    async def paints(ctx: RunContext, message: str) -> Any:
        return await ctx.call(paint, colour="blue")

    _, screen = await talk(paints, "hello", 'e\n{"colour"\nedit\n{"colour": "red"}\n')

    assert outcome(screen) == ("completed", "red")


async def test_questions_are_asked_one_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    async def both(ctx: RunContext, message: str) -> list[str]:
        answers = {}

        async def ask(name: str) -> None:
            answers[name] = await ctx.ask(f"{name}?")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "a")
            await wait_all_tasks_blocked()
            nursery.start_soon(ask, "b")
        return [answers["a"], answers["b"]]

    _, screen = await talk(both, "hello", "1\n2\n")

    assert outcome(screen) == ("completed", ["1", "2"])
    assert capsys.readouterr().err == "a? b? "


async def test_hostile_prompts_reach_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    async def hostile(ctx: RunContext, message: str) -> None:
        await ctx.ask("\x1b[2JColour?")
        await ctx.approve("\x1b[2Jpaint", {"\x9b": "\u202e"})

    await talk(hostile, "hello", "blue\ny\n")
    err = capsys.readouterr().err

    assert "Colour?" in err
    assert "paint" in err
    assert not {"\x1b", "\x9b", "\u202e"} & set(err)


async def test_a_question_that_is_settled_elsewhere_is_withdrawn(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def impatient(ctx: RunContext, message: str) -> str:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ctx.ask, "Colour?")
                await wait_all_tasks_blocked()
                scope.cancel()
        return await ctx.ask("Size?")

    async with typing() as (keyboard, writer):
        screen = Shown()
        withdrawn = []

        def resolved() -> None:
            if not withdrawn:
                withdrawn.append(True)
                os.write(writer, b"5\n")

        screen.on["input_resolved"] = resolved
        with trio.fail_after(30):
            async with Orchestrator(agents=[impatient]) as orchestrator:
                await Chat(LocalSource(orchestrator), screen, keyboard).talk("hello")

    assert outcome(screen) == ("completed", "5")
    assert capsys.readouterr().err == "Colour? \nSize? "


# Ctrl-C


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


async def test_ctrl_c_cancels_the_run_and_shows_its_end() -> None:
    status, screen = await talk(waits, "hello", screen=Shown(on={"ready": interrupt}))

    assert status == CANCELLED
    assert outcome(screen)[0] == "cancelled"
    assert screen.events[-1].data["reason"] == "interrupted at the terminal"
    check_events(screen.events)


async def test_a_conversation_goes_on_after_a_run_was_cancelled() -> None:
    status, screen = await talk(waits, None, "one\ntwo\n", screen=Shown(on={"ready": interrupt}))

    assert status == CANCELLED
    assert [e.data["status"] for e in screen.events if e.type == "done"] == ["cancelled"] * 2


async def test_ctrl_c_at_the_prompt_leaves() -> None:
    async with typing() as (keyboard, _):
        with trio.fail_after(30):
            async with Orchestrator(agents=[demo]) as orchestrator, trio.open_nursery() as nursery:
                chat = Chat(LocalSource(orchestrator), Shown(), keyboard)
                statuses = []

                async def run() -> None:
                    statuses.append(await chat.talk(None))

                nursery.start_soon(run)
                await wait_all_tasks_blocked()
                interrupt()

    assert statuses == [CANCELLED]


async def test_a_second_ctrl_c_leaves_at_once_and_the_terminal_as_it_was() -> None:
    left = []
    released = trio.Event()

    async def stubborn(ctx: RunContext, message: str) -> None:
        try:
            await waits(ctx, message)
        finally:
            with trio.CancelScope(shield=True):
                interrupt()
                await released.wait()

    screen = Shown(on={"ready": interrupt})

    def leave(status: int) -> None:
        left.append((status, screen.is_left))
        released.set()

    async with typing() as (keyboard, _):
        with trio.fail_after(30):
            async with Orchestrator(agents=[stubborn]) as orchestrator:
                await Chat(LocalSource(orchestrator), screen, keyboard, leave).talk("hello")

    assert left == [(CANCELLED, True)]


# While a run goes on


@attrs.define(eq=False)
class Typist(Keyboard):
    """A person who types while a run goes on, once, and no more than this."""

    lines: list[str | None] = attrs.Factory(list)
    begin: trio.Event = attrs.Factory(trio.Event)
    """When they begin."""
    is_said: trio.Event = attrs.Factory(trio.Event)
    """All of it was taken from them."""

    async def overhear(self, prompt: str, paused: Callable[[], Any]) -> str | None:
        assert prompt == "say> "
        if not self.lines:
            self.is_said.set()
            await super().overhear(prompt, paused)
        await self.begin.wait()
        with paused():
            return self.lines.pop(0)


@attrs.define(eq=False)
class Told:
    """A model that says what it was asked, the first time when it is told to."""

    go: trio.Event

    async def stream_completion(self, messages: Any, **_: Any) -> AsyncIterator[Chunk]:
        said = [message["content"] for message in messages if message["role"] == "user"]
        yield Chunk(content=f"{said}")
        if len(said) == 1:
            await self.go.wait()
        yield Chunk(is_final=True, finish_reason="stop")


@asynccontextmanager
async def typist(
    *typed: str | None, kind: type[Typist] = Typist
) -> AsyncIterator[tuple[Typist, Shown]]:
    """Who says "go", and types that when something is shown of the answer."""
    reader, writer = os.pipe()
    os.write(writer, b"go\n")
    os.close(writer)
    keyboard = kind(reader, lines=list(typed))
    try:
        with trio.fail_after(30):
            yield keyboard, Shown(on={"message_chunk": keyboard.begin.set})
    finally:
        os.close(reader)


def told(screen: Shown, type: str, key: str) -> list[Any]:
    return [event.data[key] for event in screen.events if event.type == type]


async def test_what_is_typed_is_said_to_the_run() -> None:
    async with typist(None, " ", "!", "hurry", "now") as (keyboard, screen):
        async with Orchestrator(agents=[Agent(llm_client=Told(keyboard.is_said))]) as orchestrator:
            status = await Chat(LocalSource(orchestrator), screen, keyboard).talk(None)

    assert status == COMPLETED
    assert told(screen, "user_message", "message") == ["hurry", "now"]
    assert told(screen, "message_complete", "content") == ["['go']", "['go', 'hurry', 'now']"]
    # Nothing was shown while somebody typed.
    assert screen.pauses == 5
    check_events(screen.events)


@pytest.mark.parametrize("where", ["here", "there"])
async def test_an_exclamation_mark_cuts_the_reply(where: str) -> None:
    agent = Agent(llm_client=Told(trio.Event()))
    async with typist("! hurry") as (keyboard, screen), AsyncExitStack() as stack:
        source: LocalSource | RemoteSource
        if where == "here":
            orchestrator = await stack.enter_async_context(Orchestrator(agents=[agent]))
            source = LocalSource(orchestrator)
        else:
            source = RemoteSource((await stack.enter_async_context(open_server(agent))).url)
        await Chat(source, screen, keyboard).talk(None)

    assert told(screen, "message_complete", "finish_reason") == ["cancelled", "stop"]
    assert told(screen, "message_complete", "content")[-1] == "['go', 'hurry']"
    check_events(screen.events)


@pytest.mark.parametrize("where", ["here", "there"])
async def test_what_no_reply_follows_is_the_next_message(where: str, tmp_path: Any) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"\x89PNG\r\n\x1a\n")

    async def once(ctx: RunContext, message: str) -> list[Any]:
        async with ctx.message() as out:
            await out.write("well")
        await keyboard.is_said.wait()
        return await counts(ctx, message)

    lines = (f"/file {image}", "and this", "hurry")
    async with typist(*lines) as (keyboard, screen), AsyncExitStack() as stack:
        source: LocalSource | RemoteSource
        if where == "here":
            orchestrator = await stack.enter_async_context(Orchestrator(agents=[once]))
            source = LocalSource(orchestrator)
        else:
            source = RemoteSource((await stack.enter_async_context(open_server(once))).url)
        await Chat(source, screen, keyboard).talk(None)

    assert told(screen, "done", "result") == [["go"], ["and this", "image/png"], ["hurry"]]


async def test_a_line_that_is_entered_as_the_run_ends_is_the_next_message() -> None:
    @attrs.define(eq=False)
    class Late(Typist):
        """Whose last line comes when nobody listens any more."""

        async def overhear(self, prompt: str, paused: Callable[[], Any]) -> str | None:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                if not self.lines:
                    raise
            return self.lines.pop()

    async def once(ctx: RunContext, message: str) -> str:
        return message

    async with typist("hurry", kind=Late) as (keyboard, screen):
        async with Orchestrator(agents=[once]) as orchestrator:
            await Chat(LocalSource(orchestrator), screen, keyboard).talk(None)

    assert told(screen, "done", "result") == ["go", "hurry"]


async def test_whoever_stops_a_run_stops_what_was_said_to_it() -> None:
    async def once(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            await out.write("well")
        await keyboard.is_said.wait()
        interrupt()
        await trio.sleep_forever()

    async with typist("hurry") as (keyboard, screen):
        async with Orchestrator(agents=[once]) as orchestrator:
            status = await Chat(LocalSource(orchestrator), screen, keyboard).talk(None)

    assert status == CANCELLED
    assert told(screen, "run_start", "message") == ["go"]


async def test_what_is_too_long_is_told_and_the_run_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    limits = Limits(result_bytes=100)
    async with typist("x" * 200) as (keyboard, screen):
        agent = Agent(llm_client=Told(keyboard.is_said))
        async with Orchestrator(agents=[agent], limits=limits) as orchestrator:
            await Chat(LocalSource(orchestrator), screen, keyboard).talk(None)

    assert told(screen, "done", "status") == ["completed"]
    assert "message" in capsys.readouterr().err


# The keyboard


async def test_lines_come_in_pieces_and_several_at_once() -> None:
    async with typing("on") as (keyboard, writer), trio.open_nursery() as nursery:
        answers = []

        async def ask() -> None:
            answers.extend([await keyboard.ask(""), await keyboard.ask("")])

        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        os.write(writer, b"e\ntw\xffo\nthree")
    assert answers == ["one", "tw\ufffdo"]


async def test_a_file_can_be_typed_from(tmp_path: Any) -> None:
    path = tmp_path / "lines"
    path.write_text("one\ntwo")
    fd = os.open(path, os.O_RDONLY)
    try:
        keyboard = Keyboard(fd)
        lines = [await keyboard.ask("") for _ in range(3)]
    finally:
        os.close(fd)
    assert lines == ["one", "two", None]


async def test_what_was_typed_before_a_question_is_no_answer_to_it() -> None:
    """A `y` meant for something that was settled meanwhile approves nothing else."""
    master, slave = pty.openpty()
    try:
        keyboard = Keyboard(slave)
        os.write(master, b"first\nstale\n")
        assert await keyboard.ask("") == "first"
        os.write(master, b"y\n")
        answers = []

        async def ask() -> None:
            answers.append(await keyboard.ask("", is_fresh=True))

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await wait_all_tasks_blocked()
                os.write(master, b"fresh\n")
    finally:
        os.close(master)
        os.close(slave)
    assert answers == ["fresh"]


# Events as lines


async def test_events_are_written_as_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    with trio.fail_after(30):
        async with Orchestrator(agents=[demo]) as orchestrator:
            await Chat(LocalSource(orchestrator), EventScreen()).talk("hello \x1b")
    out = capsys.readouterr().out

    check_events([decode_json(line) for line in out.splitlines()])
    assert "\x1b" not in out


# On a server


async def test_a_run_on_a_server_is_decided_and_cancelled_here() -> None:
    async def agent(ctx: RunContext, message: str) -> str:
        colour = await ctx.ask("Colour?")
        if not await ctx.approve("paint", {"colour": colour}):
            return "not painted"
        assert not await ctx.approve("dry", {})
        await ctx.status("waiting for ever")
        await trio.sleep_forever()
        return "dry"

    screen = Shown()
    screen.on["waiting for ever"] = interrupt
    async with open_server(agent) as served, typing("blue\ny\nn\n") as (keyboard, _):
        status = await Chat(RemoteSource(served.url), screen, keyboard).talk("hello")

    check_events(screen.events)
    outcomes = [e.data["outcome"] for e in screen.events if e.type == "tool_call_end"]
    assert outcomes == ["ok", "denied"]
    assert status == CANCELLED


async def test_runs_on_a_server_are_one_conversation() -> None:
    screen = Shown()
    async with open_server(demo) as served, typing("one\ntwo\n") as (keyboard, _):
        # Behind the second run the person leaves, as at the prompt of any chat.
        source = RemoteSource(served.url)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Chat(source, screen, keyboard).talk, None)
            while sum(event.type == "done" for event in screen.events) < 2:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    first, second = [e for e in screen.events if e.type == "run_start"]
    assert first.data["session_id"] == second.data["session_id"]
    assert first.run_id != second.run_id


async def remote_error(source: RemoteSource) -> RemoteError:
    """What reading a run is refused with."""
    with pytest.raises(RemoteError) as caught:
        async with source.start("hello") as run:
            async for _ in run:
                pass
    return caught.value


async def test_a_wrong_token_is_told_and_never_shown() -> None:
    async with open_server(waits, token="good") as served:
        source = RemoteSource(served.url, token="bad-secret")
        error = await remote_error(source)

    assert "answers 401" in str(error)
    assert not error.has_begun
    assert "bad-secret" not in f"{error} {source!r}"


async def test_a_server_that_stays_away_is_lost() -> None:
    async def begin(peer: Connection) -> None:
        await peer.accept(command := await peer.take())
        await peer.give(*({**e, "run_id": command["run_id"]} for e in answers()[:3]))

    async with open_fake_server(begin, 403) as url:
        error = await remote_error(RemoteSource(url))

    assert (str(error), error.has_begun) == (f"lost {url}: the server answers 403", True)


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (0, "tenant_busy", "no run: come back later"),
        (3, "not_resumable", "lost the run: come back later"),
        (3, "replay_gap", "lost the run: come back later"),
    ],
)
async def test_a_run_that_a_server_refuses_is_told(given: int, code: str, words: str) -> None:
    async def begin(peer: Connection) -> None:
        await peer.accept(command := await peer.take())
        await peer.give(*({**e, "run_id": command["run_id"]} for e in answers()[:given]))

    async def reject(peer: Connection) -> None:
        reply = {"ref": (await peer.take())["ref"], "code": code, "error": "come back later"}
        await peer.give({"type": "rejected", **reply})
        await trio.sleep_forever()

    async with open_fake_server(begin, reject) as url:
        error = await remote_error(RemoteSource(url))

    assert (str(error), error.has_begun) == (words, given > 0)


async def test_a_mistake_of_our_own_is_no_servers_refusal() -> None:
    async with open_server(waits) as served:
        with pytest.raises(KeyError):
            async with RemoteSource(served.url).start("hello"):
                raise KeyError("mine")


# Files


async def counts(ctx: RunContext, message: str) -> list[Any]:
    return [message, *(part.media_type for part in ctx.parts if not isinstance(part, Text))]


async def test_files_go_with_the_next_message_and_no_other(tmp_path: Any) -> None:
    image, notes = tmp_path / "a.png", tmp_path / "notes.py"
    image.write_bytes(b"\x89PNG\r\n\x1a\n")
    notes.write_text("x = 1")
    lines = f"/file {image}\n/file {notes}\nhello\nagain\n/file {image}\n\n"
    _, screen = await talk(counts, None, lines)
    results = [event.data["result"] for event in screen.events if event.type is EventType.DONE]

    assert results == [["hello", "image/png", "text/plain"], ["again"], ["", "image/png"]]


async def test_a_file_that_cannot_be_sent_is_told_and_the_chat_goes_on(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    odd, empty = tmp_path / "odd.bin", tmp_path / "empty.txt"
    odd.write_bytes(b"\xff\xfe\x00")
    empty.touch()
    _, screen = await talk(counts, None, f"/file {odd}\n/file {empty}\n/file /none.png\nhello\n")
    told = capsys.readouterr().err

    assert outcome(screen)[1] == ["hello"]
    assert "expected media_type=" in told
    assert "at least one byte" in told
    assert "No such file" in told


async def test_a_file_of_the_command_line_is_sent_to_a_server_too(tmp_path: Any) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    screen = Shown()
    async with open_server(counts) as served, typing() as (keyboard, _):
        source = RemoteSource(served.url)
        chat = Chat(source, screen, keyboard, files=[read_file(str(path))])
        await chat.talk("hello")

    assert outcome(screen)[1] == ["hello", "image/png"]
