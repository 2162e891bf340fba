"""What a remote reader that comes late is told as one event, in every form there is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flowtrio import StreamMode, connect, project
from flowtrio._core._compact import CompactedLog
from flowtrio._core._modes import VISIBLE
from tests.support.site import as_events, read_run, site, socket


def check_snapshot(seen: list[dict[str, Any]], log: list[dict[str, Any]]) -> None:
    """The whole log is its last event, with the state."""
    [event] = seen
    last = list(project("values", as_events(log)))[-1]
    keys = ("type", "data", "seq", "run_id")
    assert [event[key] for key in keys] == [getattr(last, key) for key in keys]


def check_compacted(mode: str, seen: list[dict[str, Any]], log: list[dict[str, Any]]) -> None:
    """The whole log is its last event, with fewer before it that say the same."""
    [event] = seen
    *past, last = as_events(log)
    compacted = CompactedLog()
    for one in past:
        if one.type in VISIBLE[StreamMode(mode)]:
            compacted.add(one)
    told = [(one.seq, one.type, one.data) for one in compacted.events()]

    assert [(one["seq"], one["type"], one["data"]) for one in event["data"]["log"]] == told
    assert {**event["data"], **last.data} == event["data"]
    assert ("state" in event["data"]) == (mode == "values")
    assert 0 < len(told) < len(past)


def check_late(
    snapshot: object, mode: str, seen: list[dict[str, Any]], log: list[dict[str, Any]]
) -> None:
    if snapshot == "log":
        check_compacted(mode, seen, log)
    else:
        check_snapshot(seen, log)


@pytest.mark.parametrize("snapshot", [True, "log"])
@pytest.mark.parametrize("mode", ["events", "messages", "values"])
async def test_every_form_of_an_answer_has_it(mode: str, snapshot: bool | str) -> None:
    async with site() as s:
        log, ids = await s.follow("GET", "/chat/stream", params={"message": "a", "run_id": "x"})
        asked = "1" if snapshot is True else snapshot
        path = f"/runs/x/events?snapshot={asked}&mode={mode}"
        events, places = await s.follow("GET", path)
        lines = await s.http.get(path, headers={"accept": "application/x-ndjson"})
        linked, _ = await s.follow("GET", f"{path}&linked=1")
        resume = {"type": "resume", "run_id": "x", "after": -1, "mode": mode}
        told = []
        for protocol in ("flowtrio.v1", "flowtrio.batch.v1"):
            async with socket(s, protocol) as ws:
                await ws.send_message(json.dumps({**resume, "snapshot": snapshot}))
                told.append(await read_run(ws))

    check_late(snapshot, mode, events, log)
    assert places == ids[-1:]
    check_late(snapshot, mode, [json.loads(line) for line in lines.text.splitlines() if line], log)
    assert linked[0].pop("after") == -1
    for seen in (linked, *told):
        check_late(snapshot, mode, seen, log)


async def test_who_comes_back_goes_on_from_his_place() -> None:
    async with site() as s:
        log, ids = await s.follow("GET", "/chat/stream", params={"message": "a", "run_id": "x"})
        headers = {"last-event-id": ids[2]}
        again, _ = await s.follow("GET", "/runs/x/events?snapshot=1", headers=headers)

    assert again == log[3:]


async def test_behind_a_place_there_is_none_and_an_unknown_run_is_unknown() -> None:
    async with site() as s:
        await s.follow("GET", "/chat/stream", params={"message": "a", "run_id": "x"})
        behind = await s.http.get("/runs/x/events?snapshot=1&after=2")
        unknown = await s.http.get("/runs/y/events?snapshot=1")
        odd = await s.http.get("/runs/x/events?snapshot=all")
        async with socket(s, "flowtrio.v1") as ws:
            replies = []
            for run_id, after, form in (("x", 2, True), ("y", -1, True), ("x", -1, "all")):
                keys = {"run_id": run_id, "after": after, "snapshot": form}
                await ws.send_message(json.dumps({"type": "resume", **keys}))
                replies.append(json.loads(await ws.get_message())["code"])

    assert (behind.status_code, unknown.status_code, odd.status_code) == (400, 404, 400)
    assert replies == ["bad_frame", "unknown_run", "bad_frame"]


async def test_a_remote_stream_has_it_and_its_result() -> None:
    async with site() as s:
        log, _ = await s.follow("GET", "/chat/stream", params={"message": "a", "run_id": "x"})
        async with connect(f"{s.url.replace('http', 'ws')}/chat") as remote:
            stream = remote.attach("x", snapshot=True)
            assert await stream.result() == "a"
            [event] = [e async for e in remote.attach("x", mode="messages", snapshot=True)]
            with pytest.raises(ValueError, match="snapshot=True"):
                remote.attach("x", 1, snapshot=True)

    assert event.seq == log[-1]["seq"]
    assert event.data["state"]["messages"][0]["content"] == "hello world"
    assert stream.status == "completed"
