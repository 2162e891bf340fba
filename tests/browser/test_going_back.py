"""What a person does with an answer: take it along, ask again, ask something else instead."""

from __future__ import annotations

from flowtrio import ServerLimits, Usage
from tests.browser.conftest import OpenStage, Stage
from tests.browser.test_accessible import check_accessible, find_axe
from tests.browser.test_attachments import paste
from tests.support.chromium import Screen

STATUS = "document.querySelector('.turn:last-of-type').dataset.status"
TURNS = "[...document.querySelectorAll('.turn > .saying')].map((n) => n.innerText.trim())"
ANSWERS = "[...document.querySelectorAll('.turn > .answer')].map((n) => n.innerText.trim())"


def act(name: str, turn: int) -> str:
    """A button below the turn of this number, from 1."""
    places = {"Copy": 1, "Retry": 2, "Edit": 3}
    return f".turn:nth-of-type({turn}) .acts button:nth-of-type({places[name]})"


async def talk(stage: Stage, *texts: str) -> None:
    """Messages with their answers."""
    for text in texts:
        number = await stage.page.run("document.querySelectorAll('.turn').length")
        await stage.ask(text)
        stage.model.answer(f"{text} is *nice*")
        await stage.page.until(f"({ANSWERS}).length === {number + 1} && {STATUS} === 'completed'")


def told(stage: Stage) -> list[str]:
    """What the model was asked last."""
    return [str(message["content"]) for message in stage.model.requests[-1]]


async def test_the_whole_answer_is_copied_as_it_was_written(
    open_stage: OpenStage, screen: Screen
) -> None:
    async with open_stage(screen=screen) as stage:
        page = stage.page
        await talk(stage, "Rome")
        await page.run(
            """void Object.defineProperty(navigator, "clipboard", { configurable: true,
              value: { writeText: async (text) => { window.copied = text; } } })"""
        )
        await page.click(act("Copy", 1))
        await page.until_text(act("Copy", 1), "Copied")

        assert await page.run("window.copied") == "Rome is *nice*"

        await page.run(
            """void (Object.defineProperty(navigator, "clipboard", { value: undefined }),
              document.execCommand = () => false)"""
        )
        await page.click(act("Copy", 1))
        await page.until_text(act("Copy", 1), "Selected, not copied")

        assert (await page.run("String(getSelection())")).strip() == "Rome is nice"


async def test_there_is_nothing_to_copy_or_to_take_back_while_it_is_written(
    open_stage: OpenStage,
) -> None:
    async with open_stage() as stage:
        await stage.ask("go")
        stage.model.say("Well")
        await stage.page.until_text(".markdown", "Well")

        assert await stage.page.text(".acts") == "Show the run"


async def test_an_answer_is_tried_again_instead_of_the_one_before(
    open_stage: OpenStage, screen: Screen
) -> None:
    async with open_stage(screen=screen) as stage:
        page = stage.page
        await talk(stage, "Rome", "Paris")
        await page.click(act("Retry", 2))
        await page.until(f"{STATUS} !== 'completed'")
        stage.model.answer("Paris is wet")
        await page.until(f"{STATUS} === 'completed'")

        assert await page.run(TURNS) == ["Rome", "Paris"]
        assert await page.run(ANSWERS) == ["Rome is nice", "Paris is wet"]
        assert told(stage) == ["Rome", "Rome is *nice*", "Paris"]

        # The conversation goes on there, also after a reload.
        await page.reload()
        await page.until(f"({TURNS}).length === 2 && {STATUS} === 'completed'")
        await talk(stage, "Oslo")

        assert await page.run(ANSWERS) == ["Rome is nice", "Paris is wet", "Oslo is nice"]
        assert told(stage) == ["Rome", "Rome is *nice*", "Paris", "Paris is wet", "Oslo"]
        assert page.problems == []


async def test_who_asks_twice_for_another_try_or_goes_elsewhere_meanwhile(
    open_stage: OpenStage,
) -> None:
    async with open_stage() as stage:
        page = stage.page
        await talk(stage, "Rome")
        await page.run(
            "((retry) => { retry.click(); retry.click(); })(document.querySelector(values[0]))",
            act("Retry", 1),
        )
        await page.until(f"{STATUS} !== 'completed'")
        stage.model.answer("Once more.")
        await page.until(f"{STATUS} === 'completed'")
        asked = """(async () => (await (await fetch("runs")).json()).items.length)()"""

        assert await page.run(asked) == 2

        await page.run(
            """(async () => {
              document.querySelector(values[0]).click();
              document.querySelector("#new").click();
              await fetch("health");
              await new Promise((done) => setTimeout(done, 100));
            })()""",
            act("Retry", 1),
        )

        assert await page.run(TURNS) == []
        assert await page.run(asked) == 2


