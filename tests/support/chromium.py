"""Headless Chromium, driven over its DevTools protocol.

A small client on the WebSocket library that the project has anyway: a test's server, its model and
the browser then live in one nursery, so that a test can say what happens after what.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio_websocket

DEADLINE = 60.0
"""Seconds until something on a page has to have happened: generous, since machines are shared."""

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # A wheel's turn is over when it is taken, and not frames later.
    "--disable-smooth-scrolling",
    *("--disable-dev-shm-usage", "--mute-audio", "--hide-scrollbars", "--force-color-profile=srgb"),
    "--remote-debugging-port=0",
)


def find_chromium() -> str:
    """Chromium's path.

    A test that needs one is skipped where there is none, and says so; in CI it fails, since
    the project's own checks install it there.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is not None:
        return path
    said = "no Chromium on this machine: apt-get install chromium (`nox -s browser` does it)"
    if os.environ.get("CI"):
        pytest.fail(said)
    pytest.skip(said)


@attrs.frozen
class Screen:
    """What a page is looked at on."""

    width: int
    height: int
    is_dark: bool

    @property
    def is_phone(self) -> bool:
        return self.width < 500

    def __str__(self) -> str:
        return f"{self.width}x{self.height}-{'dark' if self.is_dark else 'light'}"


class ScriptFailed(Exception):
    """A script on a page threw."""


@attrs.define(eq=False)
class Chromium:
    """The browser."""

    _connection: trio_websocket.WebSocketConnection
    _nursery: trio.Nursery
    _last_id: int = 0
    _replies: dict[int, trio.MemorySendChannel[dict[str, Any]]] = attrs.field(factory=dict)
    _pages: dict[str, Page] = attrs.field(factory=dict)

    async def call(self, method: str, session: str | None = None, /, **keys: Any) -> dict[str, Any]:
        """Call a method of the protocol and give its result."""
        self._last_id += 1
        send, receive = trio.open_memory_channel[dict[str, Any]](1)
        self._replies[self._last_id] = send
        command = {"id": self._last_id, "method": method, "params": keys}
        await self._connection.send_message(
            json.dumps(command if session is None else {**command, "sessionId": session})
        )
        with trio.fail_after(DEADLINE):
            reply = await receive.receive()
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']['message']}")
        result: dict[str, Any] = reply["result"]
        return result

    async def _listen(self) -> None:
        with contextlib.suppress(trio_websocket.ConnectionClosed):
            while True:
                self._take(json.loads(await self._connection.get_message()))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._replies.pop(message["id"]).send_nowait(message)
        elif message.get("sessionId") in self._pages:
            self._pages[message["sessionId"]]._take(message["method"], message["params"])

    @asynccontextmanager
    async def open_page(self, url: str = "about:blank") -> AsyncIterator[Page]:
        """A page with a memory of its own, as in a fresh private window."""
        made = await self.call("Target.createBrowserContext", disposeOnDetach=True)
        context = made["browserContextId"]
        target = await self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        page = Page(self, target["targetId"], attached["sessionId"])
        self._pages[page.session] = page
        try:
            for domain in ("Page", "Runtime", "Log", "Network"):
                await page.call(f"{domain}.enable")
            # As if its window were the one in front, which several pages at once cannot be.
            await page.call("Emulation.setFocusEmulationEnabled", enabled=True)
            if url != "about:blank":
                await page.go(url)
            yield page
        finally:
            with trio.move_on_after(5, shield=True):
                await self.call("Target.disposeBrowserContext", browserContextId=context)


