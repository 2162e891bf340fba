"""What holds for every provider's protocol alike, each on a loopback server of its own."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import trio

from flowtrio import (
    Agent,
    AgentEvent,
    EventType,
    ProviderError,
    RemoteProtocolError,
    RunFailed,
    StreamEngine,
    tool,
)
from flowtrio.clients._host import ModelHost
from flowtrio.testing import check_events, check_llm_client
from tests.support.model_server import Answer, Exchange, ModelServer, open_model_server, refuses
from tests.support.model_server import sends as sends_bytes
from tests.support.protocols import KEY, PROTOCOLS, Protocol, Said

HELLO = [{"role": "user", "content": "hello"}]
GOOD_DAY = Said("Good day")
NAMED = [each for each in PROTOCOLS.values() if each.content_type == "text/event-stream"]
"""Those whose frames have names; lines of JSON have none."""


@pytest.fixture(params=PROTOCOLS.values(), ids=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return request.param


async def events_of(agent: Agent[Any], message: str = "hello") -> list[AgentEvent]:
    async with StreamEngine().stream(agent, message) as stream:
        events = [event async for event in stream]
    check_events(events)
    return events


# The same log


TURNS = (
    Said("Let me look. ", (("look", {"at": "Paris"}), ("look", {"at": "Rome"}))),
    Said("One more. ", (("count", {"words": ["a", "b"]}),)),
    Said("Both are sunny."),
)


def agent_of(client: Any) -> Agent[Any]:
    """The same agent, whatever the client."""
    rome = trio.Event()

    @tool
    async def look(at: str) -> str:
        """Look."""
        # Paris is seen after Rome, so the two have to run at once.
        if at == "Rome":
            rome.set()
        await rome.wait()
        await trio.sleep(0.05 if at == "Paris" else 0)
        return f"{at} is sunny"

    @tool
    async def count(words: list[str]) -> int:
        """Count."""
        return len(words)

    return Agent(llm_client=client, tools=[look, count], instructions="Be brief.")


_CHANGING = {
    *("usage", "duration", "model", "events"),
    *("provider", "requested_model", "first_token"),
}


def told(events: list[AgentEvent]) -> list[tuple[str, dict[str, Any]]]:
    """A log without usage, timing, models and counts, neighbouring CHUNKs and ARGS as one.

    Calls that run at once begin in any order, so neighbouring STARTs are told in that of the calls.
    """
    log: list[tuple[str, dict[str, Any]]] = []
    for event in events:
        data = {key: value for key, value in event.data.items() if key not in _CHANGING}
        last, before = log[-1] if log else ("", {})
        for type_, key in ((EventType.MESSAGE_CHUNK, "chunk"), (EventType.TOOL_CALL_ARGS, "delta")):
            if event.type is type_ and last == type_:
                joined = {**data, key: before[key] + data[key]}
                if joined == {**before, key: joined[key]}:
                    log.pop()
                    data = joined
        log.append((event.type, data))
        if last == event.type == EventType.TOOL_CALL_START:
            log[-2:] = sorted(log[-2:], key=lambda entry: str(entry[1]["call_id"]))
    return log


async def run_turns(protocol: Protocol) -> tuple[list[AgentEvent], ModelServer]:
    turns = [protocol.says(said) for said in TURNS]
    async with open_model_server(turns) as server, protocol.to(server) as client:
        return await events_of(agent_of(client)), server


@pytest.fixture(scope="module")
def expected() -> list[tuple[str, dict[str, Any]]]:
    """What the chat protocol's run says."""
    events, _ = trio.run(run_turns, PROTOCOLS["chat"])
    return told(events)


async def test_the_same_agent_gives_the_same_log(
    protocol: Protocol, expected: list[tuple[str, dict[str, Any]]]
) -> None:
    events, server = await run_turns(protocol)

    assert told(events) == expected
    assert len(server.exchanges) == len(TURNS)
    second, third = (json.dumps(exchange.body) for exchange in server.exchanges[1:])
    assert "Paris is sunny" in second
    assert "Rome is sunny" in second
    assert "flowtrio" not in third
    usage = events[-1].data["usage"]
    assert usage["quality"] == "measured"
    assert usage["prompt_tokens"] == 7 * len(TURNS)


