"""Images and files over the network: what a server takes, shows, serves, and refuses."""

from __future__ import annotations

import contextlib
import json
from typing import Any, Final

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from flowtrio import (
    Agent,
    File,
    Image,
    Orchestrator,
    RemoteProtocolError,
    ServerLimits,
    Text,
    ToolCall,
    tool,
)
from flowtrio._core._media import encode_data
from flowtrio._core._parts import UserMessage, read_message
from flowtrio.testing import ScriptedModel, check_events
from flowtrio.wire._frames import (
    BadFrame,
    MessageCommand,
    PostCommand,
    TooLarge,
    decode_command,
    decode_large,
    decode_large_request,
    said_by,
)
from flowtrio.wire._sent_parts import encode_sent
from flowtrio.wire._sse import SSEDecoder
from tests.support.remote import connected
from tests.support.site import as_events, site
from tests.support.ws_peer import (
    connect,
    frame,
    open_server,
    raw,
    read_all,
    read_until,
    upgraded,
)

PNG: Final = b"\x89PNG\r\n\x1a\n"
DATA: Final = encode_data(PNG)
SENT: Final = {"type": "image", "data": DATA, "name": "cat.png"}
TOLD: Final = {"kind": "image", "media_type": "image/png", "bytes": 8, "name": "cat.png"}
ASKED: Final = [Text("What is it?"), Image(data=PNG, name="cat.png")]


def said(given: Any, message: str = "hi", **limits: Any) -> UserMessage:
    """What a server with these limits takes from a client's command."""
    text = json.dumps({"type": "message", "message": message, "parts": given})
    command = decode_command(text, 32)
    assert isinstance(command, MessageCommand)
    return said_by(command, ServerLimits(**limits))


# What is taken


def test_parts_stand_behind_the_text() -> None:
    url = {"type": "file", "url": "https://example.org/a.pdf", "name": "b.pdf"}
    message = said([SENT, {"type": "text", "text": "and"}, url])

    assert list(message) == [
        Text("hi"),
        Image(data=PNG, name="cat.png"),
        Text("and"),
        File(url="https://example.org/a.pdf", name="b.pdf"),
    ]
    assert message.text == "hi\nand"
    assert len(message) == 4
    assert message[0] == Text("hi")


def test_a_message_may_have_no_text_beside_its_parts() -> None:
    assert list(said([SENT], message="")) == [Image(data=PNG, name="cat.png")]
    assert list(said([SENT], message=" ")) == [Image(data=PNG, name="cat.png")]


def test_a_message_without_parts_is_its_text() -> None:
    assert said([]).content == "hi"


@pytest.mark.parametrize(
    ("parts", "limits", "words"),
    [
        ([SENT] * 3, {"parts": 2}, "parts: has 3, more than 2"),
        ([SENT] * 3, {"part_bytes": 23}, "parts: have 24 bytes, more than 23"),
        ([{**SENT, "data": "%%%%"}], {}, r"parts\[0\]: expected base64"),
        ([{**SENT, "data": DATA[:-1]}], {}, r"parts\[0\]: expected base64"),
        ([{**SENT, "data": ""}], {}, "at least one byte"),
        ([{"type": "image"}], {}, "expected one of url=, data= and path="),
        ([{**SENT, "url": "https://example.org"}], {}, "expected one of url=, data="),
        ([{**SENT, "media_type": "image/jpeg"}], {}, "its bytes are image/png"),
        ([{**SENT, "media_type": "text/html"}], {}, "its bytes are image/png"),
        ([SENT], {"media_types": ("image/gif",)}, "image/png is not taken here, expected one of"),
        ([SENT], {"media_types": ()}, "image/png is not taken here"),
        ([{"type": "file", "data": DATA[4:8], "name": "a.html"}], {}, "text/html is not taken"),
        ([{"type": "file", "data": DATA[4:8], "name": "a.exe"}], {}, "expected media_type="),
        ([{"type": "image", "url": "http:/x"}], {}, "an address that begins with https://"),
        ([{"type": "image", "url": "file:///etc/passwd"}], {}, "begins with https://"),
        ([{"type": "image", "url": f"data:image/png;base64,{DATA}"}], {}, "begins with https://"),
        ([{"type": "image", "url": "gs://bucket/a.png"}], {}, "begins with https://"),
    ],
)
def test_what_a_server_does_not_take_is_refused_with_its_place(
    parts: Any, limits: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadFrame, match=words) as caught:
        said(parts, **limits)
    assert caught.value.code == "bad_parts"


