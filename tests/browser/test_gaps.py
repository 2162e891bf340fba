"""Events that are lost on the way, while their connection goes on."""

from __future__ import annotations

import pytest

from tests.support.chromium import Address, open_chromium
from tests.support.lossy import open_lossy

READ = """(async ([mode, transport, message]) => {
  const { Client } = await import("./flowtrio.js");
  const client = new Client({ transport });
  const read = async (run) => {
    const events = [];
    for await (const event of run) events.push(event);
    return events;
  };
  const run = client.send(message, { mode });
  const seen = await read(run);
  const whole = await read(client.resume(run.id, { mode }));
  client.close();
  return [seen, whole];
})(values)"""


@pytest.mark.parametrize("mark", ["one", "two"])
async def test_what_was_lost_is_asked_for_in_every_mode(chromium: Address, mark: str) -> None:
    """The very first too: the message is the first word."""
    async with open_chromium(chromium) as browser:
        for mode in ("events", "updates", "messages", "values"):
            for transport in ("websocket", "sse"):
                async with open_lossy(mark) as url, browser.open_page(url) as page:
                    seen, whole = await page.run(READ, mode, transport, "one")

                assert seen == whole, (mode, transport)
                assert len(seen) > 3
                assert seen[-1]["type"] == "done"
