"""What a person meets now and then: copying, selecting, a wrong token, keys at the wrong time."""

from __future__ import annotations

from typing import Any

from flowtrio.abc import NotAuthenticated, Request
from flowtrio.serving._access import token_of
from tests.browser.conftest import OpenStage
from tests.browser.test_page import STATUS
from tests.support.chromium import Screen


async def test_copied_is_said_where_it_was(open_stage: OpenStage, screen: Screen) -> None:
    async with open_stage(screen=screen) as stage:
        page = stage.page
        await stage.ask("code")
        stage.model.answer("```\none\n```")
        await page.until(f"{STATUS} === 'completed'")
        for missing, copies, said in [
            ("{ writeText: async () => {} }", "false", "Copied"),
            ("undefined", "true", "Copied"),
            ("undefined", "false", "Selected, not copied"),
            ("{ writeText: async () => { throw new Error() } }", "false", "Selected, not copied"),
        ]:
            await page.run(
                f"""void (Object.defineProperty(navigator, "clipboard",
                  {{ value: {missing}, configurable: true }}),
                  document.execCommand = () => {copies},
                  document.querySelector("figcaption button").textContent = "Copy")"""
            )
            await page.click("figcaption button")
            await page.until(
                "document.querySelector('figcaption button').textContent === values[0]", said
            )

        assert await page.run("String(getSelection())") == "one"


async def test_what_is_selected_stays_so_while_the_answer_grows(
    open_stage: OpenStage, screen: Screen
) -> None:
    async with open_stage(screen=screen) as stage:
        page, model = stage.page, stage.model
        await stage.ask("go on")
        model.say("Some **strong** words\n\n- first\n- second item")
        await page.until("document.querySelectorAll('.markdown li').length === 2")
        await page.run(
            """void getSelection().setBaseAndExtent(
              document.querySelector(".markdown strong").firstChild, 0,
              document.querySelector(".markdown li:last-child").firstChild, 6)"""
        )
        before = await page.run("String(getSelection())")
        for text in (" goes on", " with *emphasis*", "\n- third\n\n```\ncode", " and more\n```\n"):
            model.say(text)
        model.answer("\nThe end.")
        await page.until(f"{STATUS} === 'completed'")
        await page.until_text(".markdown", "The end.")

        assert before.endswith("second")
        assert await page.run("String(getSelection())") == before


async def test_a_wrong_token_is_told(open_stage: OpenStage, screen: Screen) -> None:
    async with open_stage(token="s3cret-token", screen=screen) as stage:
        page = stage.page
        await page.until("document.querySelector('#ask-token').open")

        assert await page.run("document.querySelector('#token-wrong').hidden")

        await page.type("#token", "wrong")
        await page.press("Enter")
        await page.until_seen("#token-wrong")


async def test_the_servers_words_say_what_is_wrong_with_a_token(open_stage: OpenStage) -> None:
    """Also with one that was good when the connection was opened."""
    is_good = True

    def authenticate(request: Request) -> str:
        if not is_good:
            raise NotAuthenticated("the token has expired")
        return "ann"

    for has_sockets in (True, False):
        is_good = True
        options: Any = {"authenticate": authenticate, "has_sockets": has_sockets}
        async with open_stage(**options) as stage:
            page = stage.page
            is_good = False
            await page.click("#list")
            await page.until("document.querySelector('#ask-token').open")

            assert await page.run("document.querySelector('#token-wrong').hidden")

            await page.type("#token", "old")
            await page.press("Enter")
            await page.until_seen("#token-wrong")
            await page.until_text("#token-wrong", "does not take this token: the token has expired")
            is_good = True
            await page.press("Enter")
            await page.until("document.querySelector('#connection').dataset.state === 'open'")
            await stage.ask("hello")
            stage.model.answer("here")
            await page.until(f"{STATUS} === 'completed'")


