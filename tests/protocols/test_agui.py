"""AG-UI over HTTP: what a client asks, what it decides, and what it is refused."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from flowtrio import Agent, ClientTool, Limits, MemoryStore, Orchestrator, RunContext, tool
from flowtrio.protocols import AGUIProtocol
from flowtrio.testing import ScriptedModel
from tests.runtime._programs import call, calls
from tests.support.site import Site, Talker, site

from .agui import Client, Told, flaws_in, read_body

NUMBERS = itertools.count()


def said(text: str) -> Told:
    return {"id": f"user{next(NUMBERS)}", "role": "user", "content": text}


def asking(*messages: Told, thread: str = "t", run: str | None = None, **more: Any) -> Told:
    """A request of a client of 1.0."""
    run = f"run{next(NUMBERS)}" if run is None else run
    fixed: Told = {"threadId": thread, "runId": run, "messages": list(messages)}
    return {**fixed, "protocolVersion": "1.0", **more}


def answering(
    interrupts: Sequence[Told], *payloads: Any, messages: Sequence[Told] = (), **more: Any
) -> Told:
    """A request that answers interrupts; None for one that is cancelled."""
    resume = [
        {"interruptId": i["id"], "status": "cancelled"}
        if payload is None
        else {"interruptId": i["id"], "status": "resolved", "payload": payload}
        for i, payload in zip(interrupts, payloads, strict=True)
    ]
    return asking(*messages, resume=resume, **more)


async def post(s: Site, body: Any, path: str = "/ag-ui") -> list[Told]:
    """Ask, and read the answer to its end."""
    response = await s.http.post(path, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream"
    told = read_body(response.content)
    assert flaws_in(told) == []
    return told


def interrupts_in(told: Sequence[Told]) -> list[Told]:
    assert told[-1]["outcome"]["type"] == "interrupt", told[-1]
    interrupts: list[Told] = told[-1]["outcome"]["interrupts"]
    return interrupts


def error_in(told: Sequence[Told]) -> str:
    assert [t["type"] for t in told] == ["RUN_ERROR"]
    code: str = told[0]["code"]
    return code


def results_in(told: Sequence[Told]) -> dict[str, str]:
    """What calls gave, by the end of their ids."""
    results = (t for t in told if t["type"] == "TOOL_CALL_RESULT")
    return {t["toolCallId"].rpartition(":")[2]: t["content"] for t in results}


@tool(needs_approval=True)
async def book(city: str) -> str:
    """Book a hotel."""
    return f"booked {city}"


@tool
async def paint(ctx: RunContext) -> str:
    """Paint it."""
    return f"painted {await ctx.ask('Which colour?')}"


def booking(*turns: Any) -> Agent[Any]:
    return Agent(llm_client=ScriptedModel(*turns), tools=[book, paint], name="hotel")


TWO = [call("book", city="Paris"), call("book", city="Rome")]


def served(agent: Any = None, orchestrator: Any = None, **options: Any) -> Any:
    agent = booking("Hello.") if agent is None else agent
    return site(agent, orchestrator, protocols=[AGUIProtocol(**options)])


async def test_a_conversation_is_kept_under_its_thread() -> None:
    model = ScriptedModel("One.", "Two.")
    async with served(Agent(llm_client=model)) as s:
        first = await post(s, asking(said("a"), run="first"))
        client = Client()
        client.take(first)
        await post(s, asking(*client.messages, said("b")))
        told = (await s.http.get("/sessions/t")).json()["messages"]

    assert first[0] == {
        "type": "RUN_STARTED",
        "threadId": "t",
        "runId": "first",
        "protocolVersion": "1.0",
        "metadata": {"flowtrio": {"runId": "first"}},
        "timestamp": first[0]["timestamp"],
    }
    assert [m["content"] for m in client.messages] == ["One."]
    assert (first[-1]["result"], first[-1]["outcome"]) == ("One.", {"type": "success"})
    assert first[-1]["usage"][0]["totalTokens"] > 0
    assert [m["content"] for m in told] == ["a", "One.", "b", "Two."]


async def test_two_calls_wait_at_once_and_one_is_approved_and_one_denied() -> None:
    async with served(booking(TWO, "Done.")) as s:
        client = Client()
        first = await post(s, asking(said("go")))
        client.take(first)
        interrupts = interrupts_in(first)
        decided = {"approved": True}, {"approved": False, "reason": "too dear"}
        then = answering(interrupts, *decided, messages=client.messages)
        second = await post(s, then)
        client.take(second)

    assert [i["reason"] for i in interrupts] == ["tool_call"] * 2
    assert [i["metadata"]["flowtrio"]["arguments"] for i in interrupts] == [
        {"city": "Paris"},
        {"city": "Rome"},
    ]
    assert all(i["expiresAt"].endswith("+00:00") for i in interrupts)
    assert results_in(second) == {
        "c1": "booked Paris",
        "c2": "error: the call was denied: too dear",
    }
    assert second[-1]["result"] == "Done."
    assert "MESSAGES_SNAPSHOT" not in [t["type"] for t in second]


@pytest.mark.parametrize(
    ("payload", "result"),
    [
        (True, "booked Paris"),
        (False, "error: the call was denied"),
        (None, "error: the call was denied: the user gave no answer"),
        ({"approved": True, "editedArgs": {"city": "Oslo"}}, "booked Oslo"),
    ],
)
async def test_a_call_is_decided_by_a_word_or_with_other_arguments(
    payload: Any, result: str
) -> None:
    async with served(booking([call("book", city="Paris")], "Done.")) as s:
        first = await post(s, asking(said("go")))
        second = await post(s, answering(interrupts_in(first), payload))

    assert list(results_in(second).values()) == [result]


@pytest.mark.parametrize(
    ("payload", "result"),
    [
        ({"text": "blue"}, "painted blue"),
        ("red", "painted red"),
        (None, "error: InputDeclined"),
    ],
)
async def test_a_question_is_answered_or_declined(payload: Any, result: str) -> None:
    async with served(booking(calls("paint"), "Done.")) as s:
        first = await post(s, asking(said("go")))
        [interrupt] = interrupts_in(first)
        second = await post(s, answering([interrupt], payload))

    assert (interrupt["reason"], interrupt["message"]) == ("input_required", "Which colour?")
    assert interrupt["responseSchema"]["properties"] == {"text": {"type": "string"}}
    assert next(iter(results_in(second).values())).startswith(result)


async def test_what_is_no_decision_is_told_and_changes_nothing() -> None:
    async with served(booking([*TWO, *calls("paint")], "Done.")) as s:
        first = await post(s, asking(said("go")))
        waiting = interrupts_in(first)
        good: list[Any] = [True, True, "blue"]
        other = [{**i, "id": "other:c1"} for i in waiting]
        unasked = [{"id": waiting[0]["id"].replace(":", ":not")}, *waiting[1:]]
        several = [other[0], *waiting[1:]]
        codes = [
            error_in(await post(s, body))
            for body in (
                answering(waiting, {"approved": "yes"}, True, "blue"),
                answering(waiting, {"approved": True, "editedArgs": 1}, True, "blue"),
                answering(waiting, {"approved": False, "reason": 1}, True, "blue"),
                answering(waiting, True, True, 5),
                answering(waiting, *good, thread="another"),
                answering(other, *good),
                answering(several, *good),
                answering(unasked, *good),
                asking(said("something else")),
            )
        ]
        last = await post(s, answering(waiting, *good))

    bad = ["bad_resume"] * 4
    unknown = ["unknown_run", "unknown_run", "bad_resume", "unknown_interrupt"]
    assert codes == [*bad, *unknown, "interrupts_pending"]
    assert last[-1]["result"] == "Done."


async def test_what_is_not_answered_is_asked_again() -> None:
    async with served(booking(TWO, "Done.")) as s:
        first = await post(s, asking(said("go")))
        one, two = interrupts_in(first)
        second = await post(s, answering([one], True))
        third = await post(s, answering(interrupts_in(second), True))

    assert [i["id"] for i in interrupts_in(second)] == [two["id"]]
    assert third[-1]["result"] == "Done."


async def test_arguments_that_do_not_fit_are_refused_before_anything_is_done() -> None:
    async with served(booking(TWO, "Done.")) as s:
        first = await post(s, asking(said("go")))
        waiting = interrupts_in(first)
        edited = {"approved": True, "editedArgs": {"town": "Oslo"}}
        refused = await post(s, answering(waiting, True, edited))
        last = await post(s, answering(waiting, False, False))

    assert error_in(refused) == "bad_resume"
    assert set(results_in(last).values()) == {"error: the call was denied"}


async def test_a_request_that_comes_again_is_told_the_same_and_does_nothing_twice() -> None:
    """Its answer was lost: in full, or but for its beginning, as the client's messages tell."""
    booked: list[str] = []

    @tool(needs_approval=True)
    async def note(city: str) -> str:
        """Note it."""
        booked.append(city)
        return "noted"

    made = [call("note", city="Paris")]
    model = ScriptedModel(["I ", "note. ", *made], ["And ", "more. ", *made], "Done.")
    async with served(Agent(llm_client=model, tools=[note])) as s:
        start = asking(said("go"))
        first = [await post(s, start) for _ in range(2)]
        resume = answering(interrupts_in(first[0]), True)
        second = [await post(s, resume) for _ in range(2)]
        half = Client()
        half.take([*first[0], *second[0][: len(second[0]) // 2]])
        again = {**resume, "messages": [*start["messages"], *half.messages]}
        half.take(await post(s, again))
        third = answering(interrupts_in(second[0]), True)
        last = [await post(s, third) for _ in range(2)]
        whole = await post(s, {**start, "messages": [*start["messages"], *half.messages]})

    def types(told: list[Told]) -> list[str]:
        return [t["type"] for t in told if t["type"] != "MESSAGES_SNAPSHOT"]

    assert types(first[0]) == types(first[1])
    assert types(second[0]) == types(second[1])
    assert types(last[0]) == types(last[1])
    assert booked == ["Paris", "Paris"]
    client = Client()
    client.take([*first[0], *second[0]])
    assert [m.get("content") for m in half.messages if m["role"] == "assistant"] == [
        m.get("content") for m in client.messages if m["role"] == "assistant"
    ]
    assert whole[-1]["result"] == last[0][-1]["result"] == "Done."


async def test_a_run_is_its_threads_alone() -> None:
    async with served() as s:
        await post(s, asking(said("a"), run="one"))
        again = await s.http.post("/ag-ui", json=asking(said("a"), run="one", thread="other"))
        another = await s.http.post("/ag-ui", json=asking(said("b"), run="one"))

    assert [(r.status_code, r.json()["code"]) for r in (again, another)] == [
        (409, "run_exists"),
        (409, "run_exists"),
    ]
    assert again.json()["type"] == "RUN_ERROR"


async def test_ids_of_any_form_name_a_run() -> None:
    async with served() as s:
        odd = asking(said("a"), run="odd / id")
        first, again = [await post(s, odd) for _ in range(2)]

    assert first[0]["runId"] == "odd / id"
    ours = first[0]["metadata"]["flowtrio"]["runId"]
    assert len(ours) == 64
    assert again[0]["metadata"]["flowtrio"]["runId"] == ours


async def test_an_agent_is_asked_for_by_its_address() -> None:
    async def one(ctx: RunContext, message: str) -> str:
        return "one"

    async def two(ctx: RunContext, message: str) -> str:
        return "two"

    orchestrator = Orchestrator(agents=[one, two], route=lambda message, ctx: "one")
    async with served(orchestrator=orchestrator) as s:
        told = [await post(s, asking(said("hi")), f"/ag-ui{path}") for path in ("", "/two")]
        unknown = await s.http.post("/ag-ui/three", json=asking(said("hi")))

    assert [t[-1]["result"] for t in told] == ["one", "two"]
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_agent")


async def test_what_a_client_gives_beside_its_messages_reaches_the_agent() -> None:
    seen: list[Any] = []

    async def sees(ctx: RunContext, message: str) -> str:
        seen.append(ctx.app)
        await ctx.custom("agui.state_snapshot", {"n": 1})
        await ctx.custom("agui.state_delta", [{"op": "replace", "path": "/n", "value": 2}])
        await ctx.custom("agui.state_delta", "no patch")
        return "seen"

    given = {"state": {"n": 0}, "context": [{"description": "d", "value": "v"}]}
    more = {**given, "forwardedProps": {"a": 1}}
    async with served(sees) as s:
        told = await post(s, asking(said("hi"), **more))
        await post(s, asking(said("hi"), thread="2"))
    async with served(sees, app=lambda app: ("mine", app["state"])) as s:
        await post(s, asking(said("hi"), **more))
    async with served(orchestrator=Orchestrator(agents=[sees], app="ours")) as s:
        await post(s, asking(said("hi"), **more))

    nothing = {"state": None, "context": [], "forwardedProps": None}
    assert seen == [more, nothing, ("mine", {"n": 0}), "ours"]
    types = [t["type"] for t in told]
    assert [t for t in types if t.startswith("STATE") or t == "CUSTOM"] == [
        "STATE_SNAPSHOT",
        "STATE_DELTA",
        "CUSTOM",
    ]


def elsewhere(*turns: Any, limits: Limits | None = None) -> Any:
    """An agent whose tools come with each request."""
    model = ScriptedModel(*turns)
    return Orchestrator(agents=[Agent(llm_client=model, tools=[book])], limits=limits or Limits())


WHERE = {"name": "where", "description": "Where the user is.", "parameters": {"type": "object"}}
PICK = {"name": "pick", "description": "Pick one."}


def result(call_id: str, content: Any, **more: Any) -> Told:
    key = f"result{next(NUMBERS)}"
    return {"id": key, "role": "tool", "toolCallId": call_id, "content": content, **more}


async def test_the_front_end_runs_its_tools_and_sends_what_they_give() -> None:
    orchestrator = elsewhere(calls("where", "pick"), "Home.")
    async with served(orchestrator=orchestrator, client_tools=True) as s:
        client = Client()
        first = await post(s, asking(said("go"), tools=[WHERE, PICK]))
        client.take(first)
        waiting = first[-1]["outcome"]["pendingToolCallIds"]
        made = [t["toolCallId"] for t in first if t["type"] == "TOOL_CALL_START"]
        parts = [{"type": "text", "text": "ho"}, {"type": "text", "text": "me"}]
        results = [result(waiting[0], parts), result(waiting[1], "", error="nobody is there")]
        client.messages += results
        again = asking(*client.messages, tools=[WHERE, PICK])
        second, third = [await post(s, again) for _ in range(2)]
        kept = (await s.http.get("/sessions/t")).json()["messages"]

    assert first[-1]["outcome"]["type"] == "success"
    assert waiting == made
    assert [t["type"] for t in second] == [t["type"] for t in third]
    assert second[-1]["result"] == "Home."
    assert results_in(second) == {}
    assert [m["content"] for m in kept if m["role"] == "tool"] == [
        "home",
        "error: the call was denied: nobody is there",
    ]


async def test_who_goes_on_without_the_results_of_calls_has_given_them_up() -> None:
    orchestrator = elsewhere(calls("where"), "Another.")
    async with served(orchestrator=orchestrator, client_tools=True) as s:
        first = await post(s, asking(said("go"), tools=[WHERE]))
        second = await post(s, asking(said("never mind"), tools=[WHERE]))
        log, _ = await s.follow("GET", f"/runs/{first[0]['runId']}/events")

    assert second[-1]["result"] == "Another."
    assert (log[-1]["data"]["status"], log[-1]["data"]["reason"]) == (
        "cancelled",
        "the user went on",
    )


async def test_a_call_for_approval_comes_before_one_of_the_front_end() -> None:
    orchestrator = elsewhere([*calls("where"), call("book", city="Rome")], "Done.")
    async with served(orchestrator=orchestrator, client_tools=True) as s:
        first = await post(s, asking(said("go"), tools=[WHERE]))
        second = await post(s, answering(interrupts_in(first), True, tools=[WHERE]))
        [waiting] = second[-1]["outcome"]["pendingToolCallIds"]
        third = await post(s, asking(result(waiting, "home"), tools=[WHERE]))

    assert results_in(second) == {"c2": "booked Rome"}
    assert third[-1]["result"] == "Done."


async def test_a_tool_of_the_front_end_that_the_server_names_needs_no_option() -> None:
    where = ClientTool("where", "Where the user is.", {"type": "object"})
    agent = Agent(llm_client=ScriptedModel(calls("where"), "Home."), tools=[where])
    async with served(agent) as s:
        first = await post(s, asking(said("go")))
        [waiting] = first[-1]["outcome"]["pendingToolCallIds"]
        second = await post(s, asking(result(waiting, "home")))

    assert second[-1]["result"] == "Home."


async def test_front_end_tools_are_off_by_default() -> None:
    async with served(orchestrator=elsewhere(calls("where"), "No.")) as s:
        told = await post(s, asking(said("go"), tools=[WHERE]))

    [content] = results_in(told).values()
    assert content.startswith("error: ")
    assert told[-1]["result"] == "No."


async def test_a_client_may_hold_the_history_where_that_is_allowed() -> None:
    model = ScriptedModel("Yes.", [call("book", city="Rome")], "Done.")
    agent = Agent(llm_client=model, tools=[book])
    made = {"id": "c", "type": "function", "function": {"name": "book", "arguments": "{}"}}
    history: list[Told] = [
        {"id": "1", "role": "system", "content": "Be kind."},
        {"id": "2", "role": "user", "content": [{"type": "text", "text": "a"}]},
        {"id": "3", "role": "assistant", "toolCalls": [made]},
        {"id": "4", "role": "tool", "toolCallId": "c", "content": "booked"},
        {"id": "5", "role": "reasoning", "content": "hm"},
        {"id": "6", "role": "activity", "activityType": "x", "content": {}},
        {"id": "7", "role": "assistant", "content": "b"},
    ]
    async with served(agent, client_history=True) as s:
        await post(s, asking(*history, said("c")))
        first = await post(s, asking(said("go")))
        second = await post(s, answering(interrupts_in(first), True))
        stray = asking({**history[3], "toolCallId": "none"}, said("d"))
        refused = await s.http.post("/ag-ui", json=stray)
        kept = await s.http.get("/sessions/t")

    asked = model.requests[0].messages
    assert [m["role"] for m in asked] == [
        *("system", "user", "assistant", "tool", "assistant", "user"),
    ]
    assert second[-1]["result"] == "Done."
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_messages")
    assert kept.json()["messages"] == []


IMAGE = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


async def test_images_and_files_reach_the_model() -> None:
    source = {"type": "data", "value": IMAGE, "mimeType": "image/png"}
    url = {"type": "url", "value": "https://example.org/a.pdf", "mimeType": "application/pdf"}
    parts = [
        {"type": "text", "text": "look"},
        {"type": "image", "source": source},
        {"type": "document", "source": url},
    ]
    model = ScriptedModel("Seen.")
    async with served(Agent(llm_client=model)) as s:
        told = await post(s, asking({"id": "1", "role": "user", "content": parts}))
        file = [{"type": "video", "source": {"type": "file", "value": "f"}}]
        refused = [
            await s.http.post(
                "/ag-ui", json=asking({"id": "1", "role": "user", "content": content})
            )
            for content in (file, [{"type": "audio"}], "", [])
        ]

    assert told[-1]["result"] == "Seen."
    content = model.requests[0].messages[0]["content"]
    assert [part["type"] for part in content] == ["text", "image_url", "file"]
    assert [r.json()["code"] for r in refused] == ["bad_parts", "bad_parts", *["bad_messages"] * 2]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "bad_input"),
        ({"threadId": "t", "runId": "", "messages": []}, "bad_input"),
        (asking({"id": "1", "role": "stranger", "content": ""}), "bad_input"),
        (asking(), "bad_messages"),
        (asking({"id": "1", "role": "assistant", "content": "a"}), "bad_messages"),
        (asking(result("none", "a")), "bad_messages"),
        (asking(result("unknown:c1", "a")), "bad_messages"),
        (asking(said("a"), tools=[{**WHERE, "parameters": {"type": 5}}]), "bad_tools"),
    ],
)
async def test_what_is_no_request_is_refused_in_the_protocols_form(body: Any, code: str) -> None:
    async with served(client_tools=True) as s:
        response = await s.http.post("/ag-ui", json=body)

    assert response.status_code == 400
    assert response.json()["type"] == "RUN_ERROR"
    assert response.json()["code"] == code


