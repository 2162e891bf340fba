from __future__ import annotations

import math
import time
from typing import Any, Final

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from flowtrio import AgentEvent, EventType, Orchestrator, ReplayGap, RunContext
from flowtrio.abc import RunHeader
from flowtrio.stores import memory
from flowtrio.stores._turns import whole_turns
from flowtrio.stores.memory import MemoryConversations, MemoryStore
from flowtrio.testing import check_events

PROPERTY: Final = settings(
    max_examples=200, deadline=None, database=None, derandomize=True, report_multiple_bugs=False
)


def says(role: str, content: str = "") -> dict[str, Any]:
    return {"role": role, "content": content}


def turns(*lengths: int) -> list[dict[str, Any]]:
    """Turns of so many messages each, every one begun by a user."""
    return [
        says("user" if place == 0 else "assistant", f"{turn}.{place}")
        for turn, length in enumerate(lengths)
        for place in range(length)
    ]


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# Keeping and forgetting


async def test_a_conversation_is_what_was_saved_last() -> None:
    store = MemoryConversations()
    await store.save("t", "s", turns(2))
    await store.save("t", "s", turns(2, 3))

    assert await store.load("t", "s") == turns(2, 3)
    assert len(store) == 1


async def test_an_unknown_conversation_is_empty() -> None:
    store = MemoryConversations()

    assert await store.load("t", "s") == []
    assert len(store) == 0


async def test_tenants_and_sessions_do_not_see_each_other() -> None:
    store = MemoryConversations()
    keys = [("a", "b"), ("b", "a"), ("a", "a"), ("", "ab"), ("ab", "")]
    for tenant, session in keys:
        await store.save(tenant, session, [says("user", f"{tenant}/{session}")])

    for tenant, session in keys:
        assert await store.load(tenant, session) == [says("user", f"{tenant}/{session}")]


async def test_a_deleted_conversation_is_gone_and_may_be_deleted_again() -> None:
    store = MemoryConversations()
    await store.save("t", "s", turns(1))
    await store.save("t", "other", turns(2))
    await store.delete("t", "s")
    await store.delete("t", "s")

    assert await store.load("t", "s") == []
    assert await store.load("t", "other") == turns(2)


async def test_a_list_that_was_saved_or_loaded_may_be_changed() -> None:
    store = MemoryConversations()
    given = turns(2)
    await store.save("t", "s", given)
    given.append(says("user", "later"))
    (await store.load("t", "s")).append(says("user", "later"))

    assert await store.load("t", "s") == turns(2)


# Bounds


async def test_old_turns_are_dropped_whole() -> None:
    store = MemoryConversations(max_messages=5)
    await store.save("t", "s", turns(2, 3, 2))

    assert await store.load("t", "s") == turns(2, 3, 2)[2:]


async def test_the_longest_unsaved_conversations_make_room() -> None:
    store = MemoryConversations(max_sessions=2)
    for session in ("a", "b", "a", "c"):
        await store.save("t", session, turns(1))

    assert len(store) == 2
    assert [bool(await store.load("t", session)) for session in "abc"] == [True, False, True]


async def test_a_conversation_is_forgotten_when_it_was_idle_for_too_long() -> None:
    clock = Clock()
    store = MemoryConversations(max_idle=60, clock=clock)
    await store.save("t", "a", turns(1))
    clock.now += 40
    await store.save("t", "b", turns(1))

    clock.now += 20
    assert await store.load("t", "a") == turns(1)
    clock.now += 0.5
    assert await store.load("t", "a") == []
    assert len(store) == 1
    assert await store.load("t", "b") == turns(1)
    clock.now += 60
    assert await store.load("t", "c") == []
    assert len(store) == 0


async def test_saving_forgets_the_idle_too_and_never_what_was_just_saved() -> None:
    clock = Clock()
    store = MemoryConversations(max_idle=60, max_sessions=1, clock=clock)
    await store.save("t", "a", turns(1))
    clock.now += 100
    await store.save("t", "b", turns(2))

    assert len(store) == 1
    assert await store.load("t", "b") == turns(2)


