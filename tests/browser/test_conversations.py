"""Conversations that are found again: by a list, by their words, by their address, elsewhere."""

from __future__ import annotations

import attrs
import pytest

from flowtrio import ServerLimits
from tests.browser.conftest import OpenStage, Stage
from tests.browser.test_accessible import check_accessible, find_axe
from tests.browser.test_going_back import act
from tests.support.chromium import Screen

STATUS = "document.querySelector('.turn:last-of-type').dataset.status"
TURNS = "[...document.querySelectorAll('.turn > .saying')].map((n) => n.innerText.trim())"
LAST = "document.querySelector('.turn:last-of-type .markdown')"
GO = """(async ([hashes, pause]) => {
  for (const hash of hashes) {
    location.hash = hash;
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
})(values)"""
FOUND = "[...document.querySelectorAll('#found strong')].map((n) => n.textContent)"


async def talk(stage: Stage, *texts: str) -> None:
    for text in texts:
        number = await stage.page.run("document.querySelectorAll('.turn').length")
        await stage.ask(text)
        stage.model.answer(f"{text} is nice")
        await stage.page.until(f"({TURNS}).length === {number + 1} && {STATUS} === 'completed'")


async def begin(stage: Stage, *conversations: list[str]) -> None:
    """Conversations, each with these messages, and then an empty one."""
    for texts in conversations:
        await talk(stage, *texts)
        await stage.page.click("#new")
        await stage.page.until("!document.querySelector('.turn')")


async def look(stage: Stage) -> None:
    await stage.page.click("#list")
    await stage.page.until("document.querySelector('#conversations').open")


def of(place: int, name: str) -> str:
    """A button of the conversation of this number in the list, from 1."""
    return f"#found li:nth-child({place}) button:nth-of-type({name})"


async def test_one_is_found_by_its_words_and_gone_on_with(
    open_stage: OpenStage, screen: Screen
) -> None:
    async with open_stage(screen=screen) as stage:
        page = stage.page
        await begin(stage, ["Two days in Lisbon", "And Porto?"], ["A bill of March"])
        await look(stage)

        assert await page.run(FOUND) == ["A bill of March", "Two days in Lisbon"]
        assert await page.run("document.documentElement.scrollWidth <= innerWidth")

        await page.type("#search", "LISB")

        assert await page.run(FOUND) == ["Two days in Lisbon"]

        await page.type("#search", "xyz")
        await page.until_text("#found-none", "None has these words.")
        await page.run("document.querySelector('#search').value = ''")
        await page.type("#search", "days")
        await page.click(of(1, "1"))
        await page.until(f"({TURNS}).length === 2 && {STATUS} === 'completed'")

        assert await page.run(TURNS) == ["Two days in Lisbon", "And Porto?"]

        await talk(stage, "And Faro?")

        assert [m["content"] for m in stage.model.requests[-1] if m["role"] == "user"] == [
            "Two days in Lisbon",
            "And Porto?",
            "And Faro?",
        ]
        assert page.problems == []


