"""What is said while a run goes on: when it waits, where it was taken, and what is cut for it."""

from __future__ import annotations

from flowtrio import RunContext, ToolCall, tool
from tests.browser.conftest import OpenStage, Stage
from tests.browser.test_accessible import check_accessible, find_axe
from tests.browser.test_attachments import paste
from tests.support.chromium import Screen

STATUS = "document.querySelector('.turn:last-of-type').dataset.status"
SAID = "[...document.querySelectorAll('.answer > *')].map((n) => n.innerText.trim())"
WAITING = "document.querySelector('.waiting').innerText"


@tool(needs_approval=True)
async def book(city: str) -> str:
    """Book."""
    return f"booked {city}"


async def begin(stage: Stage, text: str = "Well") -> None:
    """A reply that is being written."""
    await stage.ask("go")
    stage.model.say(text)
    await stage.page.until_text(".markdown", text)


async def test_it_waits_and_is_shown_where_it_was_taken(
    open_stage: OpenStage, screen: Screen
) -> None:
    async with open_stage(book, screen=screen) as stage:
        page, model = stage.page, stage.model
        await begin(stage, "I book Rome.")
        await stage.ask("in May, please")
        await page.until_text(".waiting", "in May, please\nSaid before the next reply")

        assert await page.run("document.querySelector('#message').value") == ""
        assert await page.run(SAID) == ["I book Rome."]

        model.call(ToolCall(id="1", name="book", arguments={"city": "Rome"}))
        await page.until_seen("[aria-label='Approve book']")

        assert "in May, please" in await page.run(WAITING)

        await page.click("[aria-label='Approve book']")
        await page.until(f"({SAID}).length === 3")

        assert await page.run(WAITING) == ""

        model.answer("Booked for May.")
        await page.until(f"{STATUS} === 'completed'")
        reply, call, taken, answer = await page.run(SAID)

        assert (reply, taken, answer) == ("I book Rome.", "in May, please", "Booked for May.")
        assert call.startswith("book")
        assert model.requests[-1][-1]["content"] == "in May, please"
        assert await page.run("document.querySelectorAll('.turn').length") == 1
        assert await page.run("document.documentElement.scrollWidth <= innerWidth")
        assert page.problems == []


async def test_it_stands_in_the_timeline(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        page = stage.page
        await begin(stage)
        await stage.ask("hurry")
        await page.until_text(".waiting", "hurry")
        stage.model.end()
        stage.model.answer("Done.")
        await page.until(f"{STATUS} === 'completed'")
        await page.click("#tab-timeline")
        await page.until("document.querySelector('[data-kind=person] .bar')")
        title = await page.run("document.querySelector('[data-kind=person] .bar').title")

        assert title.startswith("you said something, ok")

        # It leads to the event.
        await page.click("[data-kind=person] .bar")
        await page.until_text(".rows details[open]", "hurry")


async def test_what_is_said_now_cuts_the_reply(open_stage: OpenStage, screen: Screen) -> None:
    async with open_stage(screen=screen) as stage:
        page, model = stage.page, stage.model
        await begin(stage, "A long story")

        assert not await page.is_seen("#now")

        await page.type("#message", "shorter")
        await page.until_seen("#now")

        assert await page.run("document.documentElement.scrollWidth <= innerWidth")

        await page.click("#now")
        # The model was not told to end: it is asked again.
        await page.until(f"({SAID}).length === 2")
        model.answer("Short.")
        await page.until(f"{STATUS} === 'completed'")

        assert [each.split("\n")[0] for each in await page.run(SAID)] == [
            "A long story",
            "shorter",
            "Short.",
        ]
        await page.until_text(".message", "Stopped here.")
        assert await page.run("document.querySelector('#now').hidden")
        assert [message["content"] for message in model.requests[-1]][-2:] == [
            "A long story",
            "shorter",
        ]


async def test_so_does_control_with_enter_and_enter_alone_does_not(
    open_stage: OpenStage,
) -> None:
    async with open_stage() as stage:
        page = stage.page
        await begin(stage)
        await stage.ask("patiently")
        await page.until_text(".waiting", "patiently")

        assert len(stage.model.requests) == 1

        await page.type("#message", "now")
        await page.press("Enter", modifiers=2)
        await page.until(f"({SAID}).length === 3")

        assert (await page.run(SAID))[1:] == ["patiently", "now"]

        stage.model.answer("Yes.")
        await page.until(f"{STATUS} === 'completed'")


async def test_what_no_reply_follows_is_given_back(open_stage: OpenStage) -> None:
    async def agent(ctx: RunContext, message: str) -> None:
        await ctx.ask("Your name?")

    async with open_stage(agent=agent) as stage:
        page = stage.page
        await stage.ask("go")
        await page.until_seen(".ask input")
        await stage.ask("something else")
        await page.until_text("#notice", "no reply")

        assert await page.run("document.querySelector('#message').value") == "something else"
        assert await page.run(WAITING) == ""

        # Nor is what was written meanwhile lost by it, nor it by that.
        await page.press("Enter")
        await page.type("#message", "and more")
        for part in ("something else", "and more"):
            await page.until("document.querySelector('#message').value.includes(values[0])", part)


async def test_an_image_is_said_too_and_seen_where_it_was_taken(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        page = stage.page
        await begin(stage)
        await paste(stage)
        await page.until("document.querySelectorAll('#attachments li').length === 1")
        await stage.ask("look")
        await page.until("document.querySelector('.waiting img')")
        stage.model.end()
        await page.until("document.querySelector('.answer .saying img')?.naturalWidth === 8")
        stage.model.answer("A cat.")
        await page.until(f"{STATUS} === 'completed'")
        await page.reload()
        await page.until(f"{STATUS} === 'completed'")
        await page.until("document.querySelector('.answer .saying img')?.naturalWidth === 8")


async def test_what_waits_is_gone_with_the_run(open_stage: OpenStage) -> None:
    """A run that is stopped takes what was said before its end: it is in the conversation."""
    async with open_stage() as stage:
        page = stage.page
        await begin(stage)
        await stage.ask("and then?")
        await page.until_text(".waiting", "and then?")
        await page.click("#stop")
        await page.until(f"{STATUS} === 'cancelled'")

        assert (await page.run(SAID))[-1] == "and then?"
        assert await page.run(WAITING) == ""


async def test_axe_finds_nothing_while_something_waits(
    open_stage: OpenStage, screen: Screen
) -> None:
    axe = find_axe()
    async with open_stage(screen=screen) as stage:
        await begin(stage)
        await stage.ask("and then?")
        await stage.page.until_text(".waiting", "and then?")
        await stage.page.type("#message", "more")
        await stage.page.until_seen("#now")
        await check_accessible(stage.page, axe)