async def test_a_client_before_1_0_is_not_told_that_a_cancelled_run_was_a_success() -> None:
    talker = Talker()

    async def ask(s: Site, told: list[list[Told]], body: Told) -> None:
        told.append(await post(s, body))

    told: list[list[Told]] = []
    async with served(talker) as s:
        async with trio.open_nursery() as nursery:
            for number, version in enumerate(({"protocolVersion": "1.0"}, {})):
                body = asking(said("go"), run=f"r{number}", thread=f"t{number}")
                body.pop("protocolVersion")
                nursery.start_soon(ask, s, told, {**body, **version})
                while talker.begun <= number:
                    await trio.lowlevel.checkpoint()
                await s.http.post(f"/runs/r{number}/cancel", json={"reason": "enough"})
                while len(told) <= number:
                    await trio.lowlevel.checkpoint()

    assert told[0][-1]["outcome"] == {"type": "cancelled"}
    assert told[0][-1]["metadata"]["flowtrio"]["reason"] == "enough"
    assert (told[1][-1]["code"], told[1][-1]["message"]) == ("cancelled", "enough")


async def test_with_no_window_a_client_that_aborts_stops_its_run_unless_it_waits() -> None:
    talker = Talker()
    async with served(talker, resume_window=0) as s:
        async with s.http.stream("POST", "/ag-ui", json=asking(said("go"))):
            while not talker.begun:
                await trio.lowlevel.checkpoint()
        with trio.fail_after(5):
            await talker.ended.wait()
    async with served(booking(TWO, "Done."), resume_window=0) as s:
        first = await post(s, asking(said("go")))
        second = await post(s, answering(interrupts_in(first), True, False))

    assert second[-1]["result"] == "Done."


