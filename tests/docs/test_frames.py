"""The tables of frames, held against a server that runs: what it takes, and what it sends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flowtrio import Agent, DemoClient, RunContext, ServerLimits
from flowtrio.cli._demo import demo_agent
from tests.docs.test_guides import commands_of, guide, names, rows
from tests.support.ws_peer import Peer, connect, open_server

VALUES: dict[str, Any] = {
    "message": "hi",
    "parts": [{"type": "text", "text": "and more"}],
    "run_id": "r",
    "session_id": "s",
    "mode": "events",
    "ref": 1,
    "reason": "because",
    "call_id": "c1",
    "request_id": "q1",
    "text": "yes",
    "arguments": {},
    "interrupt": True,
    "post_id": "p1",
    "after": -1,
    "snapshot": True,
}
LIMITS = ServerLimits(bad_messages=1000, runs_per_connection=1000)


async def echo(ctx: RunContext, message: str) -> str:
    return message


async def reply_to(peer: Peer, type_: str, keys: set[str]) -> dict[str, Any]:
    """The one reply to a command with these keys; events of a run that it starts are passed by."""
    values = {key: VALUES[key] for key in keys}
    if {"run_id", "parts"} <= keys:
        # Another message than the one without them, so another run.
        values["run_id"] = "r-with-parts"
    await peer.send({"type": type_, **values})
    while "seq" in (frame := await peer.receive()):
        pass
    return dict(frame)


@pytest.mark.parametrize("type_", sorted(commands_of(guide("websocket"))))
async def test_a_command_is_taken_with_the_keys_of_its_row_and_no_others(type_: str) -> None:
    required, optional = commands_of(guide("websocket"))[type_]
    async with open_server(echo, limits=LIMITS) as served, connect(served) as peer:
        for keys in (required, required | optional, *(required | {key} for key in optional)):
            reply = await reply_to(peer, type_, keys)
            assert reply.get("code") in (None, "unknown_run"), (keys, reply)
            assert reply["ref"] == (1 if "ref" in keys else None)
        for keys in (
            *(required - {key} for key in required),
            *(required | {key} for key in VALUES.keys() - required - optional),
        ):
            assert (await reply_to(peer, type_, keys))["code"] == "bad_frame", keys


def told() -> dict[str, list[str]]:
    """What the guide says of the server's frames, those of events under an empty name."""
    section = guide("websocket").partition("## Frames from the server")[2]
    return {(names(row[0]) or [""])[0]: names(row[1]) for row in rows(section, "type")[1:]}


@pytest.mark.parametrize("subprotocols", [[], ["flowtrio.v1"], ["flowtrio.batch.v1"]])
async def test_the_server_sends_the_frames_of_the_table_and_nothing_else(
    subprotocols: list[str],
) -> None:
    agent: Agent[Any] = demo_agent(DemoClient(delay=0))
    events, replies = list[dict[str, Any]](), list[dict[str, Any]]()
    async with (
        open_server(agent, limits=LIMITS) as served,
        connect(served, subprotocols=subprotocols) as peer,
    ):
        for text in ("Book a flight to Paris", '{"type": "explode", "ref": 1}', "", "Hello"):
            await peer.send(text)
        while sum(event["type"] == "done" for event in events) < 2:
            frame = json.loads(await peer.connection.get_message())
            is_batch = isinstance(frame, list)
            assert is_batch == (subprotocols == ["flowtrio.batch.v1"] and "seq" in str(frame))
            together = frame if is_batch else [frame]
            events += [found for found in together if "seq" in found]
            replies += [found for found in together if "seq" not in found]

    assert {tuple(event) for event in events} == {("type", *told()[""])}
    assert {(reply["type"], *list(reply)[1:]) for reply in replies} == {
        (type_, *keys) for type_, keys in told().items() if type_
    }
    assert len(replies) == 4, "each command has one reply"
