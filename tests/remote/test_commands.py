"""Commands until they are replied to, and what replies and frames do."""

from __future__ import annotations

from typing import Any

import pytest
import trio

import flowtrio
from flowtrio import (
    AgentEvent,
    LimitExceeded,
    RemoteProtocolError,
    RunExists,
    StreamMode,
    project,
)
from flowtrio.remote._commands import Commands
from flowtrio.remote._remote_stream import RemoteStream
from flowtrio.testing import check_events
from tests.serving.test_resume import Counting
from tests.support.fake_server import Connection, open_fake_server
from tests.support.lossy import open_lossy
from tests.support.remote import connected, log_of, until_chunk
from tests.support.ws_peer import open_server
from tests.testing.test_checks import answers, asks_for_approval


@pytest.mark.parametrize("name", ["approve", "post"])
async def test_commands_without_a_reply_are_sent_again(name: str) -> None:
    def control(run: RemoteStream) -> bool:
        return run.approve("c1") if name == "approve" else run.post("in euros")

    taken = []

    async def lose_the_start(peer: Connection) -> None:
        taken.append(await peer.take())

    async def lose_the_control(peer: Connection) -> None:
        await peer.accept(command := await peer.take())
        taken.append(command)
        await peer.give(*log_of(command, asks_for_approval)[:5])
        taken.append(await peer.take())

    async def take(peer: Connection) -> None:
        await peer.accept(command := await peer.take())
        taken.append(await peer.take())
        await peer.give({"type": "rejected", "ref": taken[3]["ref"], "code": "x", "error": "y"})
        await peer.give(*log_of(command, asks_for_approval)[5:])
        await trio.sleep_forever()

    events = []
    scripts = (lose_the_start, lose_the_control, take)
    async with open_fake_server(*scripts) as url, flowtrio.connect(url) as remote:
        async with remote.process_stream("hello") as run:
            async for event in run:
                events.append(event)
                if event.seq == 4:
                    assert control(run)

    check_events(events)
    first, second, third, fourth = [{**command, "ref": 0} for command in taken]
    assert first == second
    assert third == fourth
    assert ("post_id" in third) == (name == "post")
    assert third["type"] == name


@pytest.mark.parametrize(
    "nonsense", ["no JSON", "[1]", '{"type": "mood", "seq": 3, "run_id": "r", "data": {}}']
)
async def test_what_is_no_frame_is_a_lost_connection(nonsense: str) -> None:
    async def speak(peer: Connection) -> None:
        await peer.accept(await peer.take())
        await peer.connection.send_message(nonsense)
        await trio.sleep_forever()

    async def answer(peer: Connection) -> None:
        await peer.accept(command := await peer.take())
        await peer.give(*log_of(command))
        await trio.sleep_forever()

    async with open_fake_server(speak, answer) as url, flowtrio.connect(url) as remote:
        check_events([event async for event in remote.process_stream("hello", run_id="r")])


def refuse_with(code: str, refs: Any = lambda ref: ref) -> Any:
    async def refuse(peer: Connection) -> None:
        reply = {"ref": refs((await peer.take())["ref"]), "code": code, "error": "not today"}
        await peer.give({"type": "rejected", **reply})
        await trio.sleep_forever()

    return refuse


async def answer_all(peer: Connection) -> None:
    await peer.accept(command := await peer.take())
    await peer.give(*log_of(command))
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("code", "ref"), [("shutting_down", lambda ref: ref), ("not_resumable", lambda ref: None)]
)
async def test_a_server_that_goes_or_lost_our_place_is_asked_again(code: str, ref: Any) -> None:
    refuse = refuse_with(code, ref)
    async with open_fake_server(refuse, answer_all) as url, flowtrio.connect(url) as remote:
        check_events([event async for event in remote.process_stream("hello")])


async def test_too_many_runs_are_a_limit() -> None:
    refuse = refuse_with("too_many_runs")
    async with open_fake_server(refuse) as url, flowtrio.connect(url) as remote:
        with pytest.raises(LimitExceeded) as caught:
            await remote.process("hello")

    assert caught.value.limit == "runs_per_connection"


async def test_another_message_under_a_runs_id_is_told_as_here() -> None:
    async with open_fake_server(refuse_with("run_exists")) as url:
        async with flowtrio.connect(url) as remote:
            with pytest.raises(RunExists) as caught:
                await remote.process("hello")

    assert caught.value.code == "run_exists"


async def test_an_unknown_refusal_is_told_with_its_code() -> None:
    async def refuse(peer: Connection) -> None:
        reply = {"ref": (await peer.take())["ref"], "code": "mood", "error": "not today"}
        await peer.give({"type": "rejected", **reply})
        await trio.sleep_forever()

    async with open_fake_server(refuse) as url, flowtrio.connect(url) as remote:
        with pytest.raises(RemoteProtocolError, match="not today") as caught:
            await remote.process("hello")

    assert caught.value.code == "mood"


