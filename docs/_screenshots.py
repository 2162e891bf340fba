"""Take the pictures of the web page that the documents show.

``python -m docs._screenshots`` from the project's root, with Chromium installed, writes
``docs/images/page-*.png`` and ``studio-*.png``. Each picture is of a real run on a real server;
only the model is scripted. The font is Inter where the machine has it (``apt-get install
fonts-inter``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio

from flowtrio import Agent, Orchestrator, RunContext, ToolCall, tool
from flowtrio.abc import Caller, Request
from flowtrio.asgi import create_app
from flowtrio.serving._access import token_of
from flowtrio.testing import ScriptedModel
from tests.support.chromium import Chromium, Page, Screen, open_chromium, running_chromium
from tests.support.front import front_of, open_front

IMAGES = Path(__file__).parent / "images"

QUESTION = "Two days in Lisbon in May: when should we fly, and where should we stay?"

ANSWER = """\
Fly **on the 14th**: it is the cheapest day of that week, and dry.

| Hotel | Quarter | Two nights |
|---|---|--:|
| Casa do Castelo | Alfama | 236 € |
| Hotel da Praça | Baixa | 310 € |

- *Casa do Castelo* is quieter, and a walk of ten minutes from the river.
- Breakfast is included in both.

Shall I book the flight at 09:40?
"""


@tool
async def search_flights(ctx: RunContext, city: str, month: str) -> list[dict[str, Any]]:
    """Search for flights."""
    for done in range(1, 5):
        await trio.sleep(0.3)
        await ctx.progress({"done": done, "total": 4})
    return [{"day": 14, "departs": "09:40", "price": 129}]


@tool
async def search_hotels(city: str, nights: int) -> list[dict[str, Any]]:
    """Search for hotels."""
    await trio.sleep(0.9)
    return [{"hotel": "Casa do Castelo", "price": 236}, {"hotel": "Hotel da Praça", "price": 310}]


@tool
async def weather(city: str, month: str) -> str:
    """Tell the usual weather."""
    await trio.sleep(0.5)
    return "18 to 23 degrees, four days of rain"


@tool(needs_approval=True)
async def book_flight(flight: str, passengers: int, price: int) -> str:
    """Book a flight."""
    await trio.sleep(0.4)
    return "booked"


TOOLS = [search_flights, search_hotels, weather, book_flight]

SEARCHES = [
    0.4,
    *["I look ", "for flights, ", "hotels and ", "the weather ", "at once."],
    0.2,
    ToolCall(id="1", name="search_flights", arguments={"city": "Lisbon", "month": "May"}),
    ToolCall(id="2", name="search_hotels", arguments={"city": "Lisbon", "nights": 2}),
    ToolCall(id="3", name="weather", arguments={"city": "Lisbon", "month": "May"}),
]
BOOKING = [
    "I book the flight on the 14th.",
    0.3,
    ToolCall(
        id="4",
        name="book_flight",
        arguments={"flight": "TP 571, 14 May, 09:40", "passengers": 2, "price": 258},
    ),
]


def slowly(text: str, delay: float = 0.02) -> list[str | float]:
    """A text as a model says it: word by word."""
    return [step for word in text.split(" ") for step in (f"{word} ", delay)]


async def speak(ctx: RunContext, text: str, delay: float) -> None:
    """Say a text as a message, word by word."""
    async with ctx.message() as out:
        for word in text.split():
            await out.write(f"{word} ")
            await trio.sleep(delay)


async def guide(ctx: RunContext, message: str) -> str:
    """A nested agent, for the timeline."""
    await ctx.call(weather, city="Lisbon", month="May")
    await speak(ctx, "Take the tram early, and the miradouros late.", 0.05)
    return "advice"


async def planner(ctx: RunContext, message: str) -> None:
    """Tools in parallel, an agent below, and a question: everything that has a lane."""
    await speak(ctx, "I look for flights and hotels, and ask a guide for advice.", 0.04)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: ctx.call(search_flights, city="Lisbon", month="May"))
        nursery.start_soon(lambda: ctx.call(search_hotels, city="Lisbon", nights=2))
        nursery.start_soon(lambda: ctx.call(search_hotels, city="Sintra", nights=1))
        nursery.start_soon(ctx.delegate, guide, "Lisbon in May")
    if await ctx.approve("book_flight", {"flight": "TP 571", "price": 258}):
        await speak(ctx, "Booked: TP 571 on the 14th of May, at 09:40. Have a good trip!", 0.05)


async def pump(ctx: RunContext, message: str) -> None:
    """It fails, with one of its tools running."""
    async with ctx.message() as out:
        await out.write("I look at both at once.")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: ctx.call(search_hotels, city="Lisbon", nights=2))
        await trio.sleep(0.4)
        raise ConnectionResetError("the booking system closed the connection")


@attrs.frozen
class Scene:
    """One picture."""

    name: str
    agent: Any
    question: str
    act: Callable[[Page], Awaitable[None]]
    """What is done before it is taken."""
    size: tuple[int, int] = (1280, 800)
    scheme: str = "light"


def status(value: str) -> str:
    return f"document.querySelector('.turn').dataset.status === '{value}'"


async def wait_for_the_end(page: Page) -> None:
    await page.until(status("completed"))


async def wait_for_tools(page: Page) -> None:
    await page.until("document.querySelector('.call progress')?.value >= 0.75")


async def wait_for_approval(page: Page) -> None:
    await page.until("document.querySelector('.call[data-outcome=waiting]')")
    await page.run("document.activeElement.blur()")


async def approve_and_wait(page: Page) -> None:
    await wait_for_approval(page)
    await trio.sleep(0.5)
    await page.click(".call .primary")
    await page.until(status("completed"))


async def wait_for_failure(page: Page) -> None:
    await page.until(status("error"))
    await page.run("document.querySelectorAll('.failure details').forEach((d) => d.open = true)")


def agent(*turns: Any) -> Agent[Any]:
    """The travel agent, on a model that says this."""
    return Agent(llm_client=ScriptedModel(*turns), tools=TOOLS, name="travel")


SCENES = [
    Scene("light", agent(SEARCHES, slowly(ANSWER)), QUESTION, wait_for_the_end),
    Scene("dark", agent(SEARCHES, slowly(ANSWER)), QUESTION, wait_for_tools, scheme="dark"),
    Scene("phone", agent(SEARCHES, slowly(ANSWER)), QUESTION, wait_for_the_end, size=(390, 844)),
    Scene("approval", agent(BOOKING), "Yes, for two.", wait_for_approval, size=(1280, 560)),
    Scene("timeline", planner, "Plan two days in Lisbon.", approve_and_wait),
    Scene("failed", pump, "Book the hotel.", wait_for_failure, size=(1280, 480)),
]


async def take(scene: Scene, browser: Chromium) -> None:
    """Play a scene and take its picture."""
    async with AsyncExitStack() as stack:
        front = await stack.enter_async_context(open_front(scene.agent, debug=True))
        page = await stack.enter_async_context(browser.open_page())
        width, height = scene.size
        await page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1.5 if width < 500 else 1,
            mobile=width < 500,
        )
        features = [{"name": "prefers-color-scheme", "value": scene.scheme}]
        await page.call("Emulation.setEmulatedMedia", features=features)
        await page.go(front.url)
        await page.until("document.querySelector('#connection').dataset.state === 'open'")
        await page.type("#message", scene.question)
        await page.press("Enter")
        await scene.act(page)
        await page.run("document.activeElement.blur()")
        # Two frames: one to draw what came last, one to be sure of it.
        await page.run("new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))")
        await page.screenshot(IMAGES / f"page-{scene.name}.png")


OPERATOR = "operator"

OTHERS = [("ann", "Two days in Lisbon"), ("bob", "Book the hotel"), ("eve", "Porto, for a week")]
"""What people of other tenants said meanwhile, for the studio."""


def who(request: Request) -> Caller | str | None:
    """The tenant that a token names; one is an operator's."""
    token = token_of(request)
    return Caller("staff", is_operator=True) if token == OPERATOR else token


