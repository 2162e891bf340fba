"""Events that are lost on the way, while their connection goes on."""

from __future__ import annotations

import pytest

from tests.support.chromium import Address, open_chromium
from tests.support.lossy import WORDS, open_lossy

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
  const late = await read(client.resume(run.id, { mode, snapshot: true }));
  const few = await read(client.resume(run.id, { mode, snapshot: "log" }));
  client.close();
  return [seen, whole, late, few];
})(values)"""


@pytest.mark.parametrize("mark", ["one", "two"])
async def test_what_was_lost_is_asked_for_in_every_mode(chromium: Address, mark: str) -> None:
    """The very first too: the message is the first word."""
    async with open_chromium(chromium) as browser, browser.open_page() as page:
        for mode in ("events", "updates", "messages", "values"):
            for transport in ("websocket", "sse"):
                async with open_lossy(mark) as url:
                    # A file of that server's with nothing in it that loads another.
                    await page.go(f"{url}/icon.svg")
                    seen, whole, late, few = await page.run(READ, mode, transport, "one")

                assert seen == whole, (mode, transport)
                assert len(seen) > 3
                assert seen[-1]["type"] == "done"
                [event] = late
                assert event["seq"] == whole[-1]["seq"]
                assert event["data"]["state"]["status"] == "completed"
                assert few[-1] == whole[-1]
                assert {event["seq"] for event in few[:-1]} <= {event["seq"] for event in whole}
                assert {event["run_id"] for event in few} == {event["run_id"]}
                chunks = [e["data"]["chunk"] for e in few if e["type"] == "message_chunk"]
                assert chunks == ([] if mode == "values" else list(WORDS))
