"""The studio: an operator finds runs of all tenants, looks at them, answers and ends them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from flowtrio import Agent, Orchestrator, RunContext, ToolCall, Usage, tool
from flowtrio.abc import Caller, Request
from flowtrio.asgi import create_app
from flowtrio.serving._access import token_of
from tests.browser._model import Puppet
from tests.browser.conftest import SCREENS
from tests.browser.test_accessible import check_accessible, find_axe
from tests.support.chromium import Address, Page, Screen, open_chromium
from tests.support.front import Front, front_of

LISTED = "[...document.querySelectorAll('#list strong')].map((n) => n.textContent)"
ASKED = "document.querySelectorAll('#asked > li').length"
ROWS = "document.querySelectorAll('#events .rows > li').length"
STATUS = "document.querySelector('#facts').dataset.status"


def who(request: Request) -> Caller | str | None:
    """Each token is its tenant's name; one is an operator's."""
    token = token_of(request)
    return Caller("staff", is_operator=True) if token == "chief" else token


@tool
async def look_up(city: str) -> str:
    """Look up."""
    return f"three hotels in {city}"


async def agent(ctx: RunContext, message: str) -> Any:
    async with ctx.message() as out:
        await out.write(f"About *{message}*.")
    match message:
        case "ask":
            return await ctx.ask("How many nights?", int)
        case "book":
            return await ctx.approve("book", {"price": 236})
        case "fail":
            raise ValueError("no trains")
        case "wait":
            await trio.sleep_forever()
    return await ctx.call(look_up, city="Lisbon")


class Studio:
    """The studio on a page, and the users of its server."""

    def __init__(self, page: Page, front: Front, nursery: trio.Nursery) -> None:
        self.page, self.front, self._nursery = page, front, nursery

    async def say(self, tenant: str, message: str, run_id: str, session: str = "1") -> None:
        """Have a tenant's user say something, and read what comes."""
        await self._nursery.start(self._say, tenant, message, run_id, session)

    async def _say(
        self, tenant: str, message: str, run_id: str, session: str, *, task_status: Any
    ) -> None:
        body = {"message": message, "run_id": run_id, "session_id": f"{tenant}-{session}"}
        headers = {"authorization": f"Bearer {tenant}"}
        url = f"{self.front.url}chat/stream"
        async with (
            httpx.AsyncClient(timeout=60) as client,
            client.stream("POST", url, json=body, headers=headers) as response,
        ):
            task_status.started()
            async for _ in response.aiter_bytes():
                pass

    async def sign_in(self, token: str = "chief") -> None:
        await self.page.until("document.querySelector('#ask-token').open")
        await self.page.type("#token", token)
        await self.page.press("Enter")
        await self.page.until("document.querySelector('#connection').dataset.state === 'open'")

    async def look_at(self, message: str) -> None:
        await self.page.until(f"{LISTED}.includes(values[0])", message)
        await self.page.run(
            """[...document.querySelectorAll("#list a")]
              .find((link) => link.querySelector("strong").textContent === values[0]).click()""",
            message,
        )
        await self.page.until_text("#title", message)


@asynccontextmanager
async def open_studio(
    chromium: Address, screen: Screen, at: str = "studio", agents: Any = (agent,)
) -> AsyncIterator[Studio]:
    app = create_app(Orchestrator(agents=agents), drain=0.2, authenticate=who, debug=True)
    async with (
        front_of(app) as front,
        open_chromium(chromium) as browser,
        browser.open_page() as page,
        trio.open_nursery() as nursery,
    ):
        front.edits = {"studio.js": [("const OFTEN = 3000;", "const OFTEN = 200;")]}
        await page.look_on(screen)
        await page.go(f"{front.url}{at}")
        yield Studio(page, front, nursery)
        nursery.cancel_scope.cancel()


async def test_who_is_no_operator_is_told_so_and_an_operator_is_let_in(
    chromium: Address, screen: Screen
) -> None:
    async with open_studio(chromium, screen) as studio:
        page = studio.page
        await page.until("document.querySelector('#ask-token').open")

        assert await page.run("document.querySelector('#token-wrong').hidden")

        await page.type("#token", "ann")
        await page.press("Enter")
        await page.until_text("#token-wrong", "not as an operator")
        await studio.sign_in()
        await page.until_text("#runs-none", "Nothing has run yet.")
        # A reload does not ask again.
        await page.reload()
        await page.until("document.querySelector('#connection').dataset.state === 'open'")