async def test_what_was_refused_is_asked_again_by_a_person_and_never_by_a_reload(
    open_stage: OpenStage,
) -> None:
    async with open_stage(limits=ServerLimits(starts_per_minute=1)) as stage:
        page = stage.page
        await talk(stage, "Rome")
        await stage.ask("Milan")
        for act_again in (True, False):
            await page.until(f"{STATUS} === 'error'")
            await page.until_text(".turn:last-of-type .failure", "more than 1 runs a minute")
            if act_again:
                await page.run("document.querySelector('.turn:last-of-type').isOld = true")
                await page.click(act("Retry", 2))
                await page.until("!document.querySelector('.turn:last-of-type').isOld")
        await page.reload()
        await page.until(f"({TURNS}).length === 2 && {STATUS} === 'error'")

        assert await page.run(TURNS) == ["Rome", "Milan"]
        assert len(stage.model.requests) == 1


async def test_a_message_is_edited_and_what_followed_it_is_left_out(
    open_stage: OpenStage, screen: Screen
) -> None:
    async with open_stage(screen=screen) as stage:
        page = stage.page
        await talk(stage, "Rome", "Paris", "Oslo")
        await page.click(act("Edit", 2))

        assert await page.run("document.querySelector('#message').value") == "Paris"
        assert await page.run("document.activeElement.id") == "message"

        await page.until_seen("#editing")
        await page.run("document.querySelector('#message').value = ''")
        await stage.ask("Lima")
        stage.model.answer("Lima is dry")
        await page.until(f"({ANSWERS})[1] === 'Lima is dry' && {STATUS} === 'completed'")

        assert await page.run(TURNS) == ["Rome", "Lima"]
        assert told(stage) == ["Rome", "Rome is *nice*", "Lima"]
        assert await page.run("document.querySelector('#editing').hidden")
        assert await page.run("document.documentElement.scrollWidth <= innerWidth")


