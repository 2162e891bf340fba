"""The page by the rules of axe-core, and for fingers."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from flowtrio import RunContext, tool
from tests.browser.conftest import OpenStage, Stage
from tests.browser.test_page import STATUS
from tests.support.chromium import Screen

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
  "button, summary, a.button, input, textarea, label:has(input)"
)].filter((node) => {
  const { width, height } = node.getBoundingClientRect();
  // A bar of the timeline is a picture of time; a checkbox has its label.
  if (node.matches(".bar, [type=checkbox]") || width === 0) return false;
  return height < 44 || width < 44;
}).map((node) => `${node.outerHTML.slice(0, 80)}: ${node.offsetWidth}x${node.offsetHeight}`)"""


async def check_accessible(stage: Stage, axe: str) -> None:
    """No rule of axe-core finds anything; its best practices are among them."""
    await stage.page.call("Runtime.evaluate", expression=f"{axe}\nvoid 0")
    found: list[Any] = await stage.page.run(
        """(async () => {
          const { violations } = await axe.run(document);
          return violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html)]);
        })()"""
    )

    assert found == []


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
        await check_states(stage, lambda _: check_accessible(stage, axe))


async def test_axe_finds_nothing_where_a_token_is_asked_for(
    open_stage: OpenStage, screen: Screen
) -> None:
    axe = find_axe()
    async with open_stage(token="s3cret-token", screen=screen) as stage:
        await stage.page.until("document.querySelector('#ask-token').open")
        await check_accessible(stage, axe)


async def test_axe_is_really_asked(open_stage: OpenStage) -> None:
    """A planted fault: a field without a name."""
    axe = find_axe()
    edits = {"": [(' aria-label="Message" placeholder="Message"', "")]}
    async with open_stage(edits=edits) as stage:
        with pytest.raises(AssertionError, match="label"):
            await check_accessible(stage, axe)


@pytest.mark.parametrize("is_dark", [False, True])
async def test_a_phone_has_room_for_fingers_and_text_that_is_not_zoomed(
    open_stage: OpenStage, is_dark: bool
) -> None:
    """44 px for what is touched; 16 px in fields, below which iOS zooms in."""
    screen = Screen(390, 844, is_dark)
    async with open_stage(agent=agent, debug=True, screen=screen) as stage:

        async def check(state: str) -> None:
            small = await stage.page.run(SMALL)
            fields = await stage.page.run(
                """[...document.querySelectorAll("input:not([type=checkbox]), textarea")]
                  .map((node) => parseFloat(getComputedStyle(node).fontSize))"""
            )

            assert small == [], state
            assert min(fields) >= 16, state

        await check_states(stage, check)