async def test_runs_of_all_tenants_are_found_by_what_is_known_of_them(chromium: Address) -> None:
    async with open_studio(chromium, SCREENS[0]) as studio:
        page = studio.page
        for tenant, message in [("ann", "Lisbon"), ("bob", "fail"), ("bob", "book")]:
            await studio.say(tenant, message, f"run-{message}")
        await studio.sign_in()
        # A run that began meanwhile comes by itself.
        await studio.say("ann", "wait", "run-wait")
        await page.until(f"{LISTED}.length === 4")

        assert await page.run(LISTED) == ["wait", "book", "fail", "Lisbon"]
        assert "failed: agent failed" in await page.text("#list li:nth-child(3)")

        async def choose(name: str, value: str, *found: str) -> None:
            field = f"#filters [name={name}]"
            change = """void ((node) => {
              node.value = values[1];
              node.dispatchEvent(new Event("input", { bubbles: true }));
            })(document.querySelector(values[0]))"""
            await page.run(change, field, value)
            await page.until(
                f"JSON.stringify({LISTED}) === values[0]", json.dumps(found, separators=(",", ":"))
            )
            address = await page.run("location.hash")
            assert address == f"#/runs?{name}={value}".replace(",", "%2C")
            # Whoever is given the address finds the same.
            await page.run(change, field, "")
            await page.until(f"{LISTED}.length === 4")
            await page.run("void (location.hash = values[0])", address)
            await page.until(f"{LISTED}.length === values[0]", len(found))
            await page.run(change, field, "")
            await page.until(f"{LISTED}.length === 4")

        await choose("status", "error", "fail")
        await choose("status", "waiting_for_input,waiting_for_approval", "book")
        await choose("tenant", "ann", "wait", "Lisbon")
        await choose("agent", "nobody")
        await choose("code", "agent_failed", "fail")
        await choose("time", "3600", "wait", "book", "fail", "Lisbon")
        await page.run("void (location.hash = '#/runs?time=between&until=2020-01-01T00:00')")
        await page.until_text("#runs-none", "No run is like this.")
        assert [problem for problem in page.problems if "401" not in problem] == []


async def test_a_run_is_looked_at_from_all_sides_and_a_moment_of_it_has_an_address(
    chromium: Address, screen: Screen
) -> None:
    async with open_studio(chromium, screen) as studio:
        page = studio.page
        await studio.say("ann", "Lisbon", "run-1")
        await studio.say("ann", "Porto", "run-2")
        await studio.sign_in()
        await studio.look_at("Lisbon")
        await page.until_text("#facts", "completed · ann")
        await page.until("document.querySelector('[data-kind=tool] .bar')")
        assert await page.run("document.documentElement.scrollWidth <= innerWidth")
        before = await page.run("document.querySelector('#timeline .lanes').offsetWidth")
        await page.click("[aria-label='Zoom in']")
        assert (
            await page.run("document.querySelector('#timeline .lanes').offsetWidth") > 1.9 * before
        )
        await page.click("#tab-talk")
        await page.until_text("#talk", "About Lisbon.")
        # The other run of its conversation is a step away.
        await page.until_text(".others", "Porto")
        await page.click("#tab-usage")
        await page.until_text("#usage", "No model was asked")
        await page.click("#tab-timeline")
        await page.run("document.querySelector('[data-kind=tool] .bar').click()")
        await page.until("document.querySelector('.rows details[open]')")
        await page.until("location.hash.startsWith('#/run/ann/run-1?at=')")
        moment = await page.run("location.hash")
        # In another window, by the address alone.
        async with page.browser.open_page() as other:
            await other.go(f"{studio.front.url}studio{moment}")
            await Studio(other, studio.front, studio._nursery).sign_in()
            await other.until("document.querySelector('.rows details[open] pre')")
            assert "look_up" in await other.text(".rows details[open]")


