"""What a page from elsewhere makes a browser send to a server: it starts and stops nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest
import trio
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from flowtrio import Orchestrator
from flowtrio.asgi import App, create_app
from flowtrio.serving.http._door import Door
from tests.support.chromium import Address, Page, open_chromium
from tests.support.leaving import Endless
from tests.support.worker import serving

FORM = """(([method, enctype, path, fields]) => {
    const form = document.createElement("form");
    // A frame of its own: one that is on its way to another answer may not take this one.
    const target = `sink${document.forms.length}`;
    document.body.insertAdjacentHTML("beforeend", `<iframe name=${target}></iframe>`);
    Object.assign(form, { method, enctype, target, action: server + path });
    for (const [name, value] of fields) {
      const field = form.appendChild(document.createElement("input"));
      Object.assign(field, { name, value });
    }
    document.body.append(form);
    form.submit();
})"""

# A body of text/plain that is JSON: name, "=" and value of one field.
JSON_FIELD = '[[\'{"message": "form", "session_id": "\', \'"}\']]'

ATTACKS = {
    "an image": "new Image().src = server + 'chat/stream?message=image'",
    "an image that is forgotten": "new Image().src = server + 'chat/stream?message=a&run_id=other'",
    "a script": """document.head.append(
        Object.assign(document.createElement("script"), { src: server + "chat/stream?message=s" })
    )""",
    "a frame": """document.body.append(
        Object.assign(document.createElement("iframe"), { src: server + "chat/stream?message=f" })
    )""",
    "a form": f"{FORM}(['get', '', 'chat/stream', [['message', 'form']]])",
    "a form of plain text": f"{FORM}(['post', 'text/plain', 'chat/stream', {JSON_FIELD}])",
    "a form of fields": (
        f"{FORM}(['post', 'application/x-www-form-urlencoded', 'chat/stream', [['message', 'a']]])"
    ),
    "a form that cancels": (
        f"{FORM}(['post', 'text/plain', 'runs/own/cancel', [['{{\"reason\": \"', '\"}}']]])"
    ),
    "a blind fetch": "fetch(server + 'chat/stream?message=a', { mode: 'no-cors' })",
    "a blind post": """fetch(server + "chat/stream", {
        mode: "no-cors", method: "POST", body: '{"message": "a"}',
    })""",
    "a blind post that cancels": """fetch(server + "runs/own/cancel", {
        mode: "no-cors", method: "POST", body: "{}",
    })""",
    "a fetch": "fetch(server + 'chat/stream?message=a')",
    "a fetch of JSON": """fetch(server + "chat/stream", {
        method: "POST", body: '{"message": "a"}', headers: { "content-type": "application/json" },
    })""",
    "a deletion": "fetch(server + 'sessions/s', { method: 'DELETE' })",
    "a beacon": "navigator.sendBeacon(server + 'chat/stream', '{\"message\": \"a\"}')",
    "an event source": "new EventSource(server + 'chat/stream?message=a')",
    "a websocket": """(() => {
        const socket = new WebSocket(server.replace("http", "ws") + "chat");
        socket.onopen = () => socket.send("hello");
    })()""",
    "a link": "location.href = server + 'chat/stream?message=a'",
}


@attrs.define
class Watched:
    """An application, and what it answered with which status."""

    app: App
    answers: list[tuple[str, int]] = attrs.field(factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)

        async def note(message: Any) -> None:
            match message["type"]:
                case "http.response.start" | "websocket.http.response.start":
                    self.answers.append((scope["path"], message["status"]))
                case "websocket.accept":
                    self.answers.append((scope["path"], 101))
            await send(message)

        await self.app(scope, receive, note)


@attrs.frozen
class Attack:
    """A server with a run under way, and a page from elsewhere that knows its address."""

    agent: Endless
    server: Watched
    page: Page

    async def make(self, script: str) -> None:
        """Have the page do something, until the server has answered it."""
        before = len(self.server.answers)
        await self.page.run(f"void ({script})")
        with trio.fail_after(20):
            while len(self.server.answers) == before:
                await trio.sleep(0.01)


@asynccontextmanager
async def open_attack(chromium: Address, host: str) -> AsyncIterator[Attack]:
    """Open a page of *host* beside a server on 127.0.0.1."""
    agent = Endless()
    app = create_app(Orchestrator(agents=[agent]), drain=0.1)
    server = Watched(app)

    async def elsewhere(request: Any) -> HTMLResponse:
        return HTMLResponse("<!doctype html><title>Elsewhere</title><link rel=icon href='data:,'>")

    other = Starlette(routes=[Route("/", elsewhere)])
    with trio.fail_after(120):
        async with (
            open_chromium(chromium) as browser,
            serving(server) as url,
            serving(other) as other_url,
        ):
            address = f"http://{host}:{urlsplit(other_url).port}/"
            async with browser.open_page(f"{url}/") as own, browser.open_page(address) as page:
                await own.until("document.querySelector('#connection').dataset.state === 'open'")
                await own.run("void fetch('chat/stream?message=own&run_id=own')")
                await agent.wait_begun()
                await page.run("void (window.server = values[0])", f"{url}/")
                server.answers.clear()
                yield Attack(agent, server, page)


# Another site by its host; and a page that a browser says is of the same site, at another port.
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_nothing_that_a_page_from_elsewhere_sends_starts_or_stops_a_run(
    chromium: Address, host: str
) -> None:
    async with open_attack(chromium, host) as attack:
        for name, script in ATTACKS.items():
            await attack.make(script)

            assert all(400 <= status < 500 for _, status in attack.server.answers), (
                name,
                attack.server.answers,
            )
        paths = {path for path, _ in attack.server.answers}

        assert {"/chat", "/chat/stream", "/runs/own/cancel", "/sessions/s"} <= paths
        assert attack.agent.begun == 1
        assert not attack.agent.ended.is_set()


@pytest.mark.parametrize("name", ["an image", "a link", "a blind fetch", "a form"])
async def test_without_the_check_an_image_would_start_a_run(
    monkeypatch: pytest.MonkeyPatch, chromium: Address, name: str
) -> None:
    """A planted bug, for the test above: the server does not ask which site a request is from."""
    monkeypatch.setattr(Door, "check_site", lambda self, request: None)
    async with open_attack(chromium, "localhost") as attack:
        await attack.make(ATTACKS[name])
        with trio.fail_after(20):
            while attack.agent.begun == 1:
                await trio.sleep(0.01)
