"""What is seen of a conversation that grows: its end, and whatever waits for a person."""

from __future__ import annotations

from typing import Any

import pytest

from flowtrio import RunContext, ToolCall, tool
from tests.browser.conftest import SCREENS, OpenStage, Stage
from tests.browser.test_page import STATUS
from tests.support.chromium import Screen

LONG = "".join(f"Line {number} of a long answer.\n\n" for number in range(60))
AT_END = """(() => {
  const { scrollTop, scrollHeight, clientHeight } = document.querySelector("#turns");
  return scrollHeight - scrollTop - clientHeight < 3;
})()"""
FOCUSED = "document.activeElement === document.querySelector(values[0])"
APPROVE = "[aria-label='Approve launch']"


@tool(needs_approval=True)
async def launch(target: str, why: str = "") -> str:
    """Launch."""
    return f"launched at {target}"


async def say_much(stage: Stage) -> None:
    """Have the agent answer with more than a screen."""
    await stage.ask("tell me")
    stage.model.answer(LONG)
    await stage.page.until(f"{STATUS} === 'completed'")


@pytest.mark.parametrize("text", ["short", "x " * 4000])
async def test_what_needs_approval_is_seen_focused_and_named(
    open_stage: OpenStage, screen: Screen, text: str
) -> None:
    async with open_stage(launch, screen=screen) as stage:
        page = stage.page
        await say_much(stage)
        await stage.ask("launch it")
        stage.model.say(LONG)
        arguments = {"target": "moon", "why": text}
        stage.model.call(ToolCall(id="1", name="launch", arguments=arguments))
        await page.until_seen(APPROVE)
        await page.until_seen("[aria-label='Deny launch']")
        await page.until(FOCUSED, APPROVE)

        assert await page.run("document.title") == "Approve launch? flowtrio"

        await page.press("Enter")
        stage.model.answer("Done.")
        await page.until(f"{STATUS} === 'completed'")
        await page.until(AT_END)
        await page.until("document.title === 'flowtrio'")


async def test_who_writes_on_or_holds_a_key_approves_nothing(open_stage: OpenStage) -> None:
    async with open_stage(launch) as stage:
        page = stage.page
        await stage.ask("launch it")
        stage.model.call(ToolCall(id="1", name="launch", arguments={"target": "moon"}))
        await page.until(FOCUSED, APPROVE)
        held: dict[str, Any] = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        await page.call(
            "Input.dispatchKeyEvent", type="keyDown", text="\r", autoRepeat=True, **held
        )
        for key in "no ?":
            for kind in ("keyDown", "keyUp"):
                text = {"text": key} if kind == "keyDown" else {}
                await page.call("Input.dispatchKeyEvent", type=kind, key=key, **text)

        assert await page.run("document.querySelector('#message').value") == "no ?"
        assert await page.run("document.querySelectorAll('[data-asks]').length") == 1


async def test_of_several_that_need_approval_each_is_seen_in_its_turn(
    open_stage: OpenStage, screen: Screen
) -> None:
    """The cards of one reply come at once: the first would be above the end."""
    async with open_stage(launch, screen=screen) as stage:
        await stage.ask("launch")
        stage.model.call(
            *(
                ToolCall(id=str(n), name="launch", arguments={"target": f"star {n}" + " x" * 900})
                for n in range(5)
            )
        )
        for number in range(5):
            await stage.page.until(
                "document.querySelectorAll('[data-asks]').length === values[0]", 5 - number
            )
            card = "[data-asks] [aria-label='Approve launch']"
            await stage.page.until_seen(card)
            await stage.page.until(FOCUSED, card)
            await stage.page.press("Enter")
        stage.model.answer("Done.")
        await stage.page.until(f"{STATUS} === 'completed'")
        await stage.page.until(AT_END)