async def test_nothing_is_too_idle_for_a_store_that_waits_for_ever() -> None:
    clock = Clock()
    store = MemoryConversations(max_idle=math.inf, clock=clock)
    await store.save("t", "s", turns(1))
    clock.now = math.inf

    assert await store.load("t", "s") == turns(1)


async def test_a_large_conversation_loses_its_oldest_turns() -> None:
    store = MemoryConversations(max_bytes=150)
    long = [says("user", "x" * 50), says("assistant", "y" * 50), *turns(1)]
    await store.save("t", "s", long)
    assert await store.load("t", "s") == turns(1)

    await store.save("t", "s", [says("user", "x" * 500)])
    assert await store.load("t", "s") == []
    assert store._bytes == 0


async def test_large_conversations_make_room_for_each_other() -> None:
    store = MemoryConversations(max_total_bytes=500)
    for session in "abc":
        await store.save("t", session, [says("user", "x" * 200)])

    assert [bool(await store.load("t", session)) for session in "abc"] == [False, True, True]
    assert store._bytes < 500
    await store.delete("t", "b")
    await store.delete("t", "b")
    await store.save("t", "c", [])
    assert store._bytes == 0


async def test_what_has_no_json_form_is_kept_too() -> None:
    odd = [{"role": "user", "content": "a", "flowtrio": {"carry": object()}}]
    store = MemoryConversations()
    await store.save("t", "s", odd)

    assert await store.load("t", "s") == odd
    assert store._bytes > 50


def test_a_store_is_bounded_unless_told_otherwise() -> None:
    store = MemoryConversations()
    mebibyte = 1024 * 1024

    assert (store.max_messages, store.max_idle, store.max_sessions) == (200, 86_400, 10_000)
    assert (store.max_bytes, store.max_total_bytes) == (16 * mebibyte, 256 * mebibyte)
    assert store.clock is time.monotonic


async def test_what_is_kept_is_not_shown_in_its_repr() -> None:
    store = MemoryConversations()
    await store.save("t", "s", [says("user", "my secret")])

    assert "secret" not in repr(store)


# Whole turns


@pytest.mark.parametrize(
    ("lengths", "limit", "kept"),
    [
        ((), 5, 0),
        ((3,), 3, 3),
        ((3,), 4, 3),
        ((3,), 2, 0),
        ((2, 3), 5, 5),
        ((2, 3), 4, 3),
        ((2, 3), 3, 3),
        ((2, 3), 2, 0),
        ((1, 1, 1), 2, 2),
        ((2, 2, 2), 5, 4),
        ((2, 2), 0, 0),
    ],
)
def test_a_turn_is_kept_whole_or_not_at_all(
    lengths: tuple[int, ...], limit: int, kept: int
) -> None:
    messages = turns(*lengths)

    assert whole_turns(messages, limit) == messages[len(messages) - kept :]


def test_what_no_user_began_is_no_turn() -> None:
    assert whole_turns([says("assistant"), says("tool")], 5) == []
    assert whole_turns([says("assistant"), {}, says("user", "a")], 5) == [says("user", "a")]


def check_turns(cut: Any) -> None:
    @PROPERTY
    @given(st.lists(st.sampled_from(["user", "assistant", "tool"])), st.integers(0, 12))
    def agree(roles: list[str], limit: int) -> None:
        messages = [says(role, f"{place}") for place, role in enumerate(roles)]
        kept = cut(messages, limit)
        dropped = messages[: len(messages) - len(kept)]

        assert dropped + kept == messages
        assert len(kept) <= limit
        assert not kept or kept[0]["role"] == "user"
        # Nothing more could have been kept.
        room = limit - len(kept)
        assert "user" not in [message["role"] for message in dropped[max(0, len(dropped) - room) :]]

    agree()


def test_as_much_is_kept_as_fits() -> None:
    check_turns(whole_turns)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda messages, limit: list(messages[-limit:]),
        lambda messages, limit: list(messages[max(0, len(messages) - limit) :]),
        lambda messages, limit: whole_turns(messages, limit - 1),
        lambda messages, limit: whole_turns(messages, limit + 1),
    ],
)
def test_a_cut_through_a_turn_is_found_out(wrong: Any) -> None:
    with pytest.raises(AssertionError):
        check_turns(wrong)


