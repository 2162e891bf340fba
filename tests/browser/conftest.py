"""A browser for each test, and what it is pointed at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import attrs
import pytest

from flowtrio import Agent, Tool
from tests.browser._model import Puppet
from tests.support.chromium import Page, find_chromium, open_chromium
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


OpenStage: TypeAlias = Callable[..., AbstractAsyncContextManager[Stage]]


@pytest.fixture
def open_stage() -> OpenStage:
    """Open a page on a server with an agent of these tools."""
    find_chromium()

    @asynccontextmanager
    async def opened(
        *tools: Tool[..., Any],
        agent: Any = None,
        edits: dict[str, list[tuple[str, str]]] | None = None,
        has_sockets: bool = True,
        **options: Any,
    ) -> AsyncIterator[Stage]:
        model = Puppet()
        agent = agent or Agent(llm_client=model, tools=list(tools))
        async with (
            open_front(agent, **options) as front,
            open_chromium() as browser,
            browser.open_page() as page,
        ):
            front.edits, front.has_sockets = edits or {}, has_sockets
            await page.go(front.url)
            if "token" not in options:
                await page.until("document.querySelector('#connection').dataset.state === 'open'")
            yield Stage(page, front, model)

    return opened