async def test_why_a_run_failed_stands_where_it_begins(chromium: Address, screen: Screen) -> None:
    async with open_studio(chromium, screen) as studio:
        await studio.say("bob", "fail", "run-1")
        await studio.sign_in()
        await studio.look_at("fail")
        await studio.page.until_text("#facts", "failed: agent failed: ValueError: no trains")
        await studio.page.run(
            """void Object.defineProperty(navigator, "clipboard", { value: {
              writeText: async (text) => { window.copied = text; } } })"""
        )
        await studio.page.click("#about .actions .quiet")
        await studio.page.until("window.copied?.endsWith('#/run/bob/run-1')")


async def test_a_run_is_followed_and_cancelled(chromium: Address, screen: Screen) -> None:
    async with open_studio(chromium, screen) as studio:
        await studio.say("ann", "wait", "run-1")
        await studio.sign_in()
        await studio.look_at("wait")
        await studio.page.until(f"{STATUS} === 'running'")
        await studio.page.click("#cancel")
        await studio.page.until(f"{STATUS} === 'cancelled'")
        await studio.page.until("document.querySelector('#cancel').hidden")


async def test_what_waits_is_answered_in_the_inbox(chromium: Address, screen: Screen) -> None:
    async with open_studio(chromium, screen, "studio#/inbox") as studio:
        page = studio.page
        for tenant, message in [("ann", "book"), ("bob", "ask"), ("eve", "book")]:
            await studio.say(tenant, message, f"run-{tenant}")
        await studio.sign_in()
        await page.until(f"{ASKED} === 3")
        await page.until_text("#waiting", "3")
        assert await page.run("document.title") == "(3) flowtrio studio"
        # What is half written stays, whatever comes and goes.
        await page.type("#asked .ask input", "7")
        await page.click("#asked li:first-child [aria-label='Approve book']")
        await page.until(f"{ASKED} === 2")
        assert await page.run("document.querySelector('#asked .ask input').value") == "7"
        await page.click("#asked .ask .primary")
        await page.until(f"{ASKED} === 1")
        await page.type("#asked [aria-label='Reason to deny book']", "too dear")
        await page.click("#asked [aria-label='Deny book']")
        await page.until_text("#inbox-none", "Nothing waits for a person.")
        await page.click("#to-runs")
        await page.until("document.querySelectorAll('#list [data-status=completed]').length === 3")


async def test_what_a_model_used_is_told_reply_by_reply(chromium: Address) -> None:
    model = Puppet()
    async with open_studio(
        chromium, SCREENS[0], agents=[Agent(llm_client=model, tools=[look_up])]
    ) as studio:
        model.call(ToolCall(id="1", name="look_up", arguments={"city": "Rome"}))
        usage = Usage(prompt_tokens=10, completion_tokens=5, cost="0.02")
        model.answer("Rome.", usage=usage)
        await studio.say("ann", "Rome", "run-1")
        await studio.sign_in()
        await studio.look_at("Rome")
        await studio.page.click("#tab-usage")
        await studio.page.until_text("#usage", "Together")
        rows = await studio.page.run(
            """[...document.querySelectorAll("#usage tbody tr")]
              .map((row) => [...row.cells].map((cell) => cell.textContent))"""
        )

        assert rows[-1][2:7] == ["10", "0", "5", "0", "0.02"]


async def test_the_table_of_what_was_used_is_made_when_it_is_seen_and_has_changed(
    chromium: Address,
) -> None:
    """It has a row for each reply: at each frame it would be most of what a long run costs."""
    model = Puppet()
    async with open_studio(chromium, SCREENS[0], agents=[Agent(llm_client=model)]) as studio:
        page = studio.page
        async with trio.open_nursery() as nursery:
            nursery.start_soon(studio.say, "ann", "Rome", "run-1")
            model.say("Well")
            await studio.sign_in()
            await studio.look_at("Rome")
            await page.click("#tab-talk")
            await page.until_text("#talk", "Well")

            assert await page.run("document.querySelector('#usage').childElementCount") == 0

            await page.click("#tab-usage")
            await page.until_text("#usage", "reply by reply")
            await page.run(
                """void (window.made = 0, new MutationObserver(() => (made += 1))
                  .observe(document.querySelector("#usage"), { childList: true }))"""
            )
            for number in range(3):
                model.say(f" {number}")
                await page.until(
                    f"document.querySelector('#talk').textContent.includes(' {number}')"
                )

            assert await page.run("made") == 0

            model.answer(".", usage=Usage(prompt_tokens=10, completion_tokens=5))
            await page.until_text("#usage", "Together")

            assert 1 <= await page.run("made") <= 2