async def test_who_asks_for_them_twice_sees_each_once(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        await begin(stage, ["Rome"])
        await stage.page.run(
            """(async () => {
              const list = document.querySelector("#list");
              list.click();
              list.click();
              const shown = () => document.querySelector("#conversations").open;
              while (!shown()) await new Promise((done) => setTimeout(done, 10));
              await fetch("health");
              await new Promise((done) => setTimeout(done, 50));
              document.querySelector("#search").dispatchEvent(new Event("input"));
            })()"""
        )

        assert await stage.page.run(FOUND) == ["Rome"]
        assert stage.page.problems == []


async def test_there_are_none_at_first(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        await look(stage)
        await stage.page.until_text("#found-none", "There are none yet.")
        await stage.page.click("#close-list")

        assert not await stage.page.run("document.querySelector('#conversations').open")


async def test_the_address_names_it_and_another_page_finds_it_there(
    open_stage: OpenStage,
) -> None:
    async with open_stage() as stage:
        await talk(stage, "Rome")
        address = await stage.page.run("location.href")
        await stage.ask("Paris")
        stage.model.say("Well")
        await stage.page.until_text(".turn:last-of-type .markdown", "Well")
        async with stage.page.browser.open_page() as other:
            await other.go(address)
            # What is still being written is followed there.
            await other.until_text(".turn:last-of-type .markdown", "Well")
            stage.model.answer(", it is wet")
            for page in (stage.page, other):
                await page.until(f"{STATUS} === 'completed'")
                await page.until_text(".turn:last-of-type .markdown", "Well, it is wet")

            assert await other.run(TURNS) == ["Rome", "Paris"]
            assert await other.run("location.href") == address


async def test_the_address_of_another_is_gone_to(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        page = stage.page
        await talk(stage, "Rome")
        address = await page.run("location.hash")
        await page.click("#new")
        await page.until("!document.querySelector('.turn')")

        assert await page.run("location.hash") == ""

        await page.run(f"void (location.hash = {address!r})")
        await page.until(f"({TURNS})[0] === 'Rome' && {STATUS} === 'completed'")


async def test_a_name_is_given_and_taken_back(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        page = stage.page
        await begin(stage, ["Rome"])
        await look(stage)
        await page.click(of(1, "2"))
        await page.until("document.activeElement.ariaLabel === 'Name of Rome'")
        await page.type("#found input", "Summer")
        await page.press("Enter")
        await page.until(f"({FOUND})[0] === 'Summer'")
        # It is found by either, also after a reload.
        await page.reload()
        await look(stage)
        for words in ("summer", "rome"):
            await page.run("document.querySelector('#search').value = ''")
            await page.type("#search", words)

            assert await page.run(FOUND) == ["Summer"]

        # And on another device.
        async with page.browser.open_page() as other:
            await other.go(stage.front.url)
            await look(Stage(other, stage.front, stage.model))

            assert await other.run(FOUND) == ["Summer"]

        await page.click(of(1, "2"))
        await page.run("document.querySelector('#found input').value = ''")
        await page.click("#found .primary")
        await page.until(f"({FOUND})[0] === 'Rome'")


async def test_a_branch_says_from_which_it_goes_another_way_on(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        page = stage.page
        await talk(stage, "Rome", "Paris")
        await page.click(act("Retry", 2))
        await page.until(f"{STATUS} !== 'completed'")
        stage.model.answer("Paris is wet")
        await page.until(f"{STATUS} === 'completed'")
        await look(stage)
        await page.until_text("#found", "Goes another way on from: Rome")

        assert await page.run(FOUND) == ["Paris", "Rome"]


async def test_one_is_deleted_once_that_is_said_twice(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        page = stage.page
        await begin(stage, ["Rome"])
        await talk(stage, "Paris")
        await look(stage)
        await page.click(of(2, "3"))

        assert await page.run(FOUND) == ["Paris", "Rome"]

        await page.click(of(2, "3"))
        await page.until(f"({FOUND}).length === 1")

        assert await page.run(TURNS) == ["Paris"]

        # The one that is looked at is gone from the page too.
        for _ in range(2):
            await page.click(of(1, "3"))
        await page.until("!document.querySelector('.turn')")
        await page.reload()
        await look(stage)
        await page.until_text("#found-none", "There are none yet.")

        assert await page.run("location.hash") == ""


async def test_what_a_person_said_never_becomes_markup_in_the_list(
    open_stage: OpenStage,
) -> None:
    async with open_stage() as stage:
        await begin(stage, ["<img src=x onerror=alert(1)>"])
        await look(stage)

        assert await stage.page.run(FOUND) == ["<img src=x onerror=alert(1)>"]
        assert await stage.page.run("document.querySelectorAll('#found img').length") == 0
        assert stage.page.dialogs == []


async def test_axe_finds_nothing_in_the_list(open_stage: OpenStage, screen: Screen) -> None:
    axe = find_axe()
    async with open_stage(screen=screen) as stage:
        await begin(stage, ["Two days in Lisbon, and then some more of them in Porto"], ["Rome"])
        await look(stage)
        await check_accessible(stage.page, axe)
        await stage.page.click(of(1, "2"))
        await stage.page.until("document.activeElement.ariaLabel === 'Name of Rome'")
        await check_accessible(stage.page, axe)


async def test_one_that_goes_on_is_left_and_come_back_to(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        page = stage.page
        await begin(stage, ["Rome"])
        await stage.ask("Paris")
        stage.model.say("Well")
        await page.until_text(".turn:last-of-type .markdown", "Well")
        paris = await page.run("location.hash")
        await look(stage)
        await page.click(of(2, "1"))
        await page.until(f"({TURNS}).join() === 'Rome' && {STATUS} === 'completed'")
        stage.model.say(", it is")
        await page.run("void (location.hash = values[0])", paris)
        await page.until(f"({TURNS}).join() === 'Paris'")
        await page.until_text(".turn:last-of-type .markdown", "Well, it is")
        stage.model.answer(" wet")
        await page.until(f"{STATUS} === 'completed'")

        assert await page.run(f"{LAST}.innerText") == "Well, it is wet"
        assert page.problems == []


async def test_who_closes_the_list_by_escape_stops_nothing(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        await stage.ask("Rome")
        stage.model.say("Well")
        await stage.page.until_text(".markdown", "Well")
        await look(stage)
        await stage.page.press("Escape")
        await stage.page.until("!document.querySelector('#conversations').open")
        stage.model.answer(", Rome.")
        await stage.page.until_text(".markdown", "Well, Rome.")
        await stage.page.until(f"{STATUS} === 'completed'")


async def test_of_several_that_are_gone_to_at_once_the_last_is_shown(
    open_stage: OpenStage,
) -> None:
    async with open_stage() as stage:
        page, hashes = stage.page, []
        for city in ("Rome", "Paris", "Oslo"):
            await talk(stage, city)
            hashes.append(await page.run("location.hash"))
            await page.click("#new")
            await page.until("!document.querySelector('.turn')")
        for pause in (0, 3, 9):
            await page.run(GO, hashes * 3, pause)
            await page.until(f"({TURNS}).join() === 'Oslo' && {STATUS} === 'completed'")

            assert await page.run("location.hash") == hashes[-1]
        # The one that is looked at already is gone back to before the other is there.
        await page.run(GO, [hashes[0], hashes[-1]], 0)
        await page.run("new Promise((resolve) => setTimeout(resolve, 150))")

        assert await page.run(TURNS) == ["Oslo"]
        assert page.problems == []


@pytest.mark.parametrize("most", [1, 8])
async def test_the_newest_is_read_first_however_few_the_server_lets_follow(
    open_stage: OpenStage, most: int
) -> None:
    states = "[...document.querySelectorAll('.turn')].map((turn) => turn.dataset.status)"
    async with open_stage(limits=ServerLimits(runs_per_connection=most)) as stage:
        page = stage.page
        await talk(stage, "Rome", "Paris", "Oslo", "Bern")
        await stage.ask("Wien")
        stage.model.say("Well")
        await page.until_text(".turn:last-of-type .markdown", "Well")
        await page.reload()
        await page.until_text(".turn:last-of-type .markdown", "Well")
        if most > 1:
            await page.until(f"({states}).join() === '{'completed,' * 4}running'")
        stage.model.answer(", it is wet")
        await page.until(f"({states}).join() === '{','.join(['completed'] * 5)}'")

        assert await page.run(TURNS) == ["Rome", "Paris", "Oslo", "Bern", "Wien"]
        assert await page.run(f"{LAST}.innerText") == "Well, it is wet"
        assert page.problems == []


async def test_what_is_one_run_too_many_says_so(open_stage: OpenStage) -> None:
    """Those that were left go on, and their events still come."""
    async with open_stage(limits=ServerLimits(runs_per_connection=1)) as stage:
        page = stage.page
        await talk(stage, "Rome")
        rome = await page.run("location.hash")
        async with page.browser.open_page() as other:
            await other.go(stage.front.url)
            await other.type("#message", "Paris")
            await other.press("Enter")
            stage.model.say("Well")
            await other.until_text(".turn:last-of-type .markdown", "Well")
            await other.run("void (location.hash = values[0])", rome)
            await other.until_text(".turn .failure", "reload it")
            await other.reload()
            await other.until_text(".turn .markdown", "Rome is nice")

            assert other.problems == []


async def test_what_was_said_in_it_elsewhere_is_there_after_a_reload(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        page = stage.page
        await talk(stage, "Rome")
        async with page.browser.open_page() as other:
            await other.go(await page.run("location.href"))
            await other.until(f"{STATUS} === 'completed'")
            await talk(attrs.evolve(stage, page=other), "Paris")
        await talk(stage, "Oslo")

        assert await page.run(TURNS) == ["Rome", "Oslo"]

        await page.reload()
        # At once, before it is known what else there is: it goes behind all of that.
        await stage.ask("Bern")
        stage.model.answer("Bern is nice")
        await page.until(
            f"({TURNS}).join() === 'Rome,Paris,Oslo,Bern' && "
            "document.querySelectorAll('[data-status=completed]').length === 4"
        )

        assert page.problems == []