async def test_an_edit_may_be_dropped(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        page = stage.page
        await talk(stage, "Rome")
        await page.click(act("Edit", 1))
        await page.click("#not-edit")

        assert await page.run("document.querySelector('#message').value") == ""

        await talk(stage, "Paris")

        assert await page.run(TURNS) == ["Rome", "Paris"]


async def test_what_was_being_written_is_there_again_after_an_edit(open_stage: OpenStage) -> None:
    value = "document.querySelector('#message').value"
    async with open_stage() as stage:
        page = stage.page
        await talk(stage, "Rome")
        await page.type("#message", "And then")
        await page.click(act("Edit", 1))

        assert await page.run(value) == "Rome"

        await page.click("#not-edit")

        assert await page.run(value) == "And then"

        await page.click(act("Edit", 1))
        await page.type("#message", " and Naples")
        await page.press("Enter")
        stage.model.answer("Both are nice")
        await page.until(f"({TURNS}).join() === 'Rome and Naples' && {STATUS} === 'completed'")

        assert await page.run(value) == "And then"


async def test_the_first_message_is_edited_with_its_image(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        page = stage.page
        await paste(stage)
        await page.until("document.querySelectorAll('#attachments li').length === 1")
        await talk(stage, "this")
        await page.click(act("Edit", 1))
        await page.until("document.querySelector('#attachments img')")
        await page.press("Enter")
        stage.model.answer("A cat.")
        await page.until(f"({ANSWERS})[0] === 'A cat.' && {STATUS} === 'completed'")
        [message] = stage.model.requests[-1]

        assert [part["type"] for part in message["content"]] == ["text", "image_url"]

        # After a reload the page shows the image and has not got it: it cannot be sent again.
        await page.reload()
        await page.until(f"{STATUS} === 'completed'")
        # It comes by itself, and moves what stands below it.
        await page.until("document.querySelector('.turn img')?.complete")
        await page.click(act("Retry", 1))
        await page.until_text("#notice", "say it anew")

        assert await page.run(ANSWERS) == ["A cat."]


async def test_going_back_counts_what_was_said_meanwhile(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        page = stage.page
        await talk(stage, "Rome")
        await stage.ask("Paris")
        stage.model.say("Well")
        await page.until_text(".turn:last-of-type .markdown", "Well")
        await stage.ask("in May")
        await page.until_text(".turn:last-of-type .waiting", "in May")
        stage.model.end()
        stage.model.answer("Fine.")
        await page.until(f"{STATUS} === 'completed'")
        await page.click(act("Retry", 2))
        await page.until(f"{STATUS} !== 'completed'")
        stage.model.answer("Again.")
        await page.until(f"{STATUS} === 'completed'")

        assert told(stage) == ["Rome", "Rome is *nice*", "Paris"]


async def test_a_place_that_is_not_there_is_told_and_nothing_is_lost(
    open_stage: OpenStage,
) -> None:
    """Somebody deleted the conversation meanwhile."""
    async with open_stage() as stage:
        page = stage.page
        await talk(stage, "Rome")
        await page.run(
            """fetch(`sessions/${JSON.parse(Object.values(sessionStorage)[0]).sessionId}`,
              { method: "DELETE" }).then(() => 1)"""
        )
        await page.click(act("Edit", 1))
        await page.press("Enter")
        await page.until_text("#notice", "no such message")

        assert await page.run("document.querySelector('#message').value") == "Rome"
        assert await page.run(TURNS) == ["Rome"]


async def test_what_was_written_and_not_sent_is_there_after_a_reload(
    open_stage: OpenStage,
) -> None:
    async with open_stage() as stage:
        page = stage.page
        await page.type("#message", "two\nlines")
        height = await page.run("document.querySelector('#message').clientHeight")
        await page.reload()
        await page.until("document.querySelector('#message').value === 'two\\nlines'")

        assert await page.run("document.querySelector('#message').clientHeight") == height

        await page.press("Enter")
        await page.until("document.querySelector('.turn')")
        await page.reload()
        await page.until("document.querySelector('.turn')")

        assert await page.run("document.querySelector('#message').value") == ""


COLOUR = "getComputedStyle(document.body).backgroundColor"
LIGHT, DARK = "rgb(247, 247, 245)", "rgb(22, 24, 28)"


async def test_the_colours_are_the_systems_or_the_ones_chosen(
    open_stage: OpenStage, screen: Screen
) -> None:
    async with open_stage(screen=screen) as stage:
        page = stage.page
        seen = [await page.run(COLOUR)]
        for name in ("light", "dark"):
            await page.click("#theme")
            await page.until(
                "document.querySelector('#theme').ariaLabel === `Colours: ${values[0]}`", name
            )
            seen.append(await page.run(COLOUR))
        # From the first drawing on: the script stands before what is drawn.
        await page.reload()
        seen.append(await page.run(COLOUR))
        await page.click("#theme")
        await page.until("document.querySelector('#theme').ariaLabel === 'Colours: auto'")
        seen.append(await page.run(COLOUR))

        own = DARK if screen.is_dark else LIGHT
        assert seen == [own, LIGHT, DARK, DARK, own]
        assert page.problems == []


async def test_a_run_and_the_conversation_say_what_they_cost(
    open_stage: OpenStage, screen: Screen
) -> None:
    async with open_stage(screen=screen) as stage:
        page = stage.page
        for number, cost in enumerate(["0.0004", "1.25"], start=1):
            await stage.ask("go")
            usage = Usage(prompt_tokens=10, completion_tokens=number, cost=cost)
            stage.model.answer("fine", usage=usage)
            await page.until(
                "document.querySelectorAll('[data-status=completed]').length === values[0]", number
            )
        figures = await page.run(
            "[...document.querySelectorAll('.figures')].map((n) => n.textContent.split(' · '))"
        )

        assert [each[1:3] for each in figures] == [
            ["11 tokens", "cost 0.00040"],
            ["12 tokens", "cost 1.25"],
        ]
        await page.until_seen("#total")
        assert await page.text("#total") == "Conversation: 23 tokens · cost 1.25"


async def test_axe_finds_nothing_while_a_message_is_edited(
    open_stage: OpenStage, screen: Screen
) -> None:
    axe = find_axe()
    async with open_stage(screen=screen) as stage:
        await talk(stage, "Rome", "Paris")
        await stage.page.click(act("Edit", 1))
        await stage.page.until_seen("#editing")
        await check_accessible(stage.page, axe)
