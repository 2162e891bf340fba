"""The seam of protocols, by a small one: addresses, refusals, segments, and who may what."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from flowtrio import Agent, AgentEvent, ClientTool, Orchestrator, RunContext, tool
from flowtrio.serving.commands._clients import Refusal
from flowtrio.serving.http._following import _Log
from flowtrio.serving.http._protocol import ProtocolRoute, Visit
from flowtrio.serving.http._segments import Segment, Waits
from flowtrio.testing import ScriptedModel
from flowtrio.wire._frames import ApproveCommand
from tests.runtime._programs import call
from tests.support.site import Site, as_events, site
from tests.testing.test_checks import asks_for_approval


class Telling:
    """Says the type of each event; remembers what is open as a mapper has to."""

    def __init__(self) -> None:
        self.open: list[str] = []

    def feed(self, event: AgentEvent) -> Iterable[str]:
        if event.type == "tool_call_start":
            self.open.append(event.data["call_id"])
        if event.type == "tool_call_end" and event.data["call_id"] in self.open:
            self.open.remove(event.data["call_id"])
        return [str(event.type)]

    def resume(self) -> Iterable[str]:
        return [f"resume {self.open}"]

    def pause(self, waits: Waits) -> Iterable[str]:
        return [f"pause {sorted(waits.approvals)} {sorted(waits.questions)}"]

    def fail(self, code: str, error: str) -> Iterable[str]:
        return [f"failed {code}"]


def segment(after: int = -1, **options: Any) -> Segment[str]:
    return Segment(
        mapper=Telling(), encode=lambda text: f"{text}\n".encode(), after=after, **options
    )


class Toy:
    """``POST /toy`` starts a run, or approves and goes on; ``GET /toy/{run}`` goes on."""

    @property
    def routes(self) -> Sequence[ProtocolRoute]:
        return [
            ProtocolRoute("POST", "/toy", self.chat),
            ProtocolRoute("POST", "/toy/{}", self.approve),
            ProtocolRoute("GET", "/toy/{}", self.read),
        ]

    def refuse(self, status: int, code: str, error: str) -> Any:
        return {"toy": [status, code, error]}

    async def chat(self, visit: Visit) -> None:
        body = await visit.read_json()
        waits = Waits(is_attended=body.get("attended", True))
        told = segment(tail=b"over\n", waits=waits)
        is_whole = body.pop("whole", False)
        _, refusal = await visit.answer(
            body.pop("message"),
            lambda run_id: told,
            session_id=body.pop("session_id", None),
            is_whole=is_whole,
            tools=[ClientTool("where", "Where the user is.", {"type": "object"})],
            **body,
        )
        if is_whole:
            await visit.exchange.answer_json(200, [told.is_paused, told.last, refusal])

    async def approve(self, visit: Visit, run_id: str) -> None:
        body = await visit.read_json()
        place = await visit.last_of(run_id)
        for call_id in body["approve"]:
            await visit.control(run_id, ApproveCommand(run_id=run_id, call_id=call_id))
        await visit.follow(run_id, segment(place))

    async def read(self, visit: Visit, run_id: str) -> None:
        await visit.follow(run_id, segment(int(visit.request.query.get("after", "-1"))))


async def two_approvals(ctx: RunContext, message: str) -> Any:
    """Asks twice at once, and says something between and behind."""

    async def ask(name: str) -> None:
        if await ctx.approve(name, {}):
            async with ctx.message() as out:
                await out.write(f"{name} is done")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "a")
        nursery.start_soon(ask, "b")
    return "all"


async def lines(s: Site, method: str, path: str, **request: Any) -> list[str]:
    response = await s.http.request(method, path, **request)
    assert response.status_code == 200, response.text
    return [line for line in response.text.splitlines() if line]


async def test_a_run_that_waits_ends_its_segment_and_the_next_request_goes_on() -> None:
    async with site(two_approvals, protocols=[Toy()]) as s:
        first = await lines(s, "POST", "/toy", json={"message": "hi", "session_id": "s"})
        [run_id] = [key[1] for key in s.app._hosting.service.recorder.runs]
        second = await lines(s, "POST", f"/toy/{run_id}", json={"approve": ["c2"]})
        third = await lines(s, "POST", f"/toy/{run_id}", json={"approve": ["c1"]})
        log, _ = await s.follow("GET", f"/runs/{run_id}/events")
        again = [await s.http.get(f"/toy/{run_id}?after={n}") for n in (-1, len(log) - 1)]

    types = [event["type"] for event in log]
    told = [line for line in [*first, *second, *third] if line in types]
    assert told == types
    assert first[-2:] == ["pause ['c1', 'c2'] []", "over"]
    assert (second[0], second[-1]) == ("resume []", "pause ['c1'] []")
    assert third[-1] == "done"
    assert again[0].text.split() == types
    assert again[1].status_code == 204


async def test_a_reply_that_is_given_whole_is_fed_the_same_log() -> None:
    async with site(two_approvals, protocols=[Toy()]) as s:
        waiting = await s.http.post("/toy", json={"message": "hi", "whole": True})
        refused = await s.http.post(
            "/toy", json={"message": "hi", "whole": True, "attended": False}
        )

    is_paused, last, refusal = waiting.json()
    assert (is_paused, refusal) == (True, None)
    assert last >= 3
    assert refused.json()[0] is False


async def test_without_people_approvals_are_denied_and_tools_of_the_other_side_are_asked() -> None:
    @tool(needs_approval=True)
    async def pay() -> str:
        """Pay."""
        return "paid"

    model = ScriptedModel([call("pay"), call("where")], "Done.")
    agent = Agent(llm_client=model, tools=[pay], name="shop")
    async with site(agent, protocols=[Toy()]) as s:
        told = await lines(s, "POST", "/toy", json={"message": "hi", "attended": False})
        [run_id] = [key[1] for key in s.app._hosting.service.recorder.runs]
        await s.http.post(f"/runs/{run_id}/answer", json={"request_id": "q1", "text": "here"})
        frames, _ = await s.follow("GET", f"/runs/{run_id}/events")
        log = as_events(frames)

    outcomes = {e.data["tool_name"]: e.data["outcome"] for e in log if e.type == "tool_call_end"}
    assert told[-2:] == ["pause [] ['q1']", "over"]
    assert outcomes == {"pay": "denied", "where": "ok"}


async def test_what_is_refused_is_told_in_the_protocols_own_form() -> None:
    orchestrator = Orchestrator(agents=[two_approvals], on_busy="reject")
    async with site(orchestrator=orchestrator, protocols=[Toy()], token="secret") as s:
        s.http.headers["authorization"] = "Bearer secret"
        busy = {"message": "hi", "session_id": "s"}
        await s.http.post("/toy", json=busy)
        answers = [
            await s.http.post("/toy", json=busy),
            await s.http.post("/toy", content=b"{}"),
            await s.http.post("/toy", content=b"{", headers={"content-type": "application/json"}),
            await s.http.post("/toy", content=b"1", headers={"content-type": "application/json"}),
            await s.http.post("/toy/unknown", json={"approve": []}),
            await s.http.get("/toy/unknown"),
            await s.http.delete("/toy"),
            await s.http.get("/toy", headers={"authorization": "none"}),
            await s.http.post("/toy", json=busy, headers={"sec-fetch-site": "cross-site"}),
        ]
        elsewhere = await s.http.get("/toys")

    told = [(answer.status_code, answer.json()["toy"][:2]) for answer in answers]
    assert told == [
        (429, [429, "session_busy"]),
        (415, [415, "http_415"]),
        (400, [400, "http_400"]),
        (400, [400, "http_400"]),
        (404, [404, "unknown_run"]),
        (404, [404, "unknown_run"]),
        (405, [405, "http_405"]),
        (401, [401, "http_401"]),
        (403, [403, "http_403"]),
    ]
    assert elsewhere.json()["code"] == "http_404"


async def test_an_agent_is_asked_for_by_its_name() -> None:
    async def one(ctx: RunContext, message: str) -> str:
        return "one"

    async def two(ctx: RunContext, message: str) -> str:
        """The second."""
        return "two"

    orchestrator = Orchestrator(agents=[one, two], route=lambda message, ctx: "one")
    async with orchestrator:
        results = [await orchestrator.process("hi", agent=name) for name in (None, "two", "one")]
        run_id = await orchestrator.start("hi", agent="two")
        with pytest.raises(ValueError, match="expected one of orchestrator, one, two"):
            await orchestrator.process("hi", agent="three")
        log = [event async for event in orchestrator.attach(run_id)]

    assert results == ["one", "two", "one"]
    assert log[-1].data["result"] == "two"


LOG = as_events(asks_for_approval())
PAUSE = next(e.seq for e in LOG if e.type == "approval_required")


@given(cuts=st.sets(st.integers(0, len(LOG))), after=st.integers(-1, len(LOG) - 1))
def test_a_segment_tells_what_is_behind_its_place_however_the_log_is_cut(
    cuts: set[int], after: int
) -> None:
    told = segment(after, pauses=False)
    places = [0, *sorted(cuts), len(LOG)]
    text = b"".join(told.feed(LOG[a:b]) for a, b in itertools.pairwise(places) if a < b)

    said = text.decode().splitlines()
    behind = [str(event.type) for event in LOG if event.seq > after]
    assert said == ([said[0], *behind] if after >= 0 and behind else behind)


@given(cuts=st.sets(st.integers(0, len(LOG))))
def test_a_segment_ends_only_where_a_batch_ends_and_the_run_waits(cuts: set[int]) -> None:
    told = segment()
    places = [0, *sorted(cuts), len(LOG)]
    for a, b in itertools.pairwise(places):
        if not told.is_over:
            told.feed(LOG[a:b])

    waiting = {e.seq + 1 for e in LOG if e.seq >= PAUSE} & set(cuts)
    assert told.is_over == any(_waits(place) for place in waiting)


def _waits(place: int) -> bool:
    waits = Waits()
    for event in LOG[:place]:
        waits.feed(event)
    return waits.for_people


class Slow:
    """A log that comes in batches, each a while after the one before, and never ends."""

    def __init__(self, *batches: list[AgentEvent]) -> None:
        self.batches = list(batches)

    async def receive_batch(self) -> list[AgentEvent]:
        await trio.sleep(0.01)
        if not self.batches:
            await trio.sleep_forever()
        return self.batches.pop(0)


START = next(e.seq for e in LOG if e.type == "tool_call_start")


@pytest.mark.parametrize(
    ("cuts", "taken", "seconds"),
    [
        ([PAUSE + 1], PAUSE + 1, 0.06),
        ([PAUSE + 1, START + 1, len(LOG)], START + 1, 0.02),
        ([START + 1, len(LOG)], START + 1, 0.01),
        ([PAUSE + 1, PAUSE + 2, PAUSE + 3], PAUSE + 3, 0.06),
    ],
    ids=["it does", "it goes on", "at once", "for no longer than a moment"],
)
async def test_an_answer_that_may_end_waits_a_moment_for_what_follows(
    cuts: list[int], taken: int, seconds: float, autojump_clock: Any
) -> None:
    """Its run may be about to go on: the calls of one reply need not begin at once."""
    batches = [LOG[a:b] for a, b in itertools.pairwise([0, *cuts])]
    slow: Any = Slow(*batches)
    nothing: Any = None
    told = _Log(nothing, nothing, slow, segment())
    begun = trio.current_time()

    batch = await told._receive()

    assert batch == LOG[:taken]
    assert trio.current_time() - begun == pytest.approx(seconds)


def test_what_is_open_beside_a_question_is_no_waiting() -> None:
    """A call within which is asked waits; one beside it, and a message, do not."""
    quiet = {"type": "run_start", "data": {}, "run_id": "r", "agent": "root", "timestamp": 0.0}

    def frame(seq: int, type: str, **data: Any) -> dict[str, Any]:
        return {**quiet, "type": type, "data": data, "seq": seq}

    log = as_events(
        [
            frame(1, "tool_call_start", call_id="c1", parent_call_id=None),
            frame(2, "tool_call_start", call_id="c2", parent_call_id="c1"),
            frame(3, "input_required", request_id="q1", call_id="c2"),
            frame(4, "message_chunk", message_id="m1"),
            frame(5, "message_complete", message_id="m1"),
            frame(6, "tool_call_start", call_id="c3", parent_call_id=None),
            frame(7, "approval_required", call_id="c4", parent_call_id="c3"),
            frame(8, "input_resolved", request_id="q1"),
        ]
    )
    waits = Waits()
    seen = []
    for event in log:
        waits.feed(event)
        seen.append(waits.for_people)

    assert seen == [False, False, True, False, True, False, True, False]


def test_a_log_that_cannot_be_read_on_is_told_by_the_mapper() -> None:
    told = segment(tail=b"over\n")

    assert told.fail(Refusal("replay_gap", "gone")) == b"failed replay_gap\nover\n"
    assert (told.begin(), told.end()) == (b"", b"over\n")
    assert told.quiet().startswith(b": ")


def test_what_its_request_has_decided_is_not_waited_for_until_the_log_tells() -> None:
    """Two decisions of one request are told one by one, and a batch may end between them."""
    between = next(e.seq for e in LOG if e.type == "tool_call_end" and e.data["call_id"] == "c2")
    paused = []
    for decided in ((), ("c1", "c2", "c3")):
        told = segment(PAUSE + 5, decided=decided)
        told.feed(LOG[: between + 1])
        paused.append(told.is_paused)

    assert paused == [True, False]
