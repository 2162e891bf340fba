"""What is done at each address of the ASGI application that is a client's business.

All runs that are started here are hosted: the ids of Server-Sent Events name the run, so such a
reader may always come back.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import attrs

from flowtrio._core._events import StreamMode
from flowtrio._core._exceptions import LimitExceeded, RunExists
from flowtrio.abc import Message, Request
from flowtrio.serving._access import Refused, is_loopback_host
from flowtrio.serving._metrics import MEDIA_TYPE, encode_metrics
from flowtrio.serving.commands._apply import apply
from flowtrio.serving.commands._clients import Hosting, asking_the_store
from flowtrio.serving.commands._conceal import conceal_message
from flowtrio.wire._frames import (
    Control,
    MessageCommand,
    TooLarge,
    decode_large,
    decode_request,
    encode_accepted,
    said_by,
)

from ._door import Door
from ._following import follow
from ._parts import find_part, show_parts
from ._request import Exchange


@attrs.frozen
class Endpoints:
    """What clients that were let in may do."""

    hosting: Hosting
    door: Door

    async def chat(self, exchange: Exchange, tenant_id: str) -> None:
        """Start a run and follow it; or go on with the one that an EventSource was reading."""
        self.door.check_site(exchange.request)
        place = _last_event_id(exchange.request)
        if place is not None:
            _check_same_run(exchange.request.query.get("run_id"), place[0])
            mode = _mode(exchange.request.query.get("mode"))
            return await follow(self.hosting, exchange, tenant_id, *place, mode)
        command = await self._read_message(exchange)
        said = said_by(command, self.hosting.limits)
        run_id, mode = command.run_id, command.mode
        await self._check_draining(tenant_id, run_id)
        starting = self.hosting.starting(tenant_id, said, command.session_id, run_id)
        try:
            async with AsyncExitStack() as started:
                run_id = (await started.enter_async_context(starting)).run_id
                return await follow(self.hosting, exchange, tenant_id, run_id, -1, mode, started)
        except LimitExceeded as exc:
            return await exchange.refuse(429, exc.code, str(exc))
        except RunExists as exc:
            return await exchange.refuse(409, exc.code, str(exc))

    async def _read_message(self, exchange: Exchange) -> MessageCommand:
        limits = self.hosting.limits
        if exchange.method == "GET":
            keys = ("message", "session_id", "run_id", "mode")
            query = exchange.request.query
            body: Any = {key: query[key] for key in keys if key in query}
        else:
            kind = exchange.request.headers.get("content-type", "").partition(";")[0].strip()
            if kind != "application/json":
                raise Refused(415, "expected a request in application/json")
            body = await exchange.read_body(limits.whole_message, limits.handshake, limits.message)
            if len(body) > limits.message:
                return _decode_large(body, limits.message)
        command = decode_request("message", body, limits.json_depth)
        assert isinstance(command, MessageCommand)
        return command

    async def _check_draining(self, tenant_id: str, run_id: str | None) -> None:
        """Refuse what would be a new run of a server that stops."""
        hosting = self.hosting
        if hosting.is_draining:
            with asking_the_store():
                is_known = run_id is not None and await hosting.is_known(tenant_id, run_id)
            if not is_known:
                raise Refused(503, "the server is shutting down")

    async def events(self, exchange: Exchange, tenant_id: str, run_id: str) -> None:
        """Follow a run from any place."""
        query = exchange.request.query
        place = _last_event_id(exchange.request)
        if place is not None:
            _check_same_run(run_id, place[0])
        after = place[1] if place is not None else _whole(query.get("after", "-1"))
        await follow(self.hosting, exchange, tenant_id, run_id, after, _mode(query.get("mode")))

    async def control(self, exchange: Exchange, tenant_id: str, run_id: str, control: str) -> None:
        """Do to a run what a command asks."""
        self.door.check_site(exchange.request)
        limits = self.hosting.limits
        body = await exchange.read_body(limits.message, limits.handshake)
        command = decode_request(control, body, limits.json_depth, run_id=run_id)
        assert isinstance(command, Control)
        stream = self.hosting.find(tenant_id, run_id)
        if stream is None:
            return await exchange.refuse(404, "unknown_run", "no run of this id is under way")
        apply(stream, command, limits)
        accepted = encode_accepted(command.ref, run_id).encode()
        return await exchange.answer(200, accepted, {"content-type": "application/json"})

    async def session(self, exchange: Exchange, tenant_id: str, session_id: str) -> None:
        """Give or forget a conversation."""
        orchestrator = self.hosting.orchestrator
        if exchange.method == "DELETE":
            self.door.check_site(exchange.request)
            with asking_the_store():
                await self.hosting.service.forget(tenant_id, session_id)
            return await exchange.answer(204)
        with asking_the_store():
            messages = await orchestrator.conversations.load(tenant_id, session_id)
            headers = await orchestrator.store.list(tenant_id, session_id)
        shown = show_parts([_without_ours(message) for message in messages])
        if not self.hosting.debug:
            shown = [conceal_message(message) for message in shown]
        runs = [
            {"run_id": h.run_id, "created_at": h.created_at, "status": h.status and str(h.status)}
            for h in headers
        ]
        body = {"session_id": session_id, "messages": shown, "runs": runs}
        return await exchange.answer_json(200, body)

    async def part(self, exchange: Exchange, tenant_id: str, session_id: str, number: str) -> None:
        """Give what is in an image or a file of a conversation."""
        with asking_the_store():
            messages = await self.hosting.orchestrator.conversations.load(tenant_id, session_id)
        found = find_part(messages, number)
        if found is None:
            error = "the conversation holds no image or file of this number"
            return await exchange.refuse(404, "unknown_part", error)
        return await exchange.answer(200, *found)

    async def metrics(self, exchange: Exchange) -> None:
        """Tell the operators."""
        if not self.door.has_keys and not is_loopback_host(exchange.request.client):
            raise Refused(403, "metrics are for loopback, or with a token")
        body = encode_metrics(self.hosting.service, self.hosting.connections)
        await exchange.answer(200, body, {"content-type": MEDIA_TYPE})


def _decode_large(body: bytes, limit: int) -> MessageCommand:
    try:
        return decode_large(body)
    except TooLarge:
        raise Refused(413, f"the request's body is larger than {limit} bytes") from None


def _without_ours(message: Message) -> Message:
    """A message without what is kept in it for our own use."""
    shown = {key: value for key, value in message.items() if key != "flowtrio"}
    if calls := shown.get("tool_calls"):
        shown["tool_calls"] = [{k: v for k, v in call.items() if k != "flowtrio"} for call in calls]
    return shown


def _last_event_id(request: Request) -> tuple[str, int] | None:
    """The run and the place in it that an EventSource has seen; None where it has seen nothing.

    Raises:
      Refused: it is none of our ids; to begin anew would be to start the run again.

    """
    text = request.headers.get("last-event-id", "").strip()
    if not text:
        return None
    run_id, _, seq = text.rpartition(":")
    if not (run_id and seq.isascii() and seq.isdecimal() and len(seq) < 16):
        raise Refused(400, "Last-Event-ID: expected <run_id>:<seq>")
    return run_id, int(seq)


def _check_same_run(asked: str | None, seen: str) -> None:
    if asked is not None and asked != seen:
        raise Refused(400, "Last-Event-ID: it is of another run than the address")


def _whole(text: str) -> int:
    digits = text.removeprefix("-")
    if not digits.isdecimal() or len(digits) > 15 or int(text) < -1:
        raise Refused(400, "after: expected the last seq that was seen, or -1")
    return int(text)


def _mode(text: str | None) -> StreamMode | None:
    try:
        return None if text is None else StreamMode(text)
    except ValueError:
        raise Refused(400, f"mode: expected one of {', '.join(StreamMode)}") from None