@pytest.mark.parametrize("mode", ["events", "messages"])
async def test_a_run_that_was_left_on_this_line_is_read_from_its_beginning(mode: str) -> None:
    """The server goes on sending its events, and takes starting it for what it does already."""
    agent = Counting()
    async with open_server(agent) as served, connected(served) as there, connected(served) as here:
        async with there.process_stream("6", run_id="r") as owner:
            agent.go(2)
            await until_chunk(owner)
            async with here.attach("r") as left:
                await until_chunk(left)
            agent.go(2)
            await until_chunk(owner)
            async with here.process_stream("6", run_id="r", mode=mode) as again:
                agent.go(2)
                seen = [event async for event in again]
        whole = [event async for event in here.attach("r")]

    check_events(whole)
    assert seen == list(project(mode, whole))
    assert agent.started == 1


async def test_a_reply_for_a_stream_that_has_left_begins_nothing() -> None:
    async def reply_late(peer: Connection) -> None:
        for _ in range(2):
            command = await peer.take()
        # To the first, which has left, and then to the one that is there.
        await peer.accept({**command, "ref": command["ref"] - 1})
        await peer.give(*log_of(command)[2:4])
        await peer.accept(command)
        await peer.give(*log_of(command))
        await trio.sleep_forever()

    async with open_fake_server(reply_late) as url, flowtrio.connect(url) as remote:
        async with remote.attach("r"):
            await trio.testing.wait_all_tasks_blocked()
        check_events([event async for event in remote.attach("r")])


class Reader:
    """A stream of run ``r`` that misses what does not follow on what it has."""

    run_id = "r"
    _last = -1

    def __init__(self) -> None:
        self.seen: list[int] = []

    def _opening(self) -> dict[str, Any]:
        return {"type": "message"}

    def _resuming(self) -> dict[str, Any]:
        return {"type": "resume"}

    def _misses(self, event: AgentEvent, after: int | None) -> bool:
        return event.seq != len(self.seen)

    async def _take(self, event: AgentEvent) -> None:
        self.seen.append(event.seq)

    def _end(self) -> None:
        pytest.fail("it is not over")

    def _fail(self, failure: Exception) -> None:
        pytest.fail(f"it did not fail: {failure}")


async def reading(commands: Commands) -> Reader:
    """A stream that has begun, at the run's first event."""
    reader = Reader()
    commands.add(reader)
    await commands.take({"type": "accepted", "ref": (await commands.next())["ref"]})
    await commands.take(log_of({"run_id": "r"})[0])
    assert reader.seen == [0]
    return reader


async def test_what_comes_for_a_stream_that_has_left_is_not_given_to_the_next() -> None:
    commands = Commands()
    first, second = await reading(commands), Reader()
    commands.forget(first)
    log = log_of({"run_id": "r"})
    await commands.take(log[1])
    commands.add(second)
    # Such as this was on its way when the second was asked for.
    await commands.take(log[0])

    assert (first.seen, second.seen) == ([0], [])

    await commands.take({"type": "accepted", "ref": (await commands.next())["ref"]})
    await commands.take(log[0])

    assert second.seen == [0]


async def test_of_all_that_is_missing_only_the_first_is_asked_for() -> None:
    """What comes before the reply begins nothing anew, and is not read."""
    commands = Commands()
    reader = await reading(commands)
    log = log_of({"run_id": "r"})
    for event in (log[2], log[3], log[1]):
        await commands.take(event)
    asked = await commands.next()

    assert (asked["type"], reader.seen) == ("resume", [0])

    with trio.move_on_after(0):
        pytest.fail(f"it was asked for twice: {await commands.next()}")


@pytest.mark.parametrize("mode", StreamMode)
@pytest.mark.parametrize("mark", ["one", "two"])
async def test_an_event_that_was_lost_on_the_way_is_asked_for_in_every_mode(
    mode: StreamMode, mark: str
) -> None:
    """The very first too: the message is the first word."""
    async with open_lossy(mark) as url, flowtrio.connect(url) as remote:
        async with remote.process_stream("one", mode=mode) as stream:
            seen = [event async for event in stream]
        whole = [event async for event in remote.attach(stream.run_id)]

    assert seen == list(project(mode, whole))


@pytest.mark.parametrize("lost", [0, 2])
async def test_a_server_without_links_is_asked_again_where_a_number_is_missing(lost: int) -> None:
    taken = []

    async def lose(peer: Connection) -> None:
        await peer.accept(command := await peer.take())
        log = log_of(command)
        await peer.give(*log[:lost], *log[lost + 1 : -1])
        taken.append(command := await peer.take())
        # What was on its way when it heard that is of no use.
        await peer.give(log[-1])
        await peer.accept(command)
        await peer.give(*log[lost:])
        await trio.sleep_forever()

    async with open_fake_server(lose) as url, flowtrio.connect(url) as remote:
        check_events([event async for event in remote.process_stream("hello", run_id="r")])

    assert [(command["type"], command["after"]) for command in taken] == [("resume", lost - 1)]


async def test_without_links_the_holes_of_a_mode_are_no_gaps() -> None:
    async def skip(peer: Connection) -> None:
        await peer.accept(command := await peer.take())
        await peer.give(*log_of(command)[::2])
        await trio.sleep_forever()

    async with open_fake_server(skip) as url, flowtrio.connect(url) as remote:
        stream = remote.process_stream("hello", run_id="r", mode="messages")
        seen = [event.seq async for event in stream]

    assert seen == list(range(0, len(answers()), 2))