@pytest.mark.parametrize(
    "parts",
    [
        None,
        {},
        "text",
        [3],
        [{}],
        [{"type": "path", "path": "/etc/passwd"}],
        [{"type": "image", "path": "/etc/passwd"}],
        [{"type": "image", "data": 3}],
        [{"type": "text"}],
        [[[[[[[]]]]]]],
    ],
)
def test_what_is_no_list_of_parts_is_a_bad_frame(parts: Any) -> None:
    with pytest.raises(BadFrame) as caught:
        said(parts)
    assert caught.value.code == "bad_frame"


@given(st.binary(max_size=40), st.sampled_from([None, "image/png", "text/plain", "a/b", "x"]))
def test_whatever_a_client_sends_is_taken_or_refused(data: bytes, media_type: str | None) -> None:
    for kind in ("image", "file"):
        part = {"type": kind, "data": data.decode("latin-1"), "media_type": media_type}
        held = {**part, "data": encode_data(data)}
        for sent in (part, held):
            with contextlib.suppress(BadFrame):
                assert said([sent])[0] == Text("hi")


def test_what_the_library_sends_is_what_the_server_reads() -> None:
    parts = [*ASKED, File(url="https://example.org/a.pdf"), Text("b"), File(data=b"%PDF-1.7")]
    sent = {"type": "message", **encode_sent(read_message(parts))}
    command = decode_command(json.dumps(sent), 32)

    assert isinstance(command, MessageCommand)
    assert said_by(command, ServerLimits()) == read_message(parts)
    assert encode_sent(read_message("hello")) == {"message": "hello"}


# What is large


def test_only_a_message_with_parts_may_be_large() -> None:
    large = decode_large(json.dumps({"type": "message", "message": "a", "parts": [SENT]}))

    assert said_by(large, ServerLimits()).media == (TOLD,)
    for text in ('"text"', "x" * 99, "[[[[", '{"type": "message", "message": "a"}', "[" * 10**5):
        with pytest.raises((TooLarge, BadFrame)):
            decode_large(text)
    for text in ("x", '{"message": "a"}', '{"type": "cancel", "message": "", "parts": []}'):
        with pytest.raises(TooLarge):
            decode_large(text)
    with pytest.raises(BadFrame, match="unknown field"):
        decode_large('{"type": "message", "message": "a", "junk": [1, 2, 3]}')


def test_so_may_what_is_posted_to_a_run() -> None:
    post = {"message": "a", "parts": [SENT], "interrupt": True}
    framed = decode_large(json.dumps({"type": "post", "run_id": "r", **post}))
    requested = decode_large_request("post", json.dumps(post).encode(), run_id="r")

    assert framed == requested
    assert isinstance(framed, PostCommand)
    assert framed.interrupt
    assert said_by(framed, ServerLimits()).media == (TOLD,)
    for bad in ({"type": "post", **post}, {"type": "post", "run_id": "r", **post, "junk": 1}):
        with pytest.raises(BadFrame, match="post: "):
            decode_large(json.dumps(bad))
    with pytest.raises(TooLarge):
        decode_large_request("post", b'{"message": "a"}', run_id="r")
    with pytest.raises(BadFrame, match="run_id"):
        decode_large_request("post", json.dumps({**post, "run_id": "x"}).encode(), run_id="r")


LIMITS: Final = ServerLimits(message=1000, part_bytes=10_000)
LARGE: Final = {"type": "image", "data": encode_data(PNG + bytes(5000))}