async def travel(ctx: RunContext, message: str) -> None:
    """Whatever the message asks for."""
    await (pump if message == "Book the hotel" else planner)(ctx, message)


async def say(url: str, tenant: str, message: str) -> None:
    """Say something as a user of a tenant, and read what comes."""
    headers = {"authorization": f"Bearer {tenant}"}
    async with httpx.AsyncClient(timeout=60, headers=headers) as client:
        await client.post(f"{url}chat/stream", json={"message": message, "session_id": tenant})


async def take_studio(browser: Chromium, name: str, size: tuple[int, int], run: bool) -> None:
    """Take a picture of the studio: of a run, or of what waits for a person."""
    app = create_app(Orchestrator(agents=[travel]), authenticate=who, drain=0.1)
    async with (
        front_of(app) as front,
        browser.open_page() as page,
        trio.open_nursery() as nursery,
    ):
        for tenant, message in OTHERS:
            nursery.start_soon(say, front.url, tenant, message)
            await trio.sleep(0.3)
        await page.look_on(Screen(*size, is_dark=not run))
        await page.go(f"{front.url}studio#/{'runs' if run else 'inbox'}")
        await page.until("document.querySelector('#ask-token').open")
        await page.type("#token", OPERATOR)
        await page.press("Enter")
        await page.until("document.querySelector('#waiting').textContent.trim() === '2'")
        if run:
            await page.run("document.querySelector('#list li:nth-child(3) a').click()")
            await page.until("document.querySelector('[data-kind=person] .bar')")
        await page.run("document.activeElement.blur()")
        await trio.sleep(0.5)
        await page.screenshot(IMAGES / f"{name}.png")
        nursery.cancel_scope.cancel()


async def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with running_chromium() as address:
        async with open_chromium(address) as browser:
            for scene in SCENES:
                await take(scene, browser)
            await take_studio(browser, "studio-run", (1280, 640), run=True)
            await take_studio(browser, "studio-inbox", (390, 844), run=False)


if __name__ == "__main__":
    trio.run(main)