async def test_a_question_is_seen_and_the_keyboard_is_there(
    open_stage: OpenStage, screen: Screen
) -> None:
    async def agent(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            await out.write(LONG)
        name = await ctx.ask("What is your name? " + "Tell the whole of it. " * 200)
        async with ctx.message() as out:
            await out.write(f"Hello {name}")

    async with open_stage(agent=agent, screen=screen) as stage:
        page = stage.page
        await stage.ask("hello")
        await page.until_seen(".ask input")
        await page.until_seen(".ask button")
        await page.until(FOCUSED, ".ask input")

        assert await page.run("document.title") == "Your answer is needed flowtrio"

        await page.type(".ask input", "Ada")
        await page.press("Enter")
        await page.until(f"{STATUS} === 'completed'")
        await page.until(AT_END)


async def test_an_error_is_seen(open_stage: OpenStage, screen: Screen) -> None:
    async def agent(ctx: RunContext, message: str) -> None:
        async with ctx.message() as out:
            await out.write(LONG)
        raise RuntimeError("the pump is broken")

    async with open_stage(agent=agent, debug=True, screen=screen) as stage:
        await stage.ask("pump")
        await stage.page.until(f"{STATUS} === 'error'")
        await stage.page.until_seen(".failure")


async def test_a_reload_shows_the_end(open_stage: OpenStage, screen: Screen) -> None:
    async with open_stage(screen=screen) as stage:
        await say_much(stage)
        await say_much(stage)
        await stage.page.reload()
        await stage.page.until("document.querySelectorAll('[data-status=completed]').length === 2")
        await stage.page.until(AT_END)


async def test_only_scrolling_stops_following_and_brings_it_back(
    open_stage: OpenStage, screen: Screen
) -> None:
    async with open_stage(launch, screen=screen) as stage:
        page, model = stage.page, stage.model
        await stage.ask("go on")
        # Much at once does not.
        for number in range(1, 4):
            model.say(LONG)
            lines = "document.querySelectorAll('.markdown p').length === values[0]"
            await page.until(lines, 60 * number)
            await page.until(AT_END)
        await page.wheel("#turns", -600)
        await page.until("!document.querySelector('#jump').hidden")
        before = await page.run("document.querySelector('#turns').scrollTop")
        model.say(f"{LONG}\n\nthe last")
        model.call(ToolCall(id="1", name="launch", arguments={"target": "moon"}))
        await page.until_text("#jump", "Approve launch?")

        assert await page.run("document.querySelector('#turns').scrollTop") == before

        await page.until_seen("#jump")
        await page.click("#jump")
        await page.until_seen(APPROVE)
        await page.click(APPROVE)
        await page.wheel("#turns", -600)
        await page.until("!document.querySelector('#jump').hidden")
        await page.wheel("#turns", 9000)
        await page.until("document.querySelector('#jump').hidden")
        model.answer(LONG)
        await page.until(f"{STATUS} === 'completed'")
        await page.until(AT_END)


async def test_what_becomes_shorter_is_not_taken_for_scrolling(
    open_stage: OpenStage, screen: Screen
) -> None:
    """The browser moves what was scrolled further than there is something left."""
    async with open_stage(launch, screen=screen) as stage:
        page = stage.page
        await stage.ask("launch")
        long = {"target": "moon" + " x" * 900}
        stage.model.call(*(ToolCall(id=str(n), name="launch", arguments=long) for n in range(3)))
        await page.until_seen(APPROVE)
        await page.type("#message", "so")
        before = await page.run("document.querySelector('#turns').scrollTop")
        rest = "[...document.querySelectorAll('[data-asks]')].slice(1)"
        frames = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        await page.run(f"({rest}.forEach((node) => (node.style.display = 'none')), {frames})")

        assert await page.run("document.querySelector('#turns').scrollTop") < before

        await page.run(f"({rest}.forEach((node) => (node.style.display = '')), {frames})")
        # What is written needs more lines, which leaves less room.
        await page.type("#message", "\nI see\nwhat I see")
        await page.run(frames)

        assert await page.is_seen(APPROVE)


async def test_who_scrolls_while_something_comes_is_not_put_back(open_stage: OpenStage) -> None:
    """The place is known before the browser tells of it: here in the midst of one script."""
    async with open_stage(screen=SCREENS[0]) as stage:
        await say_much(stage)
        await stage.page.until(AT_END)
        await stage.page.run(
            """(document.querySelector("#turns").scrollTop -= 300,
              document.querySelector("#tab-timeline").click())"""
        )
        await stage.page.until("!document.querySelector('#jump').hidden")


async def test_who_has_scrolled_away_finds_the_same_place_behind_another_tab(
    open_stage: OpenStage,
) -> None:
    async with open_stage(screen=SCREENS[1]) as stage:
        page = stage.page
        await say_much(stage)
        await page.wheel("#turns", -600)
        await page.until("!document.querySelector('#jump').hidden")
        before = await page.run("document.querySelector('#turns').scrollTop")
        for tab in ("timeline", "events", "chat"):
            await page.click(f"#tab-{tab}")

        assert await page.run("document.querySelector('#turns').scrollTop") == before
        assert not await page.run("document.querySelector('#jump').hidden")


async def test_an_approval_is_seen_from_another_tab(open_stage: OpenStage, screen: Screen) -> None:
    async with open_stage(launch, screen=screen) as stage:
        await stage.ask("launch it")
        await stage.page.click("#tab-events")
        stage.model.call(ToolCall(id="1", name="launch", arguments={"target": "moon"}))
        await stage.page.until_seen(APPROVE)


async def test_who_writes_keeps_the_keyboard(open_stage: OpenStage, screen: Screen) -> None:
    """Else the next Enter would approve."""
    async with open_stage(launch, screen=screen) as stage:
        await stage.ask("launch it")
        await stage.page.type("#message", "and th")
        stage.model.call(ToolCall(id="1", name="launch", arguments={"target": "moon"}))
        await stage.page.until_seen(APPROVE)

        assert await stage.page.run("document.activeElement.id") == "message"


async def test_a_decision_that_was_not_taken_can_be_made_again(open_stage: OpenStage) -> None:
    refuse = [
        ('type: "approve", call_id: callId, arguments: args', 'type: "approve", arguments: args')
    ]
    async with open_stage(launch, edits={"flowtrio.js": refuse}) as stage:
        await stage.ask("launch it")
        stage.model.call(ToolCall(id="1", name="launch", arguments={"target": "moon"}))
        await stage.page.click(APPROVE)
        await stage.page.until_text(".question .wrong", "call_id")
        await stage.page.until("!document.querySelector(values[0]).disabled", APPROVE)
        await stage.page.click("[aria-label='Deny launch']")
        await stage.page.until("document.querySelector('.call[data-outcome=denied]')")