async def test_all_of_the_log_stands_beside_where_that_is_asked_for() -> None:
    async with served(booking(TWO, "Done."), raw=True) as s:
        first = await post(s, asking(said("go")))
        second = await post(s, answering(interrupts_in(first), True, False))
        log, _ = await s.follow("GET", f"/runs/{first[0]['runId']}/events")

    beside = [t.get("rawEvent") or t.get("event") for t in [*first, *second]]
    assert [event for event in beside if event] == log


async def test_what_an_exception_says_stays_here_unless_the_server_tells_it() -> None:
    async def fails(ctx: RunContext, message: str) -> str:
        raise RuntimeError("secret")

    texts = []
    for debug in (False, True):
        async with site(fails, protocols=[AGUIProtocol()], debug=debug) as s:
            texts.append((await post(s, asking(said("go"))))[-1]["message"])

    assert ["secret" in text for text in texts] == [False, True]


async def test_who_answers_too_late_is_told_what_became_of_it() -> None:
    async with served(booking(TWO, "Done.")) as s:
        first = await post(s, asking(said("go")))
        for call_id in ("c1", "c2"):
            await s.http.post(f"/runs/{first[0]['runId']}/deny", json={"call_id": call_id})
        await s.follow("GET", f"/runs/{first[0]['runId']}/events")
        late = await post(s, answering(interrupts_in(first), True, True))

    assert set(results_in(late).values()) == {"error: the call was denied"}
    assert late[-1]["result"] == "Done."


