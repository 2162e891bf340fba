"""What a browser brings itself, without our module, against the server."""

from __future__ import annotations

import trio

from tests.browser.conftest import OpenStage

NATIVE = """new Promise((resolve, reject) => {
    const socket = new WebSocket(new URL("chat", location).href.replace("http", "ws"));
    const frames = [];
    socket.onopen = () => socket.send(values[0]);
    socket.onerror = () => reject(new Error("the connection failed"));
    socket.onmessage = ({ data }) => {
      frames.push(JSON.parse(data));
      if (frames.at(-1).type === "done") resolve(frames);
    };
})"""


async def test_a_plain_websocket_sends_a_text_and_gets_the_events(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        stage.model.answer("One", " two")
        reply, *events = await stage.page.run(NATIVE, "hello")

        assert reply == {"type": "accepted", "ref": None, "run_id": events[0]["run_id"]}
        assert [event["seq"] for event in events] == list(range(len(events)))
        assert [e["data"]["chunk"] for e in events if e["type"] == "message_chunk"] == [
            "One",
            " two",
        ]
        assert events[-1]["data"]["status"] == "completed"


async def test_a_websocket_of_a_page_from_elsewhere_is_refused(open_stage: OpenStage) -> None:
    """The server's own rule: this page has no policy that would keep it from trying."""
    async with open_stage() as stage, stage.page.browser.open_page() as elsewhere:
        assert await elsewhere.run("location.href") == "about:blank"

        outcome = await elsewhere.run(
            """new Promise((resolve) => {
                const socket = new WebSocket(values[0]);
                socket.onopen = () => resolve("open");
                socket.onerror = () => resolve("refused");
            })""",
            stage.front.url.replace("http", "ws") + "chat",
        )

        assert outcome == "refused"
        # The browser tells it in a message of its own, which may come after the script's.
        await elsewhere.until_problem("403")


EVENT_SOURCE = """new Promise((resolve, reject) => {
    const source = new EventSource(values[0]);
    const frames = [];
    let opened = 0;
    source.onopen = () => (opened += 1);
    // It comes back by itself after a drop; 204, once DONE was read, is what ends it.
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) resolve([frames, opened]);
    };
    source.onmessage = ({ data, lastEventId }) => {
      window.heard = frames.push({ ...JSON.parse(data), lastEventId });
    };
})"""


async def test_an_event_source_reads_a_run_to_its_end_and_is_told_to_stop(
    open_stage: OpenStage,
) -> None:
    async with open_stage() as stage:
        stage.model.answer("One", " two")
        url = "chat/stream?message=hello&run_id=r-1"
        frames, opened = await stage.page.run(EVENT_SOURCE, url)

        assert [frame["seq"] for frame in frames] == list(range(len(frames)))
        assert frames[-1]["type"] == "done"
        assert frames[-1]["lastEventId"] == f"r-1:{len(frames) - 1}"
        assert opened == 1


async def test_an_event_source_comes_back_by_itself_to_the_next_event(
    open_stage: OpenStage,
) -> None:
    async with open_stage() as stage, trio.open_nursery() as nursery:

        async def interrupt() -> None:
            await stage.page.until("window.heard >= 3")
            stage.front.cut()
            stage.model.answer(" two")

        stage.model.say("One")
        nursery.start_soon(interrupt)
        frames, opened = await stage.page.run(EVENT_SOURCE, "chat/stream?message=hello")

        assert [frame["seq"] for frame in frames] == list(range(len(frames)))
        assert frames[-1]["data"]["status"] == "completed"
        assert opened >= 2
