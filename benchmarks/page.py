"""What a person waits for on the page: the first token, a long answer, the list of conversations,
and a long conversation that is opened again.

The server is a process of its own, the browser is headless Chromium. A token says when it was
written, and the page is asked when it stood there; frames are counted while 10,000 chunks come as
fast as they are taken; the list is timed from the click that opens it, and what is opened again
from its address to the frame in which all of it is, beside the same page that asks for each event.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path

import attrs
import trio

from flowtrio import Orchestrator, RunContext, SQLiteConversations, SQLiteStore
from tests.support.chromium import Chromium, Page, open_chromium, running_chromium
from tests.support.command import serving

from ._measure import Row

FIRST_TOKEN, FRAME, LIST, AGAIN = 20, 100, 200, 600
"""Milliseconds."""
CHUNKS = 10_000
LONG, CHUNKS_OF_ONE = 20_000, 400
"""Events of a run that is opened again, and the chunks of each message in it."""

FOUND_TOKEN = """void (window.seen = null, new MutationObserver(() => {
  const text = document.querySelector(".turn:last-of-type .markdown")?.textContent ?? "";
  const token = /token([0-9.]+)/.exec(text);
  if (!window.seen && token) window.seen = performance.timeOrigin + performance.now() - token[1];
}).observe(document.body, { childList: true, subtree: true, characterData: true }))"""
COUNT_FRAMES = """void (window.gaps = [], window.last = performance.now(), (function next() {
  requestAnimationFrame((now) => { gaps.push(now - last); last = now; next(); });
})())"""
OPEN_LIST = """(async (many) => {
  const begun = performance.now();
  document.querySelector("#list").click();
  while (document.querySelectorAll("#found li").length < many) {
    await new Promise(requestAnimationFrame);
  }
  const taken = performance.now() - begun;
  document.querySelector("#close-list").click();
  document.querySelector("#found").replaceChildren();
  return taken;
})(values[0])"""
NOTE_SHOWN = """new MutationObserver((_, observer) => {
  if (document.querySelector(".turn:last-of-type")?.dataset.status !== "completed") return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => (window.shown = performance.now())));
}).observe(document, { childList: true, subtree: true, attributes: true })"""
ASK_FOR_ALL = """(() => {
  const { send } = WebSocket.prototype;
  WebSocket.prototype.send = function (text) {
    send.call(this, text.replace('"snapshot":"log"', '"snapshot":false'));
  };
})()"""


async def agent(ctx: RunContext, message: str) -> None:
    """Say when it is, or very much, or nearly nothing."""
    if message.startswith("long"):
        for _ in range(int(message.removeprefix("long")) // (CHUNKS_OF_ONE + 1)):
            async with ctx.message() as out:
                for _ in range(CHUNKS_OF_ONE):
                    await out.write("token ")
        return
    async with ctx.message() as out:
        if message == "one":
            await trio.sleep(0.3)  # A model thinks.
            await out.write(f"token{time.time() * 1000:.3f}")
            await trio.sleep(0.2)
        elif message == "many":
            for number in range(CHUNKS):
                await out.write(f"word{number} " if number % 40 else "\n\nnext ")
        else:
            await out.write("said")


async def converse(path: Path, conversations: int, turns: int, events: int) -> None:
    """Have so many conversations in a file, and a run of so many events."""
    store, kept = SQLiteStore(path), SQLiteConversations(path)
    async with store, kept, Orchestrator(agents=[agent], store=store, conversations=kept) as ours:
        for number in range(conversations):
            for turn in range(turns):
                message, session = f"turn {turn} of {number}", f"s{number}"
                run_id = await ours.start(message, session_id=session)
                async for _ in ours.attach(run_id):
                    pass
        async for _ in ours.attach(await ours.start(f"long{events}", session_id="long")):
            pass


@attrs.frozen
class Waited:
    """Milliseconds: medians, and the longest frame."""

    token: float
    frame: float
    listed: float
    again: float
    again_by_all: float
    """The same page, each event of the log told."""


async def measure(url: str, conversations: int, rounds: int) -> Waited:
    """Have a browser do it all."""
    with running_chromium() as address:
        async with open_chromium(address) as browser, browser.open_page() as page:
            await page.go(url)
            await page.until("document.querySelector('#connection').dataset.state === 'open'")
            lists = [await page.run(OPEN_LIST, conversations) for _ in range(rounds)]
            tokens = [await _first_token(page) for _ in range(rounds)]
            await page.run(COUNT_FRAMES)
            await _say(page, "many")
            longest = await page.run("Math.max(...gaps)")
            again: dict[str, list[float]] = {"few": [], "all": []}
            for _ in range(rounds):
                again["few"].append(await _open_again(browser, url))
                again["all"].append(await _open_again(browser, url, ASK_FOR_ALL))
    medians = [statistics.median(taken) for taken in (tokens, lists, again["few"], again["all"])]
    token, listed, few, every = medians
    return Waited(token, longest, listed, few, every)


async def _open_again(browser: Chromium, url: str, *scripts: str) -> float:
    async with browser.open_page() as page:
        for script in (NOTE_SHOWN, *scripts):
            await page.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        await page.go(f"{url}#long")
        taken: float = await page.until("window.shown")
    return taken


async def _first_token(page: Page) -> float:
    await page.run(FOUND_TOKEN)
    await _say(page, "one")
    taken: float = await page.run("window.seen")
    await page.click("#new")
    await page.until("!document.querySelector('.turn')")
    return taken


async def _say(page: Page, message: str) -> None:
    await page.type("#message", message)
    await page.press("Enter")
    await page.until("document.querySelector('.turn:last-of-type')?.dataset.status === 'completed'")


def rows(quick: bool) -> list[Row]:
    """The table's lines on this subject."""
    if not (shutil.which("chromium") or shutil.which("chromium-browser")):
        print("no chromium on this machine: the page is not measured")
        return []
    conversations, turns, rounds, events = (10, 5, 2, 2_000) if quick else (50, 50, 7, LONG)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        trio.run(converse, path, conversations, turns, events)
        options = ("--agent", "benchmarks.page:agent", "--store", f"sqlite:{path}")
        with serving(*options, log=Path(folder) / "log") as server:
            waited = trio.run(measure, server.page, conversations, rounds)
    listed = f"{conversations} conversations of {turns} turns, listed / a frame"
    again = f"a run of {events:,} events opened again / by all of them"
    return [
        _row("first token, model to page / a frame", waited.token, FIRST_TOKEN),
        _row(f"longest frame while {CHUNKS:,} chunks come / a frame", waited.frame, FRAME),
        _row(listed, waited.listed, LIST),
        _row(again, waited.again, AGAIN, waited.again_by_all),
    ]


def _row(subject: str, ours: float, limit: float, theirs: float = 1000 / 60) -> Row:
    return Row(subject=subject, ours=ours, theirs=theirs, limit=limit, unit="ms")