async def test_a_large_image_is_taken_on_a_websocket_and_a_large_text_is_not() -> None:
    orchestrator = Orchestrator(llm_client=ScriptedModel("a cat"))
    async with open_server(orchestrator, limits=LIMITS) as served:
        async with connect(served) as peer:
            await peer.send(type="message", message="hi", parts=[LARGE])
            log = [frame for frame in await peer.until("done") if "seq" in frame]
        async with connect(served) as peer:
            await peer.send(type="message", message="x" * 5000)
            code, _ = await peer.closed()

    check_events(as_events(log))
    assert log[0]["data"]["parts"][0]["bytes"] == 5008
    assert code == 1009


@tool(needs_approval=True)
async def pay(amount: int) -> int:
    """Pay."""
    return amount


def paying() -> Agent:
    """An agent that waits for a person, and replies once more when it was answered."""
    return Agent(
        llm_client=ScriptedModel([ToolCall("1", "pay", {"amount": 1})], "paid"), tools=[pay]
    )


async def test_a_large_image_is_posted_to_a_run_on_a_websocket() -> None:
    async with open_server(paying(), limits=LIMITS) as served, connect(served) as peer:
        await peer.send("go")
        asked = (await peer.until("approval_required"))[-1]
        run = {"run_id": asked["run_id"]}
        await peer.send(type="post", **run, message="look", parts=[LARGE], ref=1)
        await peer.until("accepted")
        await peer.send(type="post", **run, message="x", parts=[LARGE], junk="y", ref=2)
        refused = (await peer.until("rejected"))[-1]
        await peer.send(type="approve", **run, call_id=asked["data"]["call_id"])
        log = [frame for frame in await peer.until("done") if "seq" in frame]

    [said] = [frame["data"] for frame in log if frame["type"] == "user_message"]
    assert (said["message"], said["parts"][0]["bytes"]) == ("look", 5008)
    assert refused["code"] == "bad_frame"


async def test_a_large_text_is_posted_to_no_run() -> None:
    async with open_server(paying(), limits=LIMITS) as served, connect(served) as peer:
        await peer.send("go")
        run_id = (await peer.until("approval_required"))[-1]["run_id"]
        await peer.send(type="post", run_id=run_id, message="x" * 5000)
        code, _ = await peer.closed()

    assert code == 1009


async def test_a_large_image_is_posted_to_a_run_by_a_request() -> None:
    async def answer(control: str, **body: Any) -> int:
        return (await s.http.post(f"/runs/r1/{control}", json=body)).status_code

    answered, events = [], []
    decoder = SSEDecoder()
    async with site(paying(), limits=LIMITS) as s:
        started = {"message": "go", "run_id": "r1"}
        async with s.http.stream("POST", "/chat/stream", json=started) as response:
            async for piece in response.aiter_bytes():
                for event in map(json.loads, (e.data for e in decoder.receive_data(piece))):
                    events.append(event)
                    if event["type"] == "approval_required":
                        answered = [
                            await answer("post", message="look", parts=[LARGE]),
                            await answer("post", message="x" * 5000),
                            await answer("deny", call_id="1", reason="x" * 5000),
                            await answer("post", message="x", parts=[LARGE], junk=1),
                            await answer("approve", call_id=event["data"]["call_id"]),
                        ]

    [said] = [event["data"] for event in events if event["type"] == "user_message"]
    assert (said["message"], said["parts"][0]["bytes"]) == ("look", 5008)
    assert answered == [200, 413, 413, 400, 200]


async def test_who_sends_something_large_slowly_need_answer_no_ping() -> None:
    # Of what has to come, more comes sooner on any machine; all of it takes longer than both.
    limits = ServerLimits(message=1000, ping_interval=0.3, ping_timeout=0.7)
    orchestrator = Orchestrator(llm_client=ScriptedModel("a cat"))
    text = json.dumps({"type": "message", "message": "hi", "parts": [LARGE]}).encode()
    sent = frame(text)
    async with open_server(orchestrator, limits=limits) as served, raw(served) as stream:
        await upgraded(served, stream)
        for start in range(0, len(sent), 250):
            await stream.send_all(sent[start : start + 250])
            await trio.sleep(0.05)
        answer = await read_until(stream, b'"done"')

    assert b'"bytes":5008' in answer