# Logs of hosted runs: `flowtrio.testing.check_event_store` asks the rest


def note(seq: int, size: int = 1) -> AgentEvent:
    data = {"name": "n", "value": "x" * size}
    return AgentEvent(EventType.CUSTOM, data, seq, "r", "root", 1.0)


def end(seq: int) -> AgentEvent:
    return AgentEvent(EventType.DONE, {"status": "completed"}, seq, "r", "root", 1.0)


async def store_run(store: MemoryStore, run_id: str, events: list[AgentEvent]) -> None:
    await store.create(
        RunHeader(
            tenant_id="t", run_id=run_id, session_id=None, agent="a", message="m", created_at=0.0
        )
    )
    for event in events:
        await store.append("t", run_id, event.seq - 1, [event])


async def test_a_log_is_a_ring_of_so_many_events() -> None:
    store = MemoryStore(max_events=10)
    await store_run(store, "r", [note(seq) for seq in range(25)])

    assert [e.seq for e in await store.read("t", "r", 14, 100)] == list(range(15, 25))
    for after in (-1, 0, 13):
        with pytest.raises(ReplayGap) as caught:
            await store.read("t", "r", after, 100)
        assert (caught.value.oldest, caught.value.after) == (15, after)


async def test_a_log_is_a_ring_of_so_many_bytes() -> None:
    store = MemoryStore(max_bytes=10_000)
    await store_run(store, "r", [note(seq, 1000) for seq in range(25)])

    with pytest.raises(ReplayGap) as caught:
        await store.read("t", "r", -1, 100)
    assert caught.value.oldest is not None
    assert 25 - caught.value.oldest in (8, 9)


async def test_an_event_that_is_larger_than_all_is_not_kept() -> None:
    store = MemoryStore(max_bytes=1000)
    await store_run(store, "r", [note(0, 2000)])

    with pytest.raises(ReplayGap) as caught:
        await store.read("t", "r", -1, 100)
    assert caught.value.oldest is None
    assert list(await store.read("t", "r", 0, 100)) == []


@pytest.mark.parametrize(
    "limit", [{"max_total_events": 25}, {"max_total_bytes": 2500}, {"max_ended_runs": 2}]
)
async def test_where_all_is_too_much_the_longest_ended_are_forgotten(limit: Any) -> None:
    store = MemoryStore(**limit)
    await store_run(store, "on", [note(0)])
    for number in range(6):
        await store_run(store, f"r{number}", [*(note(seq) for seq in range(9)), end(9)])
    kept = [header.run_id for header in await store.list("t")]

    assert kept == ["on", "r4", "r5"]
    assert len(store) == 3


async def test_where_nothing_has_ended_the_one_that_appends_loses_its_oldest() -> None:
    store = MemoryStore(max_total_events=25)
    await store_run(store, "one", [note(seq) for seq in range(20)])
    await store_run(store, "two", [note(seq) for seq in range(20)])

    assert len(await store.read("t", "one", -1, 100)) == 20
    assert [e.seq for e in await store.read("t", "two", 14, 100)] == list(range(15, 20))
    with pytest.raises(ReplayGap):
        await store.read("t", "two", 13, 100)


# Chunks that come together are kept without their events


def chunk(seq: int, text: str = "é", **other: Any) -> AgentEvent:
    data = {"chunk": text, "message_id": other.pop("message_id", "m1")} | other.pop("data", {})
    return AgentEvent(EventType.MESSAGE_CHUNK, data, seq, "r", other.pop("agent", "root"), seq / 8)


HEADER: Final[dict[str, Any]] = {
    "tenant_id": "t",
    "run_id": "r",
    "session_id": None,
    "agent": "a",
    "message": "hi",
    "created_at": 0.0,
    "owner": "o",
}

MIXED: Final = [
    *[chunk(seq, f"{seq}ü") for seq in range(5)],
    *[chunk(seq, message_id="m2") for seq in (5, 6)],
    chunk(7, message_id="m1", agent="root/a"),
    chunk(8, message_id="m3", data={"more": 1}),
    *[chunk(seq, message_id="m3") for seq in (9, 10, 11)],
    AgentEvent(EventType.CUSTOM, {"name": "n", "value": 1}, 12, "r", "root", 2.0),
    *[chunk(seq, message_id="m3") for seq in (13, 14, 15)],
]
"""Chunks of several messages and agents, one with a key of its own, and another event."""


