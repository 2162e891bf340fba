"""A run that is opened late: told in fewer events, it looks as if each had been seen."""

from __future__ import annotations

from typing import Any, Final

import attrs
import msgspec

from flowtrio import AgentEvent, RunContext, StreamMode, ToolCall
from flowtrio._core._modes import View
from tests.browser.conftest import SCREENS, OpenStage, Stage
from tests.browser.test_page import STATUS, launch, seqs, until_listed
from tests.core.test_compact import LOGS
from tests.support.chromium import Address, open_chromium
from tests.support.front import open_front

SHOWN: Final = """(async ([whole, lates, spoil]) => {
  const [{ Turn }, { Run }, { Lanes }, { usageTable }] = await Promise.all(
    ["conversation", "flowtrio", "lanes", "usage"].map((name) => import(`./${name}.js`)));
  const show = async (frames, snapshot, spoilt) => {
    const run = new Run({ _forget() {} }, "r", null, { mode: "events", after: -1, snapshot });
    for (const frame of frames) {
      if (!run._take(frame)) throw new Error(`a hole before ${frame.seq}`);
    }
    run._end();
    const nothing = async () => null;
    const names = "approve deny cancelTool answer dismiss inspect retry edit announce settled";
    const controls = Object.fromEntries(names.split(" ").map((name) => [name, nothing]));
    const turn = new Turn("message", controls);
    const [lanes, events] = [new Lanes(), []];
    for await (const event of run) {
      if (event.type === spoilt) continue;
      turn.add(event);
      lanes.add(event);
      events.push(event);
    }
    turn.flush();
    const { lanes: bars, now, start, isOver } = lanes;
    const nodes = [turn.element.outerHTML, usageTable(events).outerHTML];
    return JSON.stringify([...nodes, bars, now, start, isOver]);
  };
  const expected = await show(whole, false);
  const seen = [];
  for (const late of lates) seen.push((await show(late, "log", spoil)) === expected);
  return seen;
})(values)"""

PATHS: Final = sorted(name for name in LOGS if name != "all")


def linked(events: list[AgentEvent]) -> list[dict[str, Any]]:
    """Frames, each with the number of the one before it."""
    before = [-1, *(event.seq for event in events)]
    frames = msgspec.to_builtins(events)
    return [{**frame, "after": seq} for frame, seq in zip(frames, before, strict=False)]


def opened_at(log: list[AgentEvent], newest: int) -> list[dict[str, Any]]:
    return linked(list(View(StreamMode.EVENTS, newest, is_compacted=True).see_all(log)))


async def test_wherever_a_log_is_opened_the_same_is_shown(chromium: Address) -> None:
    """Logs of every kind: approvals and questions open, nested agents, errors, cut messages."""

    async def nothing(ctx: RunContext, message: str) -> None:
        pass

    async with (
        open_front(nothing) as front,
        open_chromium(chromium) as browser,
        browser.open_page() as page,
    ):
        await page.go(front.url)
        for name in PATHS:
            log = LOGS[name]
            for end in {len(log), *(seq for seq in range(1, len(log), 5))}:
                part = log[:end]
                lates = [opened_at(part, newest) for newest in range(end)]
                seen = await page.run(SHOWN, linked(part), lates, None)
                assert seen == [True] * end, (name, end)

        # What forgets something is told apart.
        log = LOGS["schema-2/approvals"]
        for type_ in ("approval_required", "tool_call_start", "tool_call_end", "state_change"):
            lates = [opened_at(log, len(log) - 1)]
            assert await page.run(SHOWN, linked(log), lates, type_) == [False], type_


# On the page

SAID = "document.querySelector('#turns').innerText"
TIMES = "document.querySelector('#timeline').innerText"
ROWS = "document.querySelectorAll('.rows > li').length"


async def say_much_and_ask(stage: Stage) -> None:
    """Say what takes many events, and have a call wait for a person."""
    await stage.ask("launch it")
    for number in range(120):
        stage.model.say(f"word{number} ")
    stage.model.call(ToolCall(id="1", name="launch", arguments={"target": "moon"}))
    await stage.page.until_seen("[aria-label='Approve launch']")


async def test_a_page_opened_in_mid_answer_shows_the_same_and_goes_on(
    open_stage: OpenStage,
) -> None:
    async with open_stage(launch, screen=SCREENS[0]) as stage:
        page = stage.page
        await say_much_and_ask(stage)
        # The text comes with the next frame.
        await page.until(f"{SAID}.includes('word119')")
        said, times = await page.run(SAID), await page.run(TIMES)
        await page.reload()
        await page.until_seen("[aria-label='Approve launch']")

        assert await page.run(SAID) == said
        assert (await page.run(TIMES)).splitlines()[:2] == times.splitlines()[:2]
        assert await page.run(ROWS) == 0

        # Each event is read where somebody looks for them, and what comes then comes behind.
        await page.click("#tab-events")
        await page.until(f"{ROWS} > 120")
        await page.click("[aria-label='Approve launch']")
        stage.model.answer("Done.")
        await page.until(f"{STATUS} === 'completed'")
        listed = await until_listed(stage)

        assert listed == list(range(len(listed)))

        # Ended, and on another device.
        said = await page.run(SAID)
        async with page.browser.open_page() as other:
            await other.look_on(SCREENS[0])
            await other.go(await page.run("location.href"))
            await other.until(f"{STATUS} === 'completed'")

            assert await other.run(SAID) == said

            bar = "#timeline .lane[data-kind=tool] .bar"
            await other.until(f"document.querySelector({bar!r})")
            await other.run(f"document.querySelector({bar!r}).click()")
            await other.until("document.activeElement.innerText.includes('tool_call_start')")
            assert await seqs(attrs.evolve(stage, page=other)) == listed
            assert other.problems == []
        assert page.problems == []