async def test_a_large_message_that_does_not_come_on_is_given_up() -> None:
    limits = ServerLimits(message=1000, ping_interval=0.1, ping_timeout=0.1)
    text = json.dumps({"type": "message", "message": "hi", "parts": [LARGE]}).encode()
    async with open_server(Orchestrator(llm_client=ScriptedModel()), limits=limits) as served:
        async with raw(served) as stream:
            await upgraded(served, stream)
            await stream.send_all(frame(text)[:3000])
            await read_all(stream)


async def test_bad_parts_are_rejected_and_the_connection_goes_on() -> None:
    orchestrator = Orchestrator(llm_client=ScriptedModel("hello"))
    async with open_server(orchestrator, limits=LIMITS) as served:
        async with connect(served) as peer:
            await peer.send(type="message", message="hi", parts=[{**SENT, "data": "?"}], ref=1)
            refused = await peer.receive()
            await peer.send("hi")
            await peer.until("done")

    assert (refused["type"], refused["ref"], refused["code"]) == ("rejected", 1, "bad_parts")


# Over HTTP


async def test_a_conversation_shows_its_parts_and_serves_each() -> None:
    model = ScriptedModel("a cat", "the same")
    async with site(orchestrator=Orchestrator(llm_client=model)) as s:
        asked = {"message": "What is it?", "session_id": "s", "parts": [SENT]}
        events, _ = await s.follow("POST", "/chat/stream", json=asked)
        url = {"type": "image", "url": "https://example.org/a.png"}
        again = {"message": "And it?", "session_id": "s", "parts": [url, {**SENT, "name": "é.png"}]}
        await s.follow("POST", "/chat/stream", json=again)
        shown = (await s.http.get("/sessions/s")).json()["messages"]
        found = await s.http.get("/sessions/s/parts/0")
        named = await s.http.get("/sessions/s/parts/2")
        refused = [
            (await s.http.get(f"/sessions/{place}")).status_code
            for place in ("s/parts/1", "s/parts/3", "s/parts/x", "s/parts/-1", "z/parts/0")
        ]
        posted = await s.http.post("/sessions/s/parts/0")

    check_events(as_events(events))
    assert events[0]["data"]["parts"] == [TOLD]
    assert shown[0]["content"] == [
        {"type": "text", "text": "What is it?"},
        {
            "type": "image",
            "media_type": "image/png",
            "bytes": 8,
            "name": "cat.png",
            "part": 0,
        },
    ]
    assert shown[2]["content"][1]["url"] == "https://example.org/a.png"
    assert shown[2]["content"][2]["part"] == 2
    assert found.content == PNG
    assert found.headers["content-type"] == "image/png"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["content-disposition"] == "inline; filename*=UTF-8''cat.png"
    assert "sandbox" in found.headers["content-security-policy"]
    assert named.headers["content-disposition"] == "inline; filename*=UTF-8''%C3%A9.png"
    assert refused == [404] * 5
    assert posted.status_code == 405