@attrs.define(eq=False)
class Page:
    """One page."""

    browser: Chromium
    target: str
    session: str
    problems: list[str] = attrs.field(factory=list)
    """What the browser complained about: errors of scripts, and what the policy refused."""
    requests: list[str] = attrs.field(factory=list)
    """Addresses that were asked for."""
    dialogs: list[str] = attrs.field(factory=list)
    """What scripts said with alert() and the like."""

    async def call(self, method: str, /, **keys: Any) -> dict[str, Any]:
        """Call a method of the protocol about this page."""
        return await self.browser.call(method, self.session, **keys)

    def _take(self, event: str, params: dict[str, Any]) -> None:
        match event:
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                said = details.get("exception", {}).get("description") or details["text"]
                self.problems.append(said)
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.problems.append(f"{params['entry']['source']}: {params['entry']['text']}")
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Page.javascriptDialogOpening":
                self.dialogs.append(params["message"])
                # From a task of its own: this one has to read the reply.
                self.browser._nursery.start_soon(self._dismiss)

    async def _dismiss(self) -> None:
        await self.call("Page.handleJavaScriptDialog", accept=False)

    async def go(self, url: str) -> None:
        """Go to an address."""
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def look_on(self, screen: Screen) -> None:
        """Take a screen of this size and colours; a phone's is touched."""
        size = {"width": screen.width, "height": screen.height}
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            **size,
            deviceScaleFactor=1,
            mobile=screen.is_phone,
        )
        await self.call("Emulation.setTouchEmulationEnabled", enabled=screen.is_phone)
        await self.colour(screen.is_dark)

    async def colour(self, is_dark: bool) -> None:
        """Take the colours that the system of a person has."""
        colours = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[colours])

    async def reload(self) -> None:
        """Load the page anew, as the browser's own button does."""
        await self.run("window.beforeReload = true")
        await self.call("Page.reload")
        await self.until("window.beforeReload === undefined && document.readyState === 'complete'")

    async def close(self) -> None:
        """Close it, as a person closes a tab; nothing more can be asked of it."""
        await self.browser.call("Target.closeTarget", targetId=self.target)

    async def run(self, script: str, *values: Any) -> Any:
        """Give the value of an expression, or of the promise that it gives.

        *values* are known to it as ``values``.
        """
        reply = await self.call(
            "Runtime.evaluate",
            expression=f"(async (values) => ({script}))({json.dumps(values)})",
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in reply:
            details = reply["exceptionDetails"]
            raise ScriptFailed(details.get("exception", {}).get("description", details["text"]))
        return reply["result"].get("value")

    async def until(self, script: str, *values: Any) -> Any:
        """Wait until an expression is true; give its value."""
        with trio.move_on_after(DEADLINE):
            while True:
                with contextlib.suppress(ScriptFailed, RuntimeError):
                    # An element has no value but itself: {}, which counts as true in a script.
                    if (value := await self.run(f"({script}) || null", *values)) is not None:
                        return value
                await trio.sleep(0.03)
        raise AssertionError(f"did not become true: {script}\n{await self._state()}")

    async def until_text(self, selector: str, text: str) -> None:
        """Wait until the visible text of an element, without empty lines, has this text in it."""
        await self.until(
            """document.querySelector(values[0])?.innerText.split(/\\n/)
              .filter((line) => line.trim()).join("\\n").includes(values[1])""",
            selector,
            text,
        )

    async def until_problem(self, text: str) -> None:
        """Wait until the browser complained in these words."""
        with trio.move_on_after(DEADLINE):
            while not any(text in problem for problem in self.problems):
                await trio.sleep(0.03)
        assert any(text in problem for problem in self.problems), self.problems

    async def _state(self) -> str:
        text = await self.run("document.body.innerText")
        return f"problems: {self.problems}\npage:\n{text}"

    # What a person does

    async def text(self, selector: str) -> str:
        """The visible text of an element, without empty lines."""
        text: str = await self.run("document.querySelector(values[0]).innerText", selector)
        return "\n".join(line for line in text.splitlines() if line.strip())

    async def click(self, selector: str) -> None:
        """Click on an element, with the mouse, once it is there, stays there, and can be used."""
        x, y = await self.until(
            """(async () => {
              const node = document.querySelector(values[0]);
              if (!node || node.disabled || !node.checkVisibility()) return null;
              node.scrollIntoView({block: "center", behavior: "instant"});
              // Where it is when the page has drawn what came last: nobody clicks before.
              const frame = () => new Promise((done) => requestAnimationFrame(done));
              const drawn = async () => {
                await frame();
                await frame();
                const box = node.getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
              };
              const [before, place] = [await drawn(), await drawn()];
              const isThere = node.contains(document.elementFromPoint(...place));
              return isThere && String(place) === String(before) ? place : null;
            })()""",
            selector,
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1
            )

    async def type(self, selector: str, text: str) -> None:
        """Type a text into a field, once it is there and takes it."""
        await self.until(
            """((node) => (node?.focus(), node !== null && document.activeElement === node))(
              document.querySelector(values[0]))""",
            selector,
        )
        await self.call("Input.insertText", text=text)

    async def wheel(self, selector: str, pixels: int) -> None:
        """Turn the wheel over an element; down where *pixels* are above 0."""
        x, y = await self.run(
            """(() => {
              const box = document.querySelector(values[0]).getBoundingClientRect();
              return [box.x + box.width / 2, box.y + box.height / 2];
            })()""",
            selector,
        )
        await self.call(
            "Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=pixels
        )

    async def is_seen(self, selector: str) -> bool:
        """Whether all of an element is on the screen, and nothing lies over it."""
        seen: bool = await self.run(
            """(() => {
              const node = document.querySelector(values[0]);
              if (!node?.checkVisibility()) return false;
              const box = node.getBoundingClientRect();
              const isInside = box.top >= 0 && box.left >= 0
                && box.bottom <= innerHeight && box.right <= innerWidth;
              const at = (x, y) => node.contains(document.elementFromPoint(x, y));
              return isInside && at(box.left + box.width / 2, box.top + 3)
                && at(box.left + box.width / 2, box.bottom - 3);
            })()""",
            selector,
        )
        return seen

    async def until_seen(self, selector: str) -> None:
        """Wait until all of an element is on the screen."""
        with trio.move_on_after(DEADLINE):
            while not await self.is_seen(selector):
                await trio.sleep(0.03)
            return
        raise AssertionError(f"is not on the screen: {selector}\n{await self._state()}")

    async def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key; with Control where *modifiers* is 2."""
        codes = {"Enter": 13, "Tab": 9, "ArrowRight": 39, "ArrowLeft": 37, "Escape": 27}
        keys: dict[str, Any] = {
            "key": key,
            "code": key,
            "windowsVirtualKeyCode": codes[key],
            "modifiers": modifiers,
            **({"text": "\r"} if key == "Enter" else {}),
        }
        await self.call("Input.dispatchKeyEvent", type="keyDown", **keys)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    async def screenshot(self, path: Path) -> None:
        """Write what is seen as a PNG."""
        import base64

        shot = await self.call("Page.captureScreenshot", format="png", optimizeForSpeed=False)
        await trio.Path(path).write_bytes(base64.b64decode(shot["data"]))


@attrs.frozen
class Address:
    """Where a browser that runs can be driven from."""

    port: int
    path: str


@contextlib.contextmanager
def running_chromium() -> Iterator[Address]:
    """Start the browser, with an empty profile; it may be used by one test after another."""
    path = find_chromium()
    # By hand: the last of its processes may still write when the first has ended.
    profile = tempfile.mkdtemp(prefix="flowtrio-chromium-")
    command = [path, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield _address(Path(profile), process)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(profile, ignore_errors=True)


def _address(profile: Path, process: subprocess.Popen[bytes]) -> Address:
    """Where it listens, as it writes into its profile."""
    until = time.monotonic() + DEADLINE
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(FileNotFoundError, ValueError):
            port, path = (profile / "DevToolsActivePort").read_text().split()
            return Address(int(port), path)
        time.sleep(0.02)
    raise RuntimeError(f"Chromium does not listen: its status is {process.poll()}")


@asynccontextmanager
async def open_chromium(address: Address) -> AsyncIterator[Chromium]:
    """Drive the browser that runs there; what is opened in it is closed behind the block."""
    async with (
        trio_websocket.open_websocket(
            "127.0.0.1", address.port, address.path, use_ssl=False, max_message_size=1 << 26
        ) as connection,
        trio.open_nursery() as nursery,
    ):
        browser = Chromium(connection, nursery)
        nursery.start_soon(browser._listen)
        yield browser
        nursery.cancel_scope.cancel()