async def test_arguments_that_come_whole_give_one_args(protocol: Protocol) -> None:
    events, _ = await run_turns(protocol)

    calls = [event.data["call_id"] for event in events if event.type is EventType.TOOL_CALL_ARGS]
    assert len(set(calls)) == 3
    assert len(calls) == (3 if protocol.sends_whole_arguments else 6)


def test_the_log_that_is_compared_tells_the_run(
    expected: list[tuple[str, dict[str, Any]]],
) -> None:
    ends = [
        (data["tool_name"], data["outcome"], data["result"])
        for type_, data in expected
        if type_ == EventType.TOOL_CALL_END
    ]
    assert ends == [
        ("look", "ok", "Rome is sunny"),
        ("look", "ok", "Paris is sunny"),
        ("count", "ok", 2),
    ]
    chunks = [data["chunk"] for type_, data in expected if type_ == EventType.MESSAGE_CHUNK]
    assert chunks == [said.text for said in TURNS]
    assert expected[-1][0] == EventType.DONE
    assert expected[-1][1]["status"] == "completed"


def test_a_log_that_differs_in_one_word_is_found_out(
    expected: list[tuple[str, dict[str, Any]]],
) -> None:
    turns = [PROTOCOLS["gemini"].says(said) for said in (*TURNS[:2], Said("Both are rainy."))]

    async def run() -> list[AgentEvent]:
        async with open_model_server(turns) as server, PROTOCOLS["gemini"].to(server) as client:
            return await events_of(agent_of(client))

    assert told(trio.run(run)) != expected


# Any client has to pass

LOOK: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    },
}


async def test_every_client_passes_the_suite_for_clients(protocol: Protocol) -> None:
    async def answer(exchange: Exchange) -> None:
        said = Said("", (("look", {"at": "x"}),)) if "tools" in exchange.body else GOOD_DAY
        await protocol.answers(said)(exchange)

    async with open_model_server([answer]) as server:

        def make() -> Any:
            return protocol.to(server)

        await check_llm_client(make, secret=KEY)
        await check_llm_client(make, tools=[LOOK], secret=KEY, steps=5)


# Servers that cannot stream


