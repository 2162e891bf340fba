"""What is done at each address of the ASGI application that is a client's business.

All runs that are started here are hosted: the ids of Server-Sent Events name the run, so such a
reader may always come back.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

import attrs

from flowtrio._core._events import StreamMode
from flowtrio._core._exceptions import LimitExceeded, RunExists
from flowtrio._hosting._descriptions import title_of
from flowtrio.abc import Caller, Message, Request, RunHeader
from flowtrio.serving._access import Refused
from flowtrio.serving._shared import ask_shared
from flowtrio.serving.commands._clients import Hosting, asking_the_store
from flowtrio.serving.commands._conceal import conceal_message
from flowtrio.serving.commands._letting_in import check_start
from flowtrio.serving.commands._showing import Showing, asks_for_links
from flowtrio.wire._frames import (
    NO_PLACE,
    Command,
    Control,
    MessageCommand,
    TooLarge,
    decode_large_request,
    decode_request,
    encode_accepted,
    said_by,
)

from ._answers import Answer, EventsAnswer, LinesAnswer
from ._branches import Branch, Rename, before, decode_change, turns_of
from ._door import Door
from ._following import follow
from ._lists import describe, limit_of, list_runs, list_sessions, newest, page_of
from ._parts import find_part, show_parts
from ._request import Exchange

_MOST_RUNS: Final = 10_000
"""Runs of a tenant that are looked at for its conversations: those that only older ones belong to
are not listed any more."""
_AT_ONCE: Final = 1_000
"""Of those, how many the store is asked for at once."""


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
            showing = self._showing(exchange, mode, place[1])
            return await self._follow(exchange, tenant_id, place[0], showing)
        command = await self._read_message(exchange)
        said = said_by(command, self.hosting.limits)
        run_id, mode = command.run_id, command.mode
        await self._check_draining(tenant_id, run_id)
        starting = self.hosting.starting(tenant_id, said, command.session_id, run_id)
        try:
            await check_start(self.hosting, tenant_id, run_id)
            async with AsyncExitStack() as started:
                run_id = (await started.enter_async_context(starting)).run_id
                showing = self._showing(exchange, mode, -1)
                return await self._follow(exchange, tenant_id, run_id, showing, started)
        except LimitExceeded as exc:
            return await exchange.refuse(429, exc.code, str(exc), exc.retry_after)
        except RunExists as exc:
            return await exchange.refuse(409, exc.code, str(exc))

    async def _read_message(self, exchange: Exchange) -> MessageCommand:
        if exchange.method == "GET":
            keys = ("message", "session_id", "run_id", "mode")
            query = exchange.request.query
            given: Any = {key: query[key] for key in keys if key in query}
            command = decode_request("message", given, self.hosting.limits.json_depth)
        else:
            kind = exchange.request.headers.get("content-type", "").partition(";")[0].strip()
            if kind != "application/json":
                raise Refused(415, "expected a request in application/json")
            command = await self._read_command(exchange, "message")
        assert isinstance(command, MessageCommand)
        return command

    async def _read_command(self, exchange: Exchange, name: str, **keys: str) -> Command:
        """Read a command from the request's body; what is said in it may have large parts."""
        limits = self.hosting.limits
        may_be_large = name in ("message", "post")
        most = limits.whole_message if may_be_large else limits.message
        body = await exchange.read_body(most, limits.handshake, limits.message)
        if len(body) <= limits.message:
            return decode_request(name, body, limits.json_depth, **keys)
        try:
            return decode_large_request(name, body, **keys)
        except TooLarge:
            error = f"the request's body is larger than {limits.message} bytes"
            raise Refused(413, error) from None

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
        newest, snapshot = -1, query.get("snapshot", "0")
        if snapshot not in ("0", "1", "log"):
            raise Refused(400, "snapshot: expected 1 or log")
        if snapshot != "0" and place is None:  # who comes back goes on from his place
            if after >= 0:
                raise Refused(400, NO_PLACE)
            with asking_the_store():
                newest = await self._newest(tenant_id, run_id)
        mode, is_compacted = _mode(query.get("mode")), snapshot == "log"
        showing = self._showing(exchange, mode, after, newest=newest, is_compacted=is_compacted)
        await self._follow(exchange, tenant_id, run_id, showing)

    async def _newest(self, tenant_id: str, run_id: str) -> int:
        """The newest event of a run; -1 where there is none, as following it will tell."""
        with suppress(LookupError):
            return await self.hosting.service.recorder.newest(tenant_id, run_id)
        return -1

    def _showing(
        self, exchange: Exchange, mode: StreamMode | None, after: int, **late: Any
    ) -> Showing:
        is_linked = asks_for_links(exchange.request)
        return self.hosting.showing(mode, after, is_linked=is_linked, **late)

    async def _follow(
        self,
        exchange: Exchange,
        tenant_id: str,
        run_id: str,
        showing: Showing,
        started: AsyncExitStack | None = None,
    ) -> None:
        """Answer with what is shown of a run's events, in the form that the request asks for."""
        wants_lines = "application/x-ndjson" in exchange.request.headers.get("accept", "")
        answer: Answer = LinesAnswer(showing) if wants_lines else EventsAnswer(showing)
        await follow(self.hosting, exchange, tenant_id, run_id, answer, started)

    async def control(self, exchange: Exchange, tenant_id: str, run_id: str, control: str) -> None:
        """Do to a run what a command asks."""
        self.door.check_site(exchange.request)
        command = await self._read_command(exchange, control, run_id=run_id)
        assert isinstance(command, Control)
        await self.hosting.control(tenant_id, command)
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
            told = await self.hosting.service.descriptions.of(tenant_id)
        shown = show_parts([_without_ours(message) for message in messages])
        if not self.hosting.debug:
            shown = [conceal_message(message) for message in shown]
        body = {
            "session_id": session_id,
            **describe(headers[0].message if headers else None, told.get(session_id, {})),
            "messages": shown,
            "runs": list_runs(headers),
        }
        return await exchange.answer_json(200, body)

    async def rename(self, exchange: Exchange, tenant_id: str, session_id: str) -> None:
        """Give a conversation a title, or take it back."""
        self.door.check_site(exchange.request)
        limits, orchestrator = self.hosting.limits, self.hosting.orchestrator
        content = await exchange.read_body(limits.message, limits.handshake)
        rename = decode_change(content, Rename, "session")
        with asking_the_store():
            headers = await orchestrator.store.list(tenant_id, session_id)
            if not (headers or await orchestrator.conversations.load(tenant_id, session_id)):
                error = "no conversation of this id is kept"
                return await exchange.refuse(404, "unknown_session", error)
            descriptions = self.hosting.service.descriptions
            given = {"title": title_of(rename.title or "")}
            if not await descriptions.tell(tenant_id, session_id, given):
                return await exchange.refuse(501, "not_kept", "no titles of conversations are kept")
            told = await descriptions.of(tenant_id)
        first = headers[0].message if headers else None
        body = {"session_id": session_id, **describe(first, told.get(session_id, {}))}
        return await exchange.answer_json(200, body)

    async def sessions(self, exchange: Exchange, tenant_id: str) -> None:
        """List a tenant's conversations."""
        headers = await self._newest_runs(tenant_id)
        with asking_the_store():
            told = await self.hosting.service.descriptions.of(tenant_id)
        found = list_sessions(headers, told)
        page = page_of(found, "updated_at", "session_id", exchange.request.query)
        return await exchange.answer_json(200, page)

    async def runs(self, exchange: Exchange, tenant_id: str) -> None:
        """List a tenant's runs."""
        query = exchange.request.query
        limit, store = limit_of(query), self.hosting.orchestrator.store
        found = await newest(store, tenant_id, query.get("before"), limit + 1)
        page, has_more = found[:limit], len(found) > limit
        items = list_runs([run.header for run in page])
        body = {"items": items, "next": page[-1].place if has_more else None}
        return await exchange.answer_json(200, body)

    async def _newest_runs(self, tenant_id: str) -> Sequence[RunHeader]:
        """The headers of a tenant's newest runs, the oldest first, and not of all it ever had."""
        found: list[RunHeader] = []
        place, store = None, self.hosting.orchestrator.store
        while len(found) < _MOST_RUNS:
            runs = await newest(store, tenant_id, place, _AT_ONCE)
            found += [run.header for run in runs]
            if len(runs) < _AT_ONCE:
                break
            place = runs[-1].place
        return found[::-1]

    async def branch(self, exchange: Exchange, tenant_id: str, session_id: str) -> None:
        """Begin a conversation with what was said in another before a message of its user."""
        self.door.check_site(exchange.request)
        limits, conversations = self.hosting.limits, self.hosting.orchestrator.conversations
        content = await exchange.read_body(limits.message, limits.handshake)
        branch = decode_change(content, Branch, "branch")
        branch_id = secrets.token_hex(16)
        with asking_the_store():
            messages = before(await conversations.load(tenant_id, session_id), branch)
        if messages is None:
            error = "the conversation holds no such message there"
            return await exchange.refuse(404, "unknown_message", error)
        told = {"branched_from": {"session_id": session_id, "turn": turns_of(messages)}}
        with asking_the_store():
            await conversations.save(tenant_id, branch_id, messages)
            await self.hosting.service.descriptions.tell(tenant_id, branch_id, told)
        return await exchange.answer_json(201, {"session_id": branch_id, **told})

    async def part(self, exchange: Exchange, tenant_id: str, session_id: str, number: str) -> None:
        """Give what is in an image or a file of a conversation."""
        with asking_the_store():
            messages = await self.hosting.orchestrator.conversations.load(tenant_id, session_id)
        found = find_part(messages, number)
        if found is None:
            error = "the conversation holds no image or file of this number"
            return await exchange.refuse(404, "unknown_part", error)
        return await exchange.answer(200, *found)

    async def metrics(self, exchange: Exchange, caller: Caller) -> None:
        """Tell the operators."""
        if not self.door.may_measure(caller, exchange.request):
            raise Refused(403, "metrics are for operators, or for loopback, or with a token")
        try:
            from flowtrio.serving._metrics import encode_metrics
        except ModuleNotFoundError as exc:
            words = f"metrics need {exc.name}: pip install 'flowtrio[server]'"
            raise Refused(501, words) from None
        accepted = exchange.request.headers.get("accept", "")
        hosting = self.hosting
        body, media_type = encode_metrics(
            hosting.service, hosting.connections, accepted, await ask_shared(hosting.service)
        )
        await exchange.answer(200, body, {"content-type": media_type})


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