@given(st.lists(st.integers(1, 7), min_size=1, max_size=16), st.integers(1, 16))
@PROPERTY
def test_however_they_come_events_are_read_as_they_were(sizes: list[int], kept: int) -> None:
    async def fill() -> None:
        store = MemoryStore(max_events=kept)
        await store.create(RunHeader(**HEADER))
        appended = 0
        for size in sizes:
            if events := MIXED[appended : appended + size]:
                await store.append("t", "r", appended - 1, events)
                appended += len(events)
        oldest = max(0, appended - kept)
        for after in range(oldest - 1, appended):
            for limit in (1, 3, 100):
                read = await store.read("t", "r", after, limit)
                assert list(read) == MIXED[after + 1 : min(appended, after + 1 + limit)]
        if oldest:
            with pytest.raises(ReplayGap):
                await store.read("t", "r", oldest - 2, 1)

    trio.run(fill)


async def test_dropping_an_event_gives_back_what_it_counted() -> None:
    store = MemoryStore(max_events=1)
    await store.create(RunHeader(**HEADER))
    await store.append("t", "r", -1, MIXED)
    await store.append("t", "r", 15, [chunk(16, "last")])
    alone = MemoryStore()
    await alone.create(RunHeader(**HEADER))
    await alone.append("t", "r", -1, [chunk(0, "last")])

    assert store._bytes == alone._bytes == store._logs["t", "r"].size


@pytest.mark.parametrize(
    "small",
    [
        {"max_events": 1},
        {"max_bytes": 1},
        {"max_total_events": 1},
        {"max_total_bytes": 1},
        {"max_ended_runs": 0},
        {"max_ended_runs": 1, "max_total_events": 20},
    ],
)
async def test_a_store_that_is_full_loses_logs_and_says_so(small: Any, autojump_clock: Any) -> None:
    """Who follows from the beginning on sees it all; who comes late is told what is gone."""

    async def gushes(ctx: RunContext, message: str) -> str:
        async with ctx.message() as out:
            for number in range(20):
                await trio.sleep(0.1)
                await out.write(f"{number} ")
        return message

    told: list[type] = []
    logs: list[list[AgentEvent]] = []

    async def follow(run_id: str, delay: float) -> None:
        await trio.sleep(delay)
        try:
            async with orchestrator.attach(run_id) as stream:
                logs.append([event async for event in stream])
        except Exception as exc:
            told.append(type(exc))

    orchestrator = Orchestrator(agents=[gushes], store=MemoryStore(**small))
    async with orchestrator, trio.open_nursery() as nursery:
        for run_id in ("a", "b", "c"):
            await orchestrator.start("hi", run_id=run_id)
            for delay in (0, 0.5, 30):
                nursery.start_soon(follow, run_id, delay)

    assert len(logs) >= 3
    for log in logs:
        check_events(log)
        assert log[-1].data["status"] == "completed"
    assert told
    assert set(told) <= {LookupError, ReplayGap}


async def test_who_reads_a_long_log_piece_by_piece_has_each_event_made_about_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, make = [0], memory.Chunks.events

    def counting(chunks: Any) -> list[AgentEvent]:
        events = make(chunks)
        made[0] += len(events)
        return events

    monkeypatch.setattr(memory.Chunks, "events", counting)
    store, length, piece = MemoryStore(), 6000, 100
    header = RunHeader(
        tenant_id="t", run_id="r", session_id=None, agent="a", message="", created_at=0.0
    )
    await store.create(header)
    data = {"chunk": "word", "message_id": "m1"}
    for first in range(0, length, 30):
        batch = [
            AgentEvent(EventType.MESSAGE_CHUNK, data, seq, "r", "root", 0.0)
            for seq in range(first, first + 30)
        ]
        await store.append("t", "r", first - 1, batch)
    read: list[AgentEvent] = []
    while len(read) < length:
        read += await store.read("t", "r", len(read) - 1, piece)

    assert [event.seq for event in read] == list(range(length))
    assert made[0] < 2 * length
