"""What a browser brings itself, without our module, against the server."""

from __future__ import annotations

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
            stage.served.url,
        )

        assert outcome == "refused"
        assert any("403" in problem for problem in elsewhere.problems), elsewhere.problems
