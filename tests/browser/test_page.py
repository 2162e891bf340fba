"""The page in a browser: what a person does and sees."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from flowtrio import RunContext, ServerLimits, ToolCall, tool
from tests.browser.conftest import OpenStage, Stage

STATUS = "document.querySelector('.turn:last-of-type').dataset.status"


@tool
async def weigh(thing: str) -> str:
    """Weigh a thing."""
    return f"{thing} is heavy"


@tool(needs_approval=True)
async def launch(target: str) -> str:
    """Launch."""
    return f"launched at {target}"


async def seqs(stage: Stage) -> list[int]:
    """Which events the page lists, in its order."""
    found: list[int] = await stage.page.run(
        "[...document.querySelectorAll('.rows details')].map((row) => Number(row.dataset.seq))"
    )
    return found


async def until_listed(stage: Stage) -> list[int]:
    """Wait until the list of events ends with DONE; give their numbers."""
    await stage.page.until("document.querySelector('.rows > :last-child [data-type=done]')")
    return await seqs(stage)


# Talking


async def test_the_answer_grows_token_by_token(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        page, model = stage.page, stage.model
        await stage.ask("hello")
        model.say("One")
        await page.until("document.querySelector('.markdown')?.innerText === 'One'")
        model.say(" two")
        await page.until("document.querySelector('.markdown').innerText === 'One two'")

        assert await page.run(STATUS) == "running"
        assert not await page.run("document.querySelector('#send').hidden")

        model.answer(" **three**")
        await page.until(f"{STATUS} === 'completed'")

        await page.until_text(".markdown", "One two three")
        assert await page.text(".markdown strong") == "three"
        assert await page.text(".said") == "hello"
        assert await until_listed(stage) == list(range(len(await seqs(stage))))
        assert page.problems == []


async def test_a_second_message_goes_on_with_the_conversation(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        for number, word in enumerate(["first", "second"], start=1):
            await stage.ask(f"the {word}")
            stage.model.answer(f"{word} answer")
            await stage.page.until(
                f"document.querySelectorAll('[data-status=completed]').length === {number}"
            )

        await stage.page.until_text(".turn:last-of-type .answer", "second answer")

        assert await stage.page.run("document.querySelectorAll('.turn').length") == 2


async def test_a_run_is_stopped(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        await stage.ask("go on for ever")
        stage.model.say("Well")
        await stage.page.until("document.querySelector('.markdown')?.innerText === 'Well'")
        await stage.page.click("#stop")
        await stage.page.until(f"{STATUS} === 'cancelled'")

        await stage.page.until_text(".message", "Well\nStopped here.")
        await stage.page.until("document.querySelector('#stop').hidden")

        assert stage.page.problems == []


async def test_it_can_be_used_by_the_keyboard_alone(open_stage: OpenStage) -> None:
    async with open_stage() as stage:
        page = stage.page

        async def until_focused(name: str) -> None:
            await page.until("document.activeElement.id === values[0]", name)

        await until_focused("message")
        await stage.ask("hello")
        stage.model.say("word")
        await page.until("!document.querySelector('#stop').hidden")
        await page.press("Tab")
        await until_focused("send")
        await page.press("Tab")
        await until_focused("stop")
        await page.press("Enter")
        await page.until(f"{STATUS} === 'cancelled'")
        await until_focused("message")
        await page.run("document.querySelector('#tab-timeline').focus()")
        await page.press("ArrowRight")
        await until_focused("tab-events")
        await page.until("document.querySelector('#events').checkVisibility()")


# Tools and questions


async def test_a_tool_is_approved(open_stage: OpenStage) -> None:
    async with open_stage(launch) as stage:
        await stage.ask("launch it")
        stage.model.call(ToolCall(id="1", name="launch", arguments={"target": "moon"}))
        await stage.page.until("document.querySelector('.call[data-outcome=waiting]')")

        await stage.page.until_text(".call", "moon")
        await stage.page.until_text("#announcer", "launch needs your approval")
        await stage.page.click("[aria-label='Approve launch']")
        await stage.page.until("document.querySelector('.call[data-outcome=ok]')")
        stage.model.answer("Done.")
        await stage.page.until(f"{STATUS} === 'completed'")
        await stage.page.click(".call summary")
        await stage.page.until_text(".call", "launched at moon")

        assert stage.page.problems == []


async def test_a_tool_is_denied_with_a_reason(open_stage: OpenStage) -> None:
    async with open_stage(launch) as stage:
        await stage.ask("launch it")
        stage.model.call(ToolCall(id="1", name="launch", arguments={"target": "moon"}))
        await stage.page.type("[aria-label='Reason to deny launch']", "not today")
        await stage.page.click("[aria-label='Deny launch']")
        await stage.page.until("document.querySelector('.call[data-outcome=denied]')")
        stage.model.answer("Then not.")
        await stage.page.until(f"{STATUS} === 'completed'")
        await stage.page.click(".call summary")
        await stage.page.until_text(".call", "not today")


async def test_a_call_is_cancelled_and_the_run_goes_on(open_stage: OpenStage) -> None:
    @tool
    async def wait(ctx: RunContext) -> None:
        """Wait."""
        await ctx.progress({"done": 1, "total": 4})
        await trio.sleep_forever()

    async with open_stage(wait) as stage:
        await stage.ask("wait")
        stage.model.call(ToolCall(id="1", name="wait", arguments={}))
        await stage.page.until("document.querySelector('.call progress')?.value === 0.25")
        await stage.page.click("[aria-label='Cancel wait']")
        await stage.page.until("document.querySelector('.call[data-outcome=cancelled]')")
        stage.model.answer("Enough.")
        await stage.page.until(f"{STATUS} === 'completed'")

        assert stage.page.problems == []


async def test_a_question_is_answered_in_place(open_stage: OpenStage) -> None:
    async def agent(ctx: RunContext, message: str) -> None:
        name = await ctx.ask("What is your name?")
        async with ctx.message() as out:
            await out.write(f"Hello {name}")

    async with open_stage(agent=agent) as stage:
        await stage.ask("hello")
        await stage.page.type(".ask input", "Ada")
        await stage.page.press("Enter")
        await stage.page.until(f"{STATUS} === 'completed'")

        await stage.page.until_text(".markdown", "Hello Ada")
        await stage.page.until_text(".ask", "What is your name?\nAda")


async def test_the_timeline_has_a_lane_for_the_model_and_each_tool_and_agent(
    open_stage: OpenStage,
) -> None:
    async def helper(ctx: RunContext, message: str) -> str:
        return str(await ctx.call(weigh, thing="feather"))

    async def agent(ctx: RunContext, message: str) -> None:
        await ctx.call(weigh, thing="stone")
        await ctx.delegate(helper, "a feather")
        async with ctx.message() as out:
            await out.write("Weighed.")

    async with open_stage(agent=agent) as stage:
        await stage.ask("weigh")
        await stage.page.until(f"{STATUS} === 'completed'")
        await stage.page.click("#tab-timeline")
        lanes = await stage.page.until(
            """(() => {
              const lanes = [...document.querySelectorAll(".lane")];
              return lanes.length === 5 && lanes.map((lane) => ({...lane.dataset}));
            })()"""
        )

        assert [(lane["kind"], lane["lane"]) for lane in lanes] == [
            ("run", "run"),
            ("tool", "weigh"),
            ("agent", "helper"),
            ("tool", "weigh"),
            ("model", "model"),
        ]

        # A bar leads to the event that began it.
        await stage.page.click("[data-kind=agent] .bar")
        await stage.page.until_text(".rows details[open]", "agent_start")

        assert stage.page.problems == []


async def test_a_failed_run_tells_why(open_stage: OpenStage) -> None:
    async def agent(ctx: RunContext, message: str) -> None:
        raise RuntimeError("the pump is broken")

    async with open_stage(agent=agent, debug=True) as stage:
        await stage.ask("pump")
        await stage.page.until(f"{STATUS} === 'error'")

        await stage.page.until_text(".failure", "the pump is broken")


# Hostile text

ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "[click](javascript:alert(1))",
    "[click](JaVa\tScript:alert(1))",
    "[click](data:text/html,<script>alert(1)</script>)",
    "[click](vbscript:alert(1))",
    "[click](&#106;avascript:alert(1))",
    "[click](//elsewhere.example/)",
    "[click](runs/r1/cancel)",
    "![tracker](https://elsewhere.example/seen.png)",
    "<javascript:alert(1)>",
    "```html\n<script>alert(1)</script>\n```",
    "| <img src=x onerror=alert(1)> |\n|---|\n| <b onclick=alert(1)>b</b> |",
    "<style>body { display: none }</style>",
    "<form action=https://elsewhere.example><button>go</button></form>",
    "<base href=https://elsewhere.example/>",
    "<a href='javascript:alert(1)' autofocus onfocus=alert(1)>a</a>",
]


async def test_what_a_model_says_never_becomes_markup(open_stage: OpenStage) -> None:
    """In every place where text of others is shown: messages, tools, questions, errors, events."""

    async def agent(ctx: RunContext, message: str) -> Any:
        await ctx.status(everything)
        await ctx.custom(everything, everything)
        for attack in ATTACKS:
            async with ctx.message() as out:
                await out.write(attack)
        await ctx.call(repeat, what=everything)
        await ctx.ask(everything)
        raise RuntimeError(everything)

    @tool
    async def repeat(ctx: RunContext, what: str) -> str:
        """Say it again."""
        await ctx.progress(what)
        return what

    everything = "\n\n".join(ATTACKS)
    # The page's own: what is there before, and what it makes of harmless text.
    count = """Object.fromEntries(["script", "img", "svg", "iframe", "style", "base", "object",
        "embed", "link", "meta"].map((tag) => [tag, document.querySelectorAll(tag).length]))"""
    async with open_stage(agent=agent, debug=True) as stage:
        page = stage.page
        own = await page.run(count)
        await stage.ask(everything)
        await page.type(".ask input", "<img src=x onerror=alert(1)>")
        await page.press("Enter")
        await page.until(f"{STATUS} === 'error'")
        await page.click("#tab-events")
        await until_listed(stage)
        await page.run("document.querySelectorAll('details').forEach((node) => node.open = true)")
        # What is opened is filled in an event of its own.
        await page.until(
            "[...document.querySelectorAll('.rows details')].every((row) => row.children[1])"
        )
        hrefs = await page.run(
            "[...document.querySelectorAll('#turns a')].map((a) => [a.href, a.rel, a.target])"
        )
        handlers = await page.run(
            """[...document.querySelectorAll("*")].flatMap((node) => node.getAttributeNames())
                .filter((name) => name.startsWith("on"))"""
        )

        assert await page.run(count) == own
        assert {rel + target for _, rel, target in hrefs} == {"noopener noreferrer nofollow_blank"}
        assert {href for href, _, _ in hrefs} == {
            "https://elsewhere.example/",
            "https://elsewhere.example/seen.png",
        }
        assert handlers == []
        assert page.dialogs == []
        assert page.problems == []
        assert all(url.startswith(stage.front.url) for url in page.requests)
        assert "<script>alert(1)</script>" in await page.text("#turns")


async def test_a_link_to_a_script_is_noticed(open_stage: OpenStage) -> None:
    """A planted bug, for the test above: addresses are taken as they come."""
    edits = [("SCHEMES.has(url.protocol) ? url.href : null", "url.href")]
    async with open_stage(edits={"markdown.js": edits}) as stage:
        await stage.ask("hello")
        stage.model.answer("[click](javascript:alert(1))")
        await stage.page.until(f"{STATUS} === 'completed'")
        hrefs = await stage.page.run(
            "[...document.querySelectorAll('#turns a')].map((a) => a.href)"
        )

        assert hrefs == ["javascript:alert(1)"]

        # And the second wall: the policy does not let it run.
        await stage.page.click("#turns a")
        await stage.page.until("true")

        assert stage.page.dialogs == []


async def test_script_that_got_into_the_page_would_not_run(open_stage: OpenStage) -> None:
    """The second wall: if the page did put text into its markup, the policy would hold."""
    async with open_stage() as stage:
        refused = await stage.page.run(
            """(() => {
              try {
                document.querySelector("#turns").innerHTML = "<img src=x onerror=alert(1)>";
                return "taken";
              } catch (error) {
                return error.name;
              }
            })()"""
        )

        assert refused == "TypeError"
        assert stage.page.dialogs == []


# The connection


async def test_a_token_is_asked_for_and_kept(open_stage: OpenStage) -> None:
    async with open_stage(token="s3cret-token") as stage:
        page = stage.page
        await page.until("document.querySelector('#ask-token').open")
        await page.type("#token", "wrong")
        # It is asked for again: seen by a mark, since the dialog is open before and after.
        await page.run(
            """void (document.querySelector("#ask-token").addEventListener(
              "close", () => (window.isClosed = true), { once: true }))"""
        )
        await page.press("Enter")
        await page.until("window.isClosed && document.querySelector('#ask-token').open")
        await page.run("document.querySelector('#token').value = ''")
        await page.type("#token", "s3cret-token")
        await page.press("Enter")
        await page.until("document.querySelector('#connection').dataset.state === 'open'")
        await page.reload()
        await page.until("document.querySelector('#connection').dataset.state === 'open'")

        assert not await page.run("document.querySelector('#ask-token').open")
        assert not any("s3cret" in url for url in page.requests)


async def test_a_message_that_is_too_big_is_told_so(open_stage: OpenStage) -> None:
    async with open_stage(limits=ServerLimits(message=1000)) as stage:
        await stage.ask("x" * 2000)
        await stage.page.until(f"{STATUS} === 'error'")

        await stage.page.until_text(".failure", "larger than the server takes")
        # And the next one is answered.
        await stage.ask("hello")
        stage.model.answer("here")
        await stage.page.until(f"{STATUS} === 'completed'")


@pytest.mark.parametrize("width", [1280, 390])
async def test_nothing_is_wider_than_the_screen(open_stage: OpenStage, width: int) -> None:
    async with open_stage(weigh) as stage:
        await stage.page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        await stage.ask("x" * 500)
        stage.model.call(ToolCall(id="1", name="weigh", arguments={"thing": "y" * 500}))
        stage.model.answer(
            "z" * 500, "\n\n```\n", "c" * 500, "\n```\n\n| a | b |\n|-|-|\n| 1 | ", "t" * 300
        )
        await stage.page.until(f"{STATUS} === 'completed'")
        for tab in ("chat", "timeline", "events") if width < 500 else ("timeline", "events"):
            await stage.page.click(f"#tab-{tab}")
            await stage.page.until("document.querySelector(values[0]).checkVisibility()", f"#{tab}")

            assert await stage.page.run("document.documentElement.scrollWidth") <= width