@pytest.mark.parametrize(
    ("media_type", "content_type", "disposition"),
    [
        ("image/svg+xml", "image/svg+xml", "attachment"),
        ("text/html", "text/html; charset=utf-8", "attachment"),
        ("application/pdf", "application/pdf", "attachment"),
        ("application/xhtml+xml", "application/xhtml+xml", "attachment"),
        ("text/plain", "text/plain; charset=utf-8", "inline"),
        ("image/png", "image/png", "inline"),
        ("text/html\r\nx: y", "application/octet-stream", "attachment"),
        ("nonsense", "application/octet-stream", "attachment"),
    ],
)
async def test_what_a_browser_would_run_it_is_offered_to_keep(
    media_type: str, content_type: str, disposition: str
) -> None:
    orchestrator = Orchestrator(llm_client=ScriptedModel())
    url = f"data:{media_type};base64,{DATA}"
    content = [{"type": "image_url", "image_url": {"url": url}}]
    await orchestrator.conversations.save("default", "s", [{"role": "user", "content": content}])
    async with site(orchestrator=orchestrator) as s:
        found = await s.http.get("/sessions/s/parts/0")

    assert found.headers["content-type"] == content_type
    assert found.headers["content-disposition"].partition(";")[0] == disposition
    assert found.headers["x-content-type-options"] == "nosniff"


async def test_parts_that_are_none_are_shown_as_they_are_and_not_served() -> None:
    orchestrator = Orchestrator(llm_client=ScriptedModel())
    broken = {"type": "image_url", "image_url": {"url": "data:image/png,x"}}
    garbage = {"type": "image_url", "image_url": {"url": "data:image/png;base64,?"}}
    content = ["odd", broken, garbage]
    await orchestrator.conversations.save("default", "s", [{"role": "user", "content": content}])
    async with site(orchestrator=orchestrator) as s:
        shown = (await s.http.get("/sessions/s")).json()["messages"][0]["content"]
        found = await s.http.get("/sessions/s/parts/0")

    assert shown[:2] == ["odd", broken]
    assert shown[2]["part"] == 0
    assert found.status_code == 404


async def test_another_tenants_parts_are_not_there() -> None:
    orchestrator = Orchestrator(llm_client=ScriptedModel())
    content = read_message(ASKED).content
    await orchestrator.conversations.save("ann", "s", [{"role": "user", "content": content}])

    def who(request: Any) -> str | None:
        return request.headers.get("authorization")  # type: ignore[no-any-return]

    async with site(orchestrator=orchestrator, authenticate=who) as s:
        found = [
            (await s.http.get("/sessions/s/parts/0", headers=headers)).status_code
            for headers in ({"authorization": "ann"}, {"authorization": "bob"}, {})
        ]

    assert found == [200, 404, 401]


async def test_a_large_body_has_parts_or_is_refused() -> None:
    orchestrator = Orchestrator(llm_client=ScriptedModel("a cat"))
    async with site(orchestrator=orchestrator, limits=LIMITS) as s:
        asked = {"message": "", "parts": [LARGE]}
        events, _ = await s.follow("POST", "/chat/stream", json=asked)
        refused = [
            (await s.http.post("/chat/stream", json=body)).status_code
            for body in (
                {"message": "x" * 5000},
                {"message": "x", "parts": [LARGE] * 20},
                {"message": "x", "parts": [LARGE], "junk": "y"},
                {"message": "x", "parts": [{**LARGE, "name": "y" * 5000}] * 3},
            )
        ]

    assert events[0]["data"]["parts"][0]["bytes"] == 5008
    assert refused == [413, 413, 400, 400]


# Read over the network


async def test_a_remote_stream_sends_images() -> None:
    model = ScriptedModel("a cat", "a cat")
    async with open_server(Orchestrator(llm_client=model)) as served:
        async with connected(served) as remote:
            async with remote.process_stream(ASKED) as stream:
                events = [event async for event in stream]
            assert await remote.process(ASKED) == "a cat"

    check_events(events)
    assert events[0].data["parts"] == [TOLD]
    assert model.requests[0].messages[0]["content"] == read_message(ASKED).content


async def test_a_remote_stream_is_told_what_its_server_does_not_take() -> None:
    limits = ServerLimits(media_types=("image/gif",))
    orchestrator = Orchestrator(llm_client=ScriptedModel())
    async with open_server(orchestrator, limits=limits) as served:
        async with connected(served) as remote:
            with pytest.raises(RemoteProtocolError, match="image/png is not taken here") as caught:
                await remote.process(ASKED)

    assert caught.value.code == "bad_parts"
