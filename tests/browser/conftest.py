"""A browser for all tests, each with a window of its own in it, and what it is pointed at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import attrs
import pytest

from flowtrio import Agent, Tool
from tests.browser._model import Puppet
from tests.support.chromium import Address, Page, Screen, open_chromium, running_chromium
from tests.support.front import Front, open_front


@attrs.frozen
class Stage:
    """A page in a browser, what stands before its server, and the model behind that."""

    page: Page
    front: Front
    model: Puppet

    async def ask(self, text: str) -> None:
        """Type a message and send it by the keyboard."""
        await self.page.type("#message", text)
        await self.page.press("Enter")


SCREENS = [Screen(1280, 800, is_dark=False), Screen(390, 844, is_dark=True)]
"""All that the page is looked at on: each size once, since colours change nothing of what it does.

What they are to the eyes, `check_accessible` judges in both at each size.
"""


@pytest.fixture(params=SCREENS, ids=str)
def screen(request: pytest.FixtureRequest) -> Screen:
    """Each size."""
    screen: Screen = request.param
    return screen


@pytest.fixture(scope="session")
def chromium() -> Iterator[Address]:
    """The browser: to start one takes longer than most of the tests."""
    with running_chromium() as address:
        yield address


OpenStage: TypeAlias = Callable[..., AbstractAsyncContextManager[Stage]]


@pytest.fixture
def open_stage(chromium: Address) -> OpenStage:
    """Open a page on a server with an agent of these tools."""

    @asynccontextmanager
    async def opened(
        *tools: Tool[..., Any],
        agent: Any = None,
        edits: dict[str, list[tuple[str, str]]] | None = None,
        has_sockets: bool = True,
        screen: Screen | None = None,
        **options: Any,
    ) -> AsyncIterator[Stage]:
        model = Puppet()
        agent = agent or Agent(llm_client=model, tools=list(tools))
        async with (
            open_front(agent, **options) as front,
            open_chromium(chromium) as browser,
            browser.open_page() as page,
        ):
            front.edits, front.has_sockets = edits or {}, has_sockets
            if screen is not None:
                await page.look_on(screen)
            await page.go(front.url)
            if "token" not in options:
                await page.until("document.querySelector('#connection').dataset.state === 'open'")
            yield Stage(page, front, model)

    return opened
