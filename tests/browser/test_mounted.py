"""The page below a path of another application, as the guide mounts it."""

from __future__ import annotations

from typing import Any

import pytest

from flowtrio import Agent
from tests.browser._model import Puppet
from tests.browser.test_page import STATUS
from tests.support.blocks import marked_block
from tests.support.chromium import Address, open_chromium
from tests.support.front import front_of

CONNECTION = "document.querySelector('#connection')"


@pytest.mark.parametrize("framework", ["fastapi", "starlette", "quart"])
async def test_the_page_talks_and_resumes_below_a_path(chromium: Address, framework: str) -> None:
    model = Puppet()
    program: dict[str, Any] = {"agent": Agent(llm_client=model), "__name__": "guide"}
    exec(marked_block("serving", framework), program)
    async with front_of(program["app"]) as front, open_chromium(chromium) as browser:
        # Without its slash, as people type it.
        async with browser.open_page(f"{front.url}agents") as page:
            # By WebSocket: it would say so if it had to do without.
            await page.until(f"{CONNECTION}.dataset.state === 'open'")
            await page.until(f"{CONNECTION}.innerText === 'Connected'")
            await page.type("#message", "hello")
            await page.press("Enter")
            model.say("before ")
            await page.until_text(".markdown", "before")

            assert page.problems == []

            front.is_down = True
            front.cut()
            await page.until(f"{CONNECTION}.dataset.state === 'waiting'")
            model.answer("after")
            front.is_down = False
            await page.until(f"{STATUS} === 'completed'")
            await page.until_text(".markdown", "before after")
            await page.reload()
            await page.until(f"document.querySelector('.turn') && {STATUS} === 'completed'")
            await page.until_text(".markdown", "before after")

            assert all(url.startswith(f"{front.url}agents") for url in page.requests)
