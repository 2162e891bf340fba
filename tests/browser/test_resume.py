"""A page that loses its server, or itself, in the middle of an answer."""

from __future__ import annotations

from contextlib import AsyncExitStack

import httpx
import pytest
import trio

from flowtrio import RunContext, ServerLimits, ToolCall, tool
from tests.browser.conftest import OpenStage, Stage
from tests.browser.test_page import STATUS, until_listed
from tests.support.leaving import Endless, check_ends_within_a_second

WORDS = [f"word{number} " for number in range(40)]


async def until_says(stage: Stage, text: str) -> None:
    """Wait until the answer is this."""
    said = "document.querySelector('.turn:last-of-type .markdown')?.innerText.trim() === values[0]"
    await stage.page.until(said, text.strip())


async def is_waiting(stage: Stage) -> None:
    await stage.page.until("document.querySelector('#connection').dataset.state === 'waiting'")


async def check_the_whole_is_there(stage: Stage, *words: str) -> None:
    """The answer is whole, and the log too: nothing is missing, and nothing there twice."""
    await stage.page.until(f"{STATUS} === 'completed'")
    await until_says(stage, "".join(words))
    seqs = await until_listed(stage)

    assert seqs == list(range(len(seqs)))


async def test_an_answer_goes_on_after_the_connection_was_lost(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        await stage.ask("go on")
        stage.model.say("before ")
        await until_says(stage, "before")
        stage.front.is_down = True
        stage.front.cut()
        await is_waiting(stage)
        stage.model.say("meanwhile ")
        stage.front.is_down = False
        await until_says(stage, "before meanwhile")

        assert await stage.page.run(STATUS) == "running"

        stage.model.answer("after")
        await check_the_whole_is_there(stage, "before ", "meanwhile ", "after")


@pytest.mark.parametrize("has_sockets", [True, False])
async def test_an_answer_goes_on_where_an_address_asks_too_often(
    open_stage: OpenStage, has_sockets: bool
) -> None:
    """Its neighbours may have, and it is over in a moment: nothing ends by it."""
    limits = ServerLimits(requests_per_minute=30)
    async with open_stage(limits=limits, has_sockets=has_sockets) as stage:
        await stage.ask("go on")
        stage.model.say("before ")
        await until_says(stage, "before")
        before = await stage.page.text("#connection")
        async with httpx.AsyncClient(base_url=stage.front.url) as http:
            while (await http.get("runs")).status_code != 429:
                pass
        stage.front.cut()
        await is_waiting(stage)
        stage.model.say("meanwhile ")
        await until_says(stage, "before meanwhile")

        assert await stage.page.run(STATUS) == "running"
        assert await stage.page.text("#connection") == before

        stage.model.answer("after")
        await stage.page.until(f"{STATUS} === 'completed'")


async def test_an_answer_is_whole_however_often_the_connection_is_cut(
    open_stage: OpenStage,
) -> None:
    """Cuts that fall where they fall, while the model goes on."""
    async with open_stage() as stage:
        await stage.ask("go on")
        for number, word in enumerate(WORDS):
            stage.model.say(word)
            if number % 8 == 3:
                await until_says(stage, "".join(WORDS[: number + 1]))
            if number % 8 == 6:
                stage.front.cut()
        stage.model.end()
        await check_the_whole_is_there(stage, *WORDS)


async def test_where_no_websocket_comes_through_all_is_done_over_sse(open_stage: OpenStage) -> None:
    """Start, approve, lose the connection and go on: by plain requests."""

    @tool(needs_approval=True)
    async def launch() -> str:
        """Launch."""
        return "launched"

    async with open_stage(launch, has_sockets=False) as stage:
        await stage.page.until_text("#connection", "Connected · SSE")
        await stage.ask("launch")
        stage.model.call(ToolCall(id="1", name="launch", arguments={}))
        await stage.page.click("[aria-label='Approve launch']")
        stage.model.say("before ")
        await stage.page.until("document.querySelector('.markdown')?.innerText.trim() === 'before'")
        stage.front.cut()
        stage.model.answer("after")
        await stage.page.until("document.querySelector('.markdown')?.innerText === 'before after'")
        await stage.page.until(f"{STATUS} === 'completed'")
        seqs = await until_listed(stage)

        assert seqs == list(range(len(seqs)))

        await stage.ask("and stop")
        stage.model.say("well")
        await until_says(stage, "well")
        await stage.page.click("#stop")
        await stage.page.until(f"{STATUS} === 'cancelled'")


async def test_a_reload_goes_on_where_it_was(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        await stage.ask("the first")
        stage.model.answer("An answer.")
        await stage.page.until(f"{STATUS} === 'completed'")
        await stage.ask("the second")
        stage.model.say("before ")
        await until_says(stage, "before")
        await stage.page.reload()
        await until_says(stage, "before")
        await stage.page.until_text(".turn:first-of-type .answer", "An answer.")

        assert await stage.page.run("document.querySelectorAll('.turn').length") == 2
        assert await stage.page.run(STATUS) == "running"

        stage.model.answer("after")
        await check_the_whole_is_there(stage, "before ", "after")


async def test_a_call_that_waits_for_approval_waits_through_a_reload(open_stage: OpenStage) -> None:
    begun = 0

    @tool(needs_approval=True)
    async def launch() -> str:
        """Launch."""
        nonlocal begun
        begun += 1
        return "launched"

    async with open_stage(launch) as stage:
        await stage.ask("launch")
        stage.model.call(ToolCall(id="1", name="launch", arguments={}))
        await stage.page.until("document.querySelector('.call[data-outcome=waiting]')")
        await stage.page.reload()
        await stage.page.click("[aria-label='Approve launch']")
        stage.model.answer("Done.")
        await stage.page.until(f"{STATUS} === 'completed'")

        assert begun == 1


async def test_stopping_while_the_network_is_gone_stops_when_it_is_back(
    open_stage: OpenStage,
) -> None:
    async with open_stage() as stage:
        await stage.ask("go on")
        stage.model.say("before")
        await until_says(stage, "before")
        stage.front.is_down = True
        stage.front.cut()
        await is_waiting(stage)
        await stage.page.click("#stop")
        stage.front.is_down = False
        await stage.page.until(f"{STATUS} === 'cancelled'")


async def test_a_message_that_was_sent_into_the_void_starts_one_run(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        stage.front.is_down = True
        stage.front.cut()
        await is_waiting(stage)
        await stage.ask("hello")
        stage.front.is_down = False
        stage.model.answer("once")
        await check_the_whole_is_there(stage, "once")

        assert await stage.page.run("document.querySelectorAll('.turn').length") == 1


QUICK = {
    "flowtrio.js": [
        ("const SILENCE = 15_000;", "const SILENCE = 1_500;"),
        ("const ANSWER = 10_000;", "const ANSWER = 1_000;"),
    ]
}
"""The library with less patience, so that the tests need less."""


LOOKS = [None, "pageshow", "visibilitychange", "online"]
"""What a browser says where somebody looks at a page again."""


@pytest.mark.parametrize("has_sockets", [True, False])
async def test_a_connection_that_falls_silent_is_left(
    open_stage: OpenStage, has_sockets: bool
) -> None:
    """By itself in its time, and sooner where somebody looks at the page again.

    In a window for each of these at once, since all that takes time is the silence.
    """
    goes_on = trio.Event()

    async def agent(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            await out.write("before ")
            await goes_on.wait()
            await out.write("meanwhile")

    limits = ServerLimits(ping_interval=0.5)
    async with (
        open_stage(agent=agent, edits=QUICK, has_sockets=has_sockets, limits=limits) as stage,
        AsyncExitStack() as windows,
    ):
        front, stages = stage.front, [stage]
        for _ in LOOKS[1:]:
            page = await windows.enter_async_context(stage.page.browser.open_page())
            await page.go(front.url)
            await page.until("document.querySelector('#connection').dataset.state === 'open'")
            stages.append(Stage(page, front, stage.model))
        for each in stages:
            await each.ask("go on")
            await until_says(each, "before ")
        # They stay as long as it is only quiet.
        await trio.sleep(3)
        for each in stages:
            state = await each.page.run("document.querySelector('#connection').dataset.state")

            assert state == "open"

        front.is_silent = True
        goes_on.set()
        await trio.sleep(0.3)
        for each, looks in zip(stages, LOOKS, strict=True):
            place = "document" if looks == "visibilitychange" else "window"
            if looks is not None:
                await each.page.run(f"void {place}.dispatchEvent(new Event(values[0]))", looks)
        for each in stages:
            await is_waiting(each)
        front.is_silent = False
        for each in stages:
            await check_the_whole_is_there(each, "before ", "meanwhile")


@pytest.mark.parametrize("has_sockets", [True, False])
async def test_a_page_that_is_left_is_no_reader_any_more(
    open_stage: OpenStage, has_sockets: bool
) -> None:
    """The browser keeps it for the back button; its run is cancelled after the window."""
    agent, window = Endless(), 0.3
    async with open_stage(agent=agent, resume_window=window, has_sockets=has_sockets) as stage:
        await stage.ask("go on")
        await until_says(stage, "one")
        left_at = trio.current_time()
        await stage.page.go(f"{stage.front.url}health")
        await check_ends_within_a_second(agent, trio.current_time(), window)

        assert agent.ended_at - left_at >= window


@pytest.mark.parametrize("has_sockets", [True, False])
async def test_a_page_that_is_come_back_to_goes_on_where_it_was(
    open_stage: OpenStage, has_sockets: bool
) -> None:
    async with open_stage(has_sockets=has_sockets) as stage:
        await stage.ask("go on")
        stage.model.say("before ")
        await until_says(stage, "before")
        await stage.page.run("window.isTheSame = true")
        await stage.page.go(f"{stage.front.url}health")
        stage.model.say("meanwhile ")
        await stage.page.run("history.back()")
        await until_says(stage, "before meanwhile")
        stage.model.answer("after")
        await check_the_whole_is_there(stage, "before ", "meanwhile ", "after")

        # Kept by the browser, not loaded anew: else this would be another test.
        assert await stage.page.run("window.isTheSame === true")


async def test_a_run_that_the_server_forgot_is_not_started_again(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        await stage.ask("hello")
        stage.model.answer("an answer")
        await stage.page.until(f"{STATUS} === 'completed'")
        forgotten = """JSON.stringify(Object.entries(sessionStorage).map(([key, value]) => {
            const memory = JSON.parse(value);
            memory.runs[0].id = "nobody-knows-this";
            sessionStorage.setItem(key, JSON.stringify(memory));
        }))"""
        await stage.page.run(forgotten)
        await stage.page.reload()
        await stage.page.until(f"{STATUS} === 'error'")

        await stage.page.until_text(".failure", "does not keep this run")

        assert await stage.page.text(".said") == "hello"


async def test_a_client_that_resumes_at_the_wrong_place_is_noticed(open_stage: OpenStage) -> None:
    """A planted bug: it asks for everything again, and takes it for new."""
    edits = [
        ("if (this.isOver || event.seq <= this.lastSeq) return true;", ""),
        ("before > this.lastSeq", "false"),
        ("const after = run.lastSeq;", "const after = -1;"),
    ]
    async with open_stage(edits={"flowtrio.js": edits}) as stage:
        await stage.ask("go on")
        stage.model.say("before ")
        await until_says(stage, "before")
        stage.front.cut()
        stage.model.answer("after")

        with pytest.raises(AssertionError, match=r"assert \[0, 1, "):
            await check_the_whole_is_there(stage, "before ", "after")