def test_front_end_tools_need_their_library_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jsonschema", None)
    AGUIProtocol()
    with pytest.raises(ImportError):
        AGUIProtocol(client_tools=True)


async def test_results_of_calls_that_were_no_front_ends_decide_nothing() -> None:
    async with served(booking([call("book", city="Rome")], "Done.")) as s:
        first = await post(s, asking(said("go")))
        await post(s, answering(interrupts_in(first), False))
        stray = asking(result(f"{first[0]['runId']}:c1", "mine"))
        refused = await s.http.post("/ag-ui", json=stray)

    assert (refused.status_code, refused.json()["code"]) == (400, "bad_messages")


async def test_a_run_that_waits_for_nobody_is_left_alone() -> None:
    talker = Talker()
    orchestrator = Orchestrator(agents=[talker], on_busy="reject")
    async with served(orchestrator=orchestrator) as s:
        async with s.http.stream("POST", "/ag-ui", json=asking(said("go"), run="first")):
            while not talker.begun:
                await trio.lowlevel.checkpoint()
            busy = await s.http.post("/ag-ui", json=asking(said("more")))
            assert not talker.ended.is_set()

    assert (busy.status_code, busy.json()["code"]) == (429, "session_busy")


async def test_a_log_whose_beginning_is_gone_cannot_be_gone_on_with() -> None:
    store = MemoryStore(max_events=10)
    agent = booking([*["word "] * 2000, call("book", city="Rome")], "Done.")
    async with served(orchestrator=Orchestrator(agents=[agent], store=store)) as s:
        first = await post(s, asking(said("go")))
        second = await post(s, answering(interrupts_in(first), True))

    assert error_in(second) == "replay_gap"