async def test_what_cannot_be_said_is_told_or_made_good(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        page = stage.page
        await page.type("#message", "x" * 100_010)
        await page.until_text("#notice", "at most 100000 characters")
        await page.run("document.querySelector('#message').value = 'half \\ud83d'")
        await page.press("Enter")
        for turn in ("first", "again"):
            stage.model.answer(turn)
            await page.until_text(".markdown", turn)
            await page.until(f"{STATUS} === 'completed'")
            await page.click(".acts button:nth-of-type(2)")
        stage.model.answer("the end")
        await page.until_text(".markdown", "the end")

        assert [request[-1]["content"] for request in stage.model.requests] == ["half \ufffd"] * 3


async def test_whoever_closed_the_dialog_can_still_enter_the_token(
    open_stage: OpenStage, screen: Screen
) -> None:
    """By the button beside what is needed, or by whatever the server would be asked for."""
    async with open_stage(token="s3cret-token", screen=screen) as stage:
        page = stage.page
        is_asked = "document.querySelector('#ask-token').open"
        for act in (lambda: page.click("#enter-token"), lambda: stage.ask("hello")):
            await page.until(is_asked)
            await page.press("Escape")
            await page.until(f"!{is_asked}")
            await page.until_seen("#enter-token")

            assert await page.run("document.documentElement.scrollWidth <= innerWidth")

            await act()
        await page.until(is_asked)

        assert await page.run("document.querySelector('#message').value") == "hello"
        assert await page.run("document.querySelectorAll('.turn').length") == 0

        await page.type("#token", "s3cret-token")
        await page.press("Enter")
        await page.until("document.querySelector('#connection').dataset.state === 'open'")
        await page.click("#send")
        stage.model.answer("here")
        await page.until(f"{STATUS} === 'completed'")

        assert not await page.is_seen("#enter-token")


async def test_a_run_can_be_stopped_after_its_server_wanted_another_token(
    open_stage: OpenStage,
) -> None:
    tokens: set[str | None] = {None}

    def authenticate(request: Request) -> str | None:
        return "me" if token_of(request) in tokens else None

    async with open_stage(authenticate=authenticate) as stage:
        page = stage.page
        await stage.ask("go on")
        stage.model.say("Well")
        await page.until("document.querySelector('.markdown')?.innerText === 'Well'")
        tokens.clear()
        stage.front.cut()
        for _ in range(2):
            await page.until("document.querySelector('#ask-token').open")
            await page.press("Escape")
            await page.until("!document.querySelector('#ask-token').open")
            await page.click("#stop")
        tokens.add("new")
        await page.type("#token", "new")
        await page.press("Enter")
        await page.until("document.querySelector('#connection').dataset.state === 'open'")
        await page.click("#stop")
        await page.until(f"{STATUS} === 'cancelled'")


async def test_what_is_said_while_the_agent_answers_is_taken_and_escape_stops(
    open_stage: OpenStage, screen: Screen
) -> None:
    async with open_stage(screen=screen) as stage:
        page = stage.page
        await stage.ask("go on")
        stage.model.say("Well")
        await page.until("document.querySelector('.markdown')?.innerText === 'Well'")
        await stage.ask("and then?")
        await page.until("document.querySelector('#message').value === ''")

        await page.press("Escape")
        await page.until(f"{STATUS} === 'cancelled'")
        await page.until_text("main", "and then?")


async def test_a_reload_says_what_it_does_not_show(open_stage: OpenStage, screen: Screen) -> None:
    edits = {"memory.js": [("const MOST_RUNS = 30;", "const MOST_RUNS = 2;")]}
    async with open_stage(edits=edits, screen=screen) as stage:
        page = stage.page
        for number in range(1, 4):
            await stage.ask(f"number {number}")
            stage.model.answer("answer")
            await page.until(
                "document.querySelectorAll('[data-status=completed]').length === values[0]", number
            )
        await page.reload()
        await page.until("document.querySelectorAll('[data-status=completed]').length === 2")

        assert await page.text(".earlier") == (
            "1 earlier turn is not shown any more; the agent still knows them."
        )


async def test_formulas_and_tasks_keep_their_characters(
    open_stage: OpenStage, screen: Screen
) -> None:
    async with open_stage(screen=screen) as stage:
        await stage.ask("tasks")
        stage.model.answer("- [x] done\n- [ ] to do\n\nSo \\(a_1 * b_2 * c\\).")
        await stage.page.until(f"{STATUS} === 'completed'")

        assert await stage.page.text(".markdown") == "☑ done\n☐ to do\nSo \\(a_1 * b_2 * c\\)."
