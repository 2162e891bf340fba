"""Nothing that a model, a tool or a person says makes the conversation wider than its place."""

from __future__ import annotations

from flowtrio import RunContext, tool
from tests.browser.conftest import OpenStage
from tests.browser.test_page import STATUS
from tests.support.chromium import Screen

URL = "https://example.org/" + "path/" * 300 + "x" * 3000
LONG = {
    "code": "```python-with-a-very-long-name-of-its-own-and-more\n" + "c" * 3000 + "\n```",
    "code in a list": "- one\n\n  ```\n  " + "c " * 2000 + "\n  ```",
    "code in a quote": "> ```\n> " + "c" * 3000 + "\n> ```",
    "code in a line": "`" + "c" * 3000 + "`",
    "a word": "w" * 3000,
    "a heading": "# " + "w" * 3000,
    "an address": URL,
    "a link": f"[{'w' * 3000}]({URL})",
    "emphasis": f"**{'w' * 3000}**",
    "a list": "- " * 11 + "w" * 3000,
    "a table": "|" + " column |" * 30 + "\n|" + "-|" * 30 + "\n|" + " a few words in it |" * 30,
    "a cell": f"| a | b |\n|-|-|\n| {'w' * 3000} | {URL} |",
}
TABLE = """
| Hotel | Quarter | Two nights | Breakfast | Remarks |
|---|---|--:|---|---|
| Casa do Castelo | Alfama | 236 | included | ten minutes from the river, and quieter than most |
"""
WIDER = """[...document.querySelectorAll("#chat, #turns, #turns *")].filter((node) => {
  // What scrolls in its own frame may be as wide as it likes inside.
  const frame = node.parentElement?.closest("pre, .table");
  const box = node.getBoundingClientRect();
  const end = document.querySelector("#chat").getBoundingClientRect().right;
  return !frame && node.checkVisibility() && box.width > 0 && box.right > end + 0.5;
}).map((node) => `${node.tagName}.${node.className}`)"""


async def test_what_a_model_says_stays_in_its_place(open_stage: OpenStage, screen: Screen) -> None:
    async with open_stage(screen=screen) as stage:
        page = stage.page
        for what, text in LONG.items():
            await stage.ask("w" * 3000)
            stage.model.answer(text)
            await page.until(f"{STATUS} === 'completed'")

            assert await page.run(WIDER) == [], what
            assert await page.run(
                "document.querySelector('#turns').scrollWidth"
                " <= document.querySelector('#turns').clientWidth"
            ), what

            assert await page.run("document.documentElement.scrollHeight <= innerHeight"), what

            if "code" in what and "line" not in what:
                button = ".turn:last-of-type figcaption button"
                await page.run(
                    "document.querySelector(values[0]).scrollIntoView({ block: 'center' })", button
                )
                await page.until_seen(button)


async def test_what_tools_agents_and_failures_say_stays_in_its_place(
    open_stage: OpenStage, screen: Screen
) -> None:
    long = "w" * 3000

    @tool(name="n" * 64, needs_approval=True)
    async def named(what: str) -> str:
        """Do it."""
        return what * 2

    async def helper(ctx: RunContext, message: str) -> None:
        await ctx.status(long)
        await ctx.call(named, what=long)
        await ctx.ask(long)
        async with ctx.message() as out:
            await out.write(LONG["code"])
        raise RuntimeError(long)

    helper.__name__ = "h" * 60

    async def agent(ctx: RunContext, message: str) -> None:
        await ctx.delegate(helper, "go")

    async with open_stage(agent=agent, debug=True, screen=screen) as stage:
        page = stage.page
        await stage.ask("go")
        await page.until_seen(".call .primary")

        assert await page.run(WIDER) == []

        # The keyboard is there. A click of these tests scrolls, which would stop the following.
        await page.press("Enter")
        await page.until_seen(".ask input")

        assert await page.run(WIDER) == []

        await page.type(".ask input", long)
        await page.press("Enter")
        await page.until(f"{STATUS} === 'error'")
        await page.run(
            "document.querySelectorAll('#turns details').forEach((d) => (d.open = true))"
        )

        assert await page.run(WIDER) == []


async def test_the_words_of_a_table_stay_whole(open_stage: OpenStage, screen: Screen) -> None:
    """A cell is as wide as its longest word at least; the table scrolls in a frame of its own."""
    async with open_stage(screen=screen) as stage:
        await stage.ask("hotels")
        stage.model.answer(TABLE)
        await stage.page.until(f"{STATUS} === 'completed'")
        broken = await stage.page.run(
            """[...document.querySelectorAll(".table :is(th, td)")].flatMap((cell) => {
              const node = document.createRange();
              const text = cell.firstChild;
              return text.data.split(" ").filter((word) => {
                const at = text.data.indexOf(word);
                node.setStart(text, at);
                node.setEnd(text, at + word.length);
                return node.getClientRects().length > 1;
              });
            })"""
        )

        assert broken == []


async def test_who_looks_at_a_planted_wide_block_finds_it(open_stage: OpenStage) -> None:
    """The measure above, on a page whose columns grow with what is in them."""
    edits = [
        (
            ".answer {\n  display: grid;\n  grid-template-columns: minmax(0, 1fr);",
            ".answer {\n  display: grid;",
        )
    ]
    async with open_stage(edits={"style.css": edits}) as stage:
        await stage.ask("code")
        stage.model.answer(LONG["code"])
        await stage.page.until(f"{STATUS} === 'completed'")

        assert await stage.page.run(WIDER) != []


async def test_the_tool_that_a_person_is_asked_about_has_its_whole_name(
    open_stage: OpenStage, screen: Screen
) -> None:
    async def agent(ctx: RunContext, message: str) -> str:
        await ctx.approve("delete_everything", {"path": "/a/long/path" * 20})
        return ""

    async with open_stage(agent=agent, screen=screen) as stage:
        await stage.ask("go")
        await stage.page.until_seen(".call .primary")

        assert await stage.page.run(
            """((name) => name.scrollWidth <= name.clientWidth)(
              document.querySelector(".call .name"))"""
        )


async def test_the_buttons_at_the_top_have_room_on_a_small_phone(open_stage: OpenStage) -> None:
    for width in (360, 320):
        async with open_stage(screen=Screen(width, 640, is_dark=False)) as stage:
            assert await stage.page.run(
                """[...document.querySelectorAll("#top button")].every(
                  (node) => !node.checkVisibility() || node.scrollWidth <= node.clientWidth)"""
            )
            assert await stage.page.run("document.documentElement.scrollWidth <= innerWidth")
