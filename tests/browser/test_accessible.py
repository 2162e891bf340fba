"""The page by the rules of axe-core, and for fingers."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from flowtrio import RunContext, tool
from tests.browser.conftest import OpenStage, Stage
from tests.browser.test_page import STATUS
from tests.support.chromium import Page, Screen

ANSWER = """### A heading of the third level

# And one of the first

Some *text* with a [link](https://example.org/) and `code`.

## Another

- [x] done
- [ ] to do

```python
print("hello")
```

| a | b |
|---|--:|
| 1 | 2 |

> a quote
"""


def find_axe() -> str:
    """The script of axe-core; a test is skipped without one, but in CI it fails."""
    path = os.environ.get("FLOWTRIO_AXE")
    if path:
        return Path(path).read_text()
    said = "no axe-core: FLOWTRIO_AXE names its axe.min.js (`nox -s browser` installs it)"
    if os.environ.get("CI"):
        pytest.fail(said)
    pytest.skip(said)


SMALL = """[...document.querySelectorAll(
  "button, summary, a.button, input, select, textarea, label:has(input)"
)].filter((node) => {
  const { width, height } = node.getBoundingClientRect();
  // A bar of the timeline is a picture of time; a checkbox has its label.
  if (node.matches(".bar, [type=checkbox]") || width === 0) return false;
  return height < 44 || width < 44;
}).map((node) => `${node.outerHTML.slice(0, 80)}: ${node.offsetWidth}x${node.offsetHeight}`)"""


AXE = """(async () => {
  const { violations } = await axe.run(document);
  return violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html)]);
})()"""
FIELDS = """[...document.querySelectorAll("input:not([type=checkbox]), textarea")]
  .map((node) => parseFloat(getComputedStyle(node).fontSize))"""


async def check_accessible(page: Page, axe: str, state: str = "") -> None:
    """No rule of axe-core finds anything, in either colours; its best practices are among them.

    A phone has room for fingers, 44 px for what is touched, and 16 px in fields, below which iOS
    zooms in.
    """
    if not await page.run("'axe' in window"):
        await page.call("Runtime.evaluate", expression=f"{axe}\nvoid 0")
    is_dark = await page.run("matchMedia('(prefers-color-scheme: dark)').matches")
    for has_other in (True, False):
        await page.colour(is_dark ^ has_other)

        assert await page.run(AXE) == [], state

    if await page.run("innerWidth < 500"):
        assert await page.run(SMALL) == [], state
        assert min(await page.run(FIELDS)) >= 16, state


@tool(needs_approval=True)
async def launch(target: str) -> str:
    """Launch."""
    raise RuntimeError("no fuel")


async def helper(ctx: RunContext, message: str) -> str:
    return await ctx.ask("What is your name?")


async def agent(ctx: RunContext, message: str) -> None:
    async with ctx.message() as out:
        await out.write(ANSWER)
    await ctx.delegate(helper, "ask")
    await ctx.call(launch, target="moon")


async def check_states(stage: Stage, check: Callable[[str], Awaitable[None]]) -> None:
    """Call *check* in each state that a conversation comes through."""
    page = stage.page
    await check("welcome")
    await stage.ask("go")
    await page.until_seen(".ask input")
    await check("question")
    await page.type(".ask input", "Ada")
    await page.press("Enter")
    await page.until_seen("[aria-label='Approve launch']")
    await check("approval")
    await page.wheel("#turns", -2000)
    await page.until("!document.querySelector('#jump').hidden")
    await check("scrolled")
    await page.click("[aria-label='Approve launch']")
    await page.until(f"{STATUS} === 'error'")
    await page.run("document.querySelectorAll('details').forEach((node) => (node.open = true))")
    await check("failure")
    for tab in ("timeline", "events"):
        await page.click(f"#tab-{tab}")
        await page.until("document.querySelector(values[0]).checkVisibility()", f"#{tab}")
        await check(tab)


async def test_axe_finds_nothing(open_stage: OpenStage, screen: Screen) -> None:
    axe = find_axe()
    async with open_stage(agent=agent, debug=True, screen=screen) as stage:
        await check_states(stage, lambda state: check_accessible(stage.page, axe, state))


async def test_axe_finds_nothing_where_a_token_is_asked_for(
    open_stage: OpenStage, screen: Screen
) -> None:
    axe = find_axe()
    async with open_stage(token="s3cret-token", screen=screen) as stage:
        await stage.page.until("document.querySelector('#ask-token').open")
        await check_accessible(stage.page, axe)


async def test_axe_is_really_asked(open_stage: OpenStage) -> None:
    """A planted fault: a field without a name."""
    axe = find_axe()
    edits = {"": [(' aria-label="Message" placeholder="Message"', "")]}
    async with open_stage(edits=edits) as stage:
        with pytest.raises(AssertionError, match="label"):
            await check_accessible(stage.page, axe)


SMALLER = "void (document.querySelector('#new').style = 'min-height: 0; height: 9px')"
ALIKE = """void document.adoptedStyleSheets.push(((sheet) => {
  sheet.replaceSync("@media (prefers-color-scheme: dark) { h1 { color: #333 } }");
  return sheet;
})(new CSSStyleSheet()))"""


async def test_what_is_too_small_or_only_in_the_other_colours_is_found(
    open_stage: OpenStage, screen: Screen
) -> None:
    """Planted faults: a button of a few pixels, and colours that are alike where it is dark."""
    axe = find_axe()
    fault, told = (SMALLER, 'button id="new"') if screen.is_phone else (ALIKE, "color-contrast")
    async with open_stage(screen=screen) as stage:
        await stage.page.run(fault)

        with pytest.raises(AssertionError, match=told):
            await check_accessible(stage.page, axe)