JSON = "application/json"
REFUSALS: dict[str, Answer] = {
    "405": refuses(405),
    "501": refuses(501, {"error": {"message": "not implemented"}}),
    "400 that names it": refuses(400, {"error": {"message": "`stream` must be false"}}),
    "422 that names it": refuses(422, {"detail": "Streaming is not supported"}),
    "500 that names it": refuses(500, {"error": "streaming is not available"}),
    "200 that names it": sends_bytes(b'{"error": {"message": "no streaming"}}', content_type=JSON),
    "200 that says something else": sends_bytes(b'{"status": "fine"}', content_type=JSON),
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_server_that_refuses_to_stream_is_asked_once_more(
    protocol: Protocol, refusal: str
) -> None:
    answers = [REFUSALS[refusal], protocol.says_whole(GOOD_DAY)]
    async with open_model_server(answers) as server, protocol.to(server) as client:
        events = await events_of(Agent(llm_client=client))

    assert [protocol.wants_stream(exchange) for exchange in server.exchanges] == [True, False]
    check_whole(events)


def check_whole(events: list[AgentEvent]) -> None:
    types = [event.type for event in events if event.type is not EventType.STATE_CHANGE]
    begin = types.index(EventType.MESSAGE_CHUNK)
    assert types[begin:] == [EventType.MESSAGE_CHUNK, EventType.MESSAGE_COMPLETE, EventType.DONE]
    chunks = [event.data["chunk"] for event in events if event.type is EventType.MESSAGE_CHUNK]
    assert chunks == ["Good day"]
    assert events[-1].data["status"] == "completed"


async def test_an_answer_that_is_plain_json_is_the_reply(protocol: Protocol) -> None:
    answers = [protocol.says_whole(GOOD_DAY)]
    async with open_model_server(answers) as server, protocol.to(server) as client:
        events = await events_of(Agent(llm_client=client))

    assert len(server.exchanges) == 1
    check_whole(events)


async def test_an_error_in_the_stream_that_names_streaming_is_a_refusal_too(
    protocol: Protocol,
) -> None:
    error = {"type": "error", "error": {"message": "this model has no streaming"}}
    event = json.dumps(error).encode() + b"\n\n"
    if protocol.content_type == "text/event-stream":
        event = b"data: " + event
    answers = [
        sends_bytes(event, content_type=protocol.content_type),
        protocol.says_whole(GOOD_DAY),
    ]
    async with open_model_server(answers) as server, protocol.to(server) as client:
        check_whole(await events_of(Agent(llm_client=client)))

    assert len(server.exchanges) == 2


@pytest.mark.parametrize("words", ["no such model", "the upstream host failed"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_any_other_error_is_told_as_it_is(
    protocol: Protocol, status: int, words: str
) -> None:
    refusal = refuses(status, {"error": {"message": words}})
    async with open_model_server([refusal]) as server, protocol.to(server) as client:
        events = await events_of(Agent(llm_client=client))

    assert len(server.exchanges) == 1
    assert events[-2].type is EventType.ERROR
    assert events[-2].data["source"] == "model"
    assert events[-2].data["detail"]["status"] == status
    assert events[-2].data["detail"]["words"] == words


async def test_a_server_that_refuses_both_ways_is_told_of(protocol: Protocol) -> None:
    async with open_model_server([REFUSALS["200 that names it"]]) as server:
        async with protocol.to(server) as client:
            events = await events_of(Agent(llm_client=client))

    assert len(server.exchanges) == 2
    assert events[-2].type is EventType.ERROR


# Answers of a type


async def test_an_invalid_answer_is_asked_for_once_more(protocol: Protocol) -> None:
    turns = [protocol.says(Said('{"result": "many"}')), protocol.says(Said('{"result": 3}'))]
    async with open_model_server(turns) as server, protocol.to(server) as client:
        async with StreamEngine().stream(Agent(llm_client=client, output=int), "hello") as stream:
            assert await stream.result() == 3

    assert len(server.exchanges) == 2
    for exchange in server.exchanges:
        assert '"integer"' in json.dumps(exchange.body)


async def test_a_second_invalid_answer_is_an_error(protocol: Protocol) -> None:
    turns = [protocol.says(Said('{"result": "canary"}'))]
    async with open_model_server(turns) as server, protocol.to(server) as client:
        async with StreamEngine().stream(Agent(llm_client=client, output=int), "hello") as stream:
            events = [event async for event in stream]
            with pytest.raises(RunFailed):
                await stream.result()

    assert len(server.exchanges) == 2
    assert [event.type for event in events[-2:]] == [EventType.ERROR, EventType.DONE]
    assert "canary" not in repr(events[-2].data)


# Images

PIXEL = "iVBORw0KGgo="


async def test_an_image_goes_to_the_model(protocol: Protocol) -> None:
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ]
    async with open_model_server([protocol.answers(GOOD_DAY)]) as server:
        async with protocol.to(server) as client:
            await client.complete([{"role": "user", "content": content}])

    body = json.dumps(server.exchanges[0].body)
    assert PIXEL in body
    assert "What is this?" in body


# Leaving, and what it has cost


async def test_a_run_that_is_cancelled_counts_what_was_seen(protocol: Protocol) -> None:
    text = protocol.stream(Said("word " * 40))

    async def answer(exchange: Exchange) -> None:
        await exchange.send_head(content_type=protocol.content_type)
        for piece in text[: -protocol.finish_mark]:
            await exchange.send(piece)
        await exchange.wait_left()

    async with open_model_server([answer]) as server, protocol.to(server) as client:
        async with StreamEngine().stream(Agent(llm_client=client), "hello") as stream:
            events = []
            async for event in stream:
                events.append(event)
                if event.type is EventType.MESSAGE_CHUNK:
                    stream.cancel()
        with trio.fail_after(30):
            await server.wait_left()

    check_events(events)
    usage = events[-1].data["usage"]
    assert events[-1].data["status"] == "cancelled"
    assert usage["quality"] == "lower_bound"
    assert usage["completion_tokens"] > 0


# Keys


def leaks_of(exc: BaseException) -> str:
    """All that an exception shows: itself, its detail, its traceback with all causes."""
    detail = repr(getattr(exc, "detail", None))
    return "".join(traceback.format_exception(exc)) + repr(exc) + str(exc) + detail


def quoting(protocol: Protocol) -> dict[str, Answer]:
    """Answers that quote the key, as hosts do that refuse it."""
    words = f"wrong key {KEY}"
    error = json.dumps({"type": "error", "error": {"message": words, "code": KEY}})
    prefix = "data: " if protocol.content_type == "text/event-stream" else ""
    begun = protocol.stream(Said("Good day"))[:2]
    kind = protocol.content_type
    return {
        "refused": refuses(401, {"error": {"message": words, "code": KEY, "type": KEY}}),
        "refused in text": sends_bytes(words.encode(), content_type="text/plain"),
        "content type": sends_bytes(b"", content_type=f"text/{KEY}"),
        "request id": refuses(403, {"error": words}, x_request_id=KEY),
        "in the stream": sends_bytes(
            *begun, f"{prefix}{error}\n\n".encode(), content_type=protocol.content_type
        ),
        "malformed": sends_bytes(f"{prefix}{{{KEY}\n\n".encode(), content_type=kind),
        "cut": sends_bytes(*begun, KEY.encode(), content_type=kind, cut=True),
        "whole": sends_bytes(f'{{"error": "{words}"}}'.encode(), content_type=JSON),
        "not JSON": sends_bytes(words.encode(), content_type=JSON),
    }


ANSWERS = list(quoting(PROTOCOLS["chat"]))


async def look_for_the_key(
    protocol: Protocol, answer: Answer, log: Callable[[], str]
) -> tuple[bool, list[AgentEvent]]:
    """Whether the key is seen anywhere when this is the answer."""
    async with open_model_server([answer]) as server, protocol.to(server) as client:
        client._host.jitter = lambda: 0.0
        engine = StreamEngine()
        stream = engine.stream(Agent(llm_client=client), "hello")
        async with stream:
            events = [event async for event in stream]
        with pytest.raises((ProviderError, RemoteProtocolError)) as caught:
            await client.complete(HELLO)
        with pytest.raises(RunFailed) as failed:
            await stream.result()
        shown = [repr(client), repr(client._host), repr(client.statistics()), repr(stream)]
        shown += [repr(event) for event in events]
        shown += [log(), leaks_of(caught.value), leaks_of(failed.value)]
        shown += [repr(client.stream_completion(HELLO)), repr(engine)]
    check_events(events)
    return KEY in "".join(shown), events


@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_key_is_in_no_event_error_traceback_repr_or_log(
    protocol: Protocol, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "flowtrio")
    caplog.set_level("INFO")
    is_seen, events = await look_for_the_key(
        protocol, quoting(protocol)[answer], lambda: caplog.text
    )

    assert events[-2].type is EventType.ERROR
    assert not is_seen


@pytest.mark.parametrize("answer", ["refused", "in the stream", "content type"])
async def test_a_key_that_is_not_hidden_is_found_out(
    protocol: Protocol, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelHost, "hide", lambda self, value: value)
    is_seen, _ = await look_for_the_key(protocol, quoting(protocol)[answer], str)

    assert is_seen


async def test_a_key_is_not_seen_where_nobody_answers(
    protocol: Protocol, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with open_model_server([refuses(500)]) as server:
        url = server.url.replace("127.0.0.1", f"user:{KEY}-word@127.0.0.1")
    async with protocol.to(url) as client:
        client._host.jitter = lambda: 0.0
        with pytest.raises(ProviderError) as caught:
            await client.complete(HELLO)

    assert caught.value.code == "connection_failed"
    assert KEY not in caplog.text + leaks_of(caught.value) + repr(client)


# Errors in other shapes than the protocol's, and hosts that say nothing at all


ODD_ERRORS: dict[str, Any] = {
    "code and message": {"code": 429, "message": "Too many requests"},
    "code as text": {"code": "429", "message": "Too many requests"},
    "object": {"object": "error", "message": "too many requests", "code": 429},
    "object without a code": {"object": "error", "message": "rate limit reached"},
    "type": {"type": "error", "message": "Too many requests", "status": 429},
    "detail": {"detail": "Too many requests"},
    "problem": {"type": "about:blank", "title": "Too Many Requests", "status": 429},
    "errors": {"success": False, "errors": [{"code": 429, "message": "too many requests"}]},
    "errors in text": {"errors": "Too many requests"},
    "nested text": {"error": "Too many requests", "code": 429},
    "message alone": {"message": "Too many requests"},
    "msg": {"error_code": 429, "error_msg": "too many requests"},
    "base_resp": {"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}},
    "a flag and a message": {"error": True, "message": "rate limit exceeded"},
    "a flag and a code": {"error": 1, "code": 429, "message": "slow down"},
    "err": {"err": "Too many requests"},
    "capitals": {"Error": {"Code": "Throttling", "Message": "slow down"}},
    "errorMessage": {"errorMessage": "Too many requests"},
    "errno": {"errno": 429, "errmsg": "slow down"},
    "fault": {"fault": {"faultstring": "Rate limit exceeded", "detail": {}}},
    "in a list": [{"error": {"code": 429, "message": "no", "status": "RESOURCE_EXHAUSTED"}}],
    "Google's": {"error": {"code": 429, "message": "no", "status": "RESOURCE_EXHAUSTED"}},
}


def framed(protocol: Protocol, value: Any, *, name: str = "") -> bytes:
    """A frame of a protocol; the events of SSE may have a name."""
    data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
    if protocol.content_type != "text/event-stream":
        return data + b"\n"
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + data + b"\n\n"


async def fail_of(protocol: Protocol, answer: Answer, count: int) -> dict[str, Any]:
    """The ERROR of a run whose host answers so, after *count* requests."""
    async with open_model_server([answer]) as server, protocol.to(server) as client:
        client._host.jitter = lambda: 0.0
        events = await events_of(Agent(llm_client=client))
    check_events(events)
    assert len(server.exchanges) == count
    assert events[-1].data["status"] == "error"
    return events[-2].data


@pytest.mark.parametrize("shape", ODD_ERRORS)
@pytest.mark.parametrize("is_whole", [False, True], ids=["stream", "whole"])
async def test_an_error_in_another_shape_is_an_error_and_is_tried_again(
    protocol: Protocol, shape: str, is_whole: bool
) -> None:
    frame = framed(protocol, ODD_ERRORS[shape])
    answer = sends_bytes(frame, framed(protocol, "[DONE]"), content_type=protocol.content_type)
    if is_whole:
        answer = sends_bytes(json.dumps(ODD_ERRORS[shape]).encode(), content_type=JSON)
    error = await fail_of(protocol, answer, 3)

    assert (error["code"], error["retryable"]) == ("rate_limited", True)
    assert error["detail"]["words"]


@pytest.mark.parametrize("protocol", NAMED, ids=lambda protocol: protocol.name)
@pytest.mark.parametrize(
    "data",
    ["Too many requests", '{"what": "Too many', "[1]", '{"what": "rate limit exceeded"}', "{}"],
)
async def test_an_event_that_is_named_error_is_one(protocol: Protocol, data: str) -> None:
    answer = sends_bytes(framed(protocol, data, name="error"), content_type=protocol.content_type)
    error = await fail_of(protocol, answer, 3 if data.startswith("T") else 1)

    assert error["code"] == ("rate_limited" if data.startswith("T") else "stream_error")


@pytest.mark.parametrize("shape", ODD_ERRORS)
async def test_an_error_in_mid_stream_is_told_in_every_shape(
    protocol: Protocol, shape: str
) -> None:
    begun = protocol.stream(Said("Good day"))[: -protocol.finish_mark]
    frames = [*begun, framed(protocol, ODD_ERRORS[shape])]
    error = await fail_of(protocol, sends_bytes(*frames, content_type=protocol.content_type), 1)

    assert error["code"] == "rate_limited"


async def test_a_host_that_says_nothing_is_asked_again(protocol: Protocol) -> None:
    for answer in (
        sends_bytes(content_type=protocol.content_type),
        sends_bytes(b": hello\n\n", content_type="text/event-stream"),
    ):
        if protocol.content_type != "text/event-stream":
            answer = sends_bytes(content_type=protocol.content_type)
        error = await fail_of(protocol, answer, 3)
        assert (error["code"], error["retryable"]) == ("empty_reply", True)


async def test_done_with_nothing_said_is_an_error() -> None:
    error = await fail_of(PROTOCOLS["chat"], sends_bytes(b"data: [DONE]\n\n"), 3)

    assert (error["code"], error["retryable"]) == ("empty_reply", True)


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "ping"},
        {"error": None},
        {"error": False, "errors": []},
        {"code": 0, "msg": "Success"},
        {},
    ],
    ids=repr,
)
async def test_what_is_no_error_is_taken_for_none(protocol: Protocol, frame: Any) -> None:
    begun = protocol.stream(GOOD_DAY)
    frames = [*begun[:1], framed(protocol, frame), *begun[1:]]
    answer = sends_bytes(*frames, content_type=protocol.content_type)
    async with open_model_server([answer]) as server, protocol.to(server) as client:
        assert (await client.complete(HELLO)).content == "Good day"


# Keys that are asked for, and what an error says


async def test_a_key_may_be_a_function_that_is_asked_at_each_request(protocol: Protocol) -> None:
    keys = iter(["first-canary-key", "second-canary-key", "third-canary-key"])

    async def key() -> str:
        await trio.lowlevel.checkpoint()
        return next(keys)

    answers = [
        refuses(503),
        protocol.answers(GOOD_DAY),
        refuses(401, {"error": "third-canary-key"}),
    ]
    async with open_model_server(answers) as server, protocol.to(server) as plain:
        given: dict[str, Any] = {"api": plain.api} if hasattr(plain, "api") else {}
        url = plain._host.base_url
        async with type(plain)(api_key=key, model="m", base_url=url, **given) as client:
            client._host.jitter = lambda: 0.0
            assert (await client.complete(HELLO)).content == "Good day"
            with pytest.raises(ProviderError) as caught:
                await client.complete(HELLO)

    seen = [repr(sorted(exchange.headers.items())) for exchange in server.exchanges]
    assert ["first-canary-key" in seen[0], "second-canary-key" in seen[1]] == [True, True]
    assert "third-canary-key" in seen[2]
    assert "canary" not in leaks_of(caught.value)


async def test_the_text_of_an_error_has_the_providers_words_its_code_and_the_model(
    protocol: Protocol, caplog: pytest.LogCaptureFixture
) -> None:
    words = "no such\nmodel " + "x" * 400
    refusal = refuses(400, {"error": {"message": words, "code": "model_gone"}})
    async with open_model_server([refusal]) as server, protocol.to(server) as client:
        events = await events_of(Agent(llm_client=client))

    error = events[-2].data["error"]
    assert f"answered 400, expected 200: no such model {'x' * 286}…" in error
    assert error.endswith(f"(code model_gone, model {client.model})")
    assert error in caplog.text
