"""The specification's web examples, verbatim, with what a browser brings itself.

On Hypercorn's trio worker. A page of the same origin stands beside each example; its scripts are
the browser's own `WebSocket`, `EventSource` and `fetch`. They end what they read on `pagehide`:
a browser may keep a page that was left for its back button, with its connections open.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from fastapi.responses import HTMLResponse

from flowtrio import Agent, Orchestrator
from tests.browser._model import Puppet
from tests.docs.test_serving import with_watcher
from tests.support.chromium import Address, Chromium, Page, open_chromium
from tests.support.leaving import Endless, check_ends_within_a_second
from tests.support.web_examples import SSE, WEBSOCKET, run_example
from tests.support.worker import serving

OPEN_SOCKET = """void (() => {
    window.heard = [];
    window.socket = new WebSocket(new URL("/chat", location).href.replace("http", "ws"));
    socket.onmessage = ({ data }) => heard.push(JSON.parse(data));
    addEventListener("pagehide", () => socket.close());
})()"""

EVENT_SOURCE = """void (() => {
    window.heard = [];
    const source = new EventSource(`/chat/stream?message=${values[0]}`);
    source.onmessage = ({ data }) => {
      heard.push(JSON.parse(data));
      // It would come back and ask again: the example's answer ends like a connection that broke.
      if (heard.at(-1).type === "done") source.close();
    };
    addEventListener("pagehide", () => source.close());
})()"""

FETCH = """void (async () => {
    window.heard = [];
    const leaving = new AbortController();
    addEventListener("pagehide", () => leaving.abort());
    const { signal } = leaving;
    const response = await fetch(`/chat/stream?message=${values[0]}`, { signal }).catch(() => {});
    window.kind = response.headers.get("content-type");
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ; ) {
      const { done, value } = await reader.read().catch(() => ({ done: true }));
      if (done) break;
      text += value;
      const blocks = text.split("\\n\\n");
      text = blocks.pop();
      for (const block of blocks) heard.push(JSON.parse(block.replace("data: ", "")));
    }
})()"""

CHUNKS = "heard.filter((event) => event.type === 'message_chunk').map((event) => event.data.chunk)"


async def until_heard(page: Page, *words: str) -> None:
    """Wait until the model's words have come, in this order and in these pieces."""
    await page.until(f"JSON.stringify({CHUNKS}) === JSON.stringify(values)", *words)


async def until_done(page: Page, times: int = 1) -> None:
    """Wait until so many runs have completed."""
    done = "heard.filter((event) => event.type === 'done' && event.data.status === 'completed')"
    await page.until(f"{done}.length === {times}")


@asynccontextmanager
async def open_page_beside(chromium: Address, app: Any) -> AsyncIterator[tuple[Chromium, str]]:
    """Serve an example and a page of the same origin; gives a browser and the page's address."""

    @app.get("/", response_class=HTMLResponse)
    async def page() -> str:
        return "<!doctype html><title>A page</title><link rel=icon href='data:,'>"

    with trio.fail_after(60):
        async with open_chromium(chromium) as browser, serving(app) as url:
            yield browser, f"{url}/"


async def test_the_websocket_example_answers_a_browser_message_after_message(
    chromium: Address,
) -> None:
    model = Puppet()
    app = await run_example(WEBSOCKET, Orchestrator(agents=[Agent(llm_client=model)]))
    async with open_page_beside(chromium, app) as (browser, url), browser.open_page(url) as page:
        await page.run(OPEN_SOCKET)
        await page.until("socket.readyState === WebSocket.OPEN")
        words: list[str] = []
        for number, text in enumerate(("Paris?", "Rome?"), start=1):
            await page.run("socket.send(values[0])", text)
            for word in ("One", " two", " three"):
                model.say(word)
                words.append(word)
                await until_heard(page, *words)
            model.end()
            await until_done(page, number)
        asked = "heard.filter((event) => event.type === 'run_start').map((e) => e.data.message)"

        assert await page.run(asked) == ["Paris?", "Rome?"]
        assert page.problems == []


@pytest.mark.parametrize("script", [EVENT_SOURCE, FETCH], ids=["event-source", "fetch"])
async def test_the_sse_example_streams_to_a_browser(chromium: Address, script: str) -> None:
    model = Puppet()
    app = await run_example(SSE, Orchestrator(agents=[Agent(llm_client=model)]))
    async with open_page_beside(chromium, app) as (browser, url), browser.open_page(url) as page:
        await page.run(script, "Paris?")
        words: list[str] = []
        for word in ("One", " two", " three"):
            model.say(word)
            words.append(word)
            # Each before the next is said: nothing keeps them back.
            await until_heard(page, *words)
        model.end()
        await until_done(page)

        assert await page.run("heard[0].data.message") == "Paris?"
        assert await page.run("heard.at(-1).type") == "done"
        if script == FETCH:
            assert (await page.run("kind")).startswith("text/event-stream")
        assert page.problems == []


# Leaving


async def leave(page: Page, url: str, how: str) -> None:
    """Have the page go away from what it reads."""
    match how:
        case "goes elsewhere":
            await page.go(f"{url}elsewhere")
        case "is reloaded":
            await page.reload()
        case "is closed":
            await page.close()
        case "closes its socket":
            await page.run("socket.close()")


@pytest.mark.parametrize("how", ["goes elsewhere", "is reloaded", "is closed"])
@pytest.mark.parametrize("script", [EVENT_SOURCE, FETCH], ids=["event-source", "fetch"])
async def test_a_page_that_leaves_the_sse_example_cancels_its_run(
    chromium: Address, script: str, how: str
) -> None:
    agent = Endless()
    app = await run_example(SSE, Orchestrator(agents=[agent]))
    async with open_page_beside(chromium, app) as (browser, url), browser.open_page(url) as page:
        await page.run(script, "hello")
        await until_heard(page, "one")
        await leave(page, url, how)
        await check_ends_within_a_second(agent, trio.current_time())

        assert agent.begun == 1


@pytest.mark.parametrize("how", ["goes elsewhere", "is closed", "closes its socket"])
@pytest.mark.parametrize("where", ["guide", "example"])
async def test_a_page_that_leaves_the_websocket_with_a_watcher_cancels_its_run(
    chromium: Address, where: str, how: str
) -> None:
    agent = Endless()
    program: dict[str, Any] = {"agent": agent, "__name__": "guide"}
    exec(with_watcher(where), program)
    program["orchestrator"] = Orchestrator(agents=[agent])
    async with (
        open_page_beside(chromium, program["app"]) as (browser, url),
        browser.open_page(url) as page,
    ):
        await page.run(OPEN_SOCKET)
        await page.until("socket.readyState === WebSocket.OPEN")
        await page.run("socket.send('hello')")
        await until_heard(page, "one")
        await leave(page, url, how)
        await check_ends_within_a_second(agent, trio.current_time())


async def test_the_websocket_example_as_written_does_not_notice_who_leaves(
    chromium: Address,
) -> None:
    """Why the documents show it with a watcher; and what the test above would find."""
    agent = Endless()
    app = await run_example(WEBSOCKET, Orchestrator(agents=[agent]))
    async with open_page_beside(chromium, app) as (browser, url), browser.open_page(url) as page:
        await page.run(OPEN_SOCKET)
        await page.until("socket.readyState === WebSocket.OPEN")
        await page.run("socket.send('hello')")
        await until_heard(page, "one")
        await leave(page, url, "is closed")
        with trio.move_on_after(1.5):
            await agent.ended.wait()

        assert not agent.ended.is_set()