ENVELOPE = {"seq": 1, "agent": "root", "timestamp": 1.0, "run_id": "r"}
ODD: list[dict[str, Any]] = [
    {"type": "error", "data": {}, **ENVELOPE},
    {"type": "error", "data": {"code": "c", "error": "e"}, **ENVELOPE},
    {"type": "message_complete", "data": {"message_id": "m", "content": 5}, **ENVELOPE},
    {"type": "tool_call_start", "data": {"call_id": "c", "tool_name": "t"}, **ENVELOPE},
    {"type": "user_message", "data": {"message": "m"}, **ENVELOPE},
    {"type": "agent_start", "data": {"agent": None}, **ENVELOPE},
]
"""Events that lack what such ones have; the page would stumble over them."""


async def test_a_log_is_opened_from_a_file_and_what_is_none_is_told(chromium: Address) -> None:
    log = (Path(__file__).parents[2] / "docs" / "run.jsonl").read_text()
    async with open_studio(chromium, SCREENS[1]) as studio:
        page = studio.page
        await studio.sign_in()
        choose = """void ((field) => {
          const files = new DataTransfer();
          files.items.add(new File([values[1]], values[0]));
          field.files = files.files;
          field.dispatchEvent(new Event("change"));
        })(document.querySelector("#file"))"""
        await page.run(choose, "notes.txt", "hello\n")
        await page.until_text("#notice", "line 1 is not an event")
        for number, odd in enumerate(ODD):
            # Each is told anew.
            await page.run("void (document.querySelector('#notice').textContent = '')")
            lines = [*log.splitlines()[: number + 1], json.dumps(odd)]
            await page.run(choose, "odd.jsonl", "\n".join(lines))
            await page.until_text("#notice", f"event {number + 2}, {odd['type']}, lacks")
        await page.run(choose, "run.jsonl", log)
        await page.until("document.querySelectorAll('.lane').length > 2")
        await page.click("#tab-events")
        await page.until(f"{ROWS} === values[0]", len(log.splitlines()))
        # It can be taken away again, and is the same.
        await page.run(
            """void (URL.createObjectURL = (blob) => {
              blob.text().then((text) => (window.saved = text));
              return "data:,";
            }, document.querySelector("#events .bar a")
              .addEventListener("click", (event) => event.preventDefault()))"""
        )
        await page.click("#events .bar a")
        saved = await page.until("window.saved")

        assert [json.loads(line) for line in saved.splitlines()] == [
            json.loads(line) for line in log.splitlines()
        ]
        assert await page.run("document.querySelector('#cancel').hidden")
        await page.click("#back")
        await page.until("document.querySelector('#side').checkVisibility()")


async def test_what_a_person_said_never_becomes_markup(chromium: Address) -> None:
    async with open_studio(chromium, SCREENS[0]) as studio:
        await studio.say("ann", "<img src=x onerror=alert(1)>", "run-1")
        await studio.sign_in()
        await studio.look_at("<img src=x onerror=alert(1)>")
        assert await studio.page.run("document.querySelectorAll('main img').length") == 0
        assert studio.page.dialogs == []


async def test_axe_finds_nothing_in_the_studio(chromium: Address, screen: Screen) -> None:
    axe = find_axe()
    async with open_studio(chromium, screen) as studio:
        page = studio.page
        await studio.say("ann", "Lisbon", "run-1")
        await studio.say("bob", "book", "run-2")
        await studio.say("bob", "ask", "run-3", "2")
        await page.until("document.querySelector('#ask-token').open")
        await check_accessible(page, axe, "sign in")
        await studio.sign_in()
        await page.until(f"{LISTED}.length === 3")
        await page.run("void (document.querySelector('#which').open = true)")
        await check_accessible(page, axe, "runs")
        await page.click("#to-inbox")
        await page.until(f"{ASKED} === 2")
        await check_accessible(page, axe, "inbox")
        await page.click("#to-runs")
        await studio.look_at("Lisbon")
        for tab in ("timeline", "events", "talk", "usage"):
            await page.click(f"#tab-{tab}")
            await page.until("document.querySelector(values[0]).checkVisibility()", f"#{tab}")
            await check_accessible(page, axe, tab)
