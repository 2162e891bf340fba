"""Logs on a server: what any `flowtrio.abc.EventStore` does, and whoever follows a run here."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from flowtrio._core._events import AgentEvent, EventType
from flowtrio.abc import ListedRun, RunHeader
from flowtrio.stores._rules import (
    check_numbers,
    check_place,
    read_place,
    refuse_ended,
    refuse_place,
    refuse_stranger,
    refuse_unknown,
)
from flowtrio.wire._json import encode_json

from . import _log_scripts as scripts
from ._headers import decode_header
from ._keys import end_of, given_of, index_key, run_key, text_of
from ._link import GlideLink
from ._server import MakeLink, Server, new_call
from ._tails import EVENTS, Tail

if TYPE_CHECKING:
    from flowtrio.abc import Listening

_LOOK_AGAIN: Final = 1.0
"""Seconds after which one who waits asks: what is told is lost with a connection."""
_EXPIRE_EVERY: Final = 60.0
"""Seconds between two looks for what is too old."""
_AT_ONCE: Final = 500
"""Runs that one script sees to at most."""


@attrs.define(eq=False)
class _Following:
    """Somebody follows a run here."""

    logs: RedisLogs
    run: str
    tail: Tail
    is_open: bool = True

    def close(self) -> None:
        """See `flowtrio.abc.Listening`."""
        if self.is_open:
            self.is_open = False
            self.logs._let_go(self.run, self.tail)


class RedisLogs(trio.abc.AsyncResource):
    """The logs of hosted runs on one server; `RedisStore` has what processes divide them by."""

    def __init__(
        self,
        url: str,
        *,
        keep: float | None = None,
        clock: Callable[[], float] = time.time,
        make_link: MakeLink = GlideLink,
    ) -> None:
        """Make one.

        Args:
          url: ``redis://[user:password@]host[:port][/database][?prefix=ft:]``; ``rediss`` for TLS,
            with ``ca=`` for a file of certificates; ``unix:///path?database=0``.
          keep: Seconds that a run is kept after its end; None for ever.
          clock: UTC, seconds: what *keep* is counted by.
          make_link: Another client than GLIDE, where there is a reason.

        """
        if keep is not None and not keep > 0:
            raise ValueError(f"RedisStore(keep={keep!r}): expected a number above 0, or None")
        self.keep = keep
        """Seconds that a run is kept after its end; None for ever."""
        self._clock = clock
        self._server = Server(url, make_link)
        self._tails: dict[str, Tail] = {}
        self._claims: dict[str, int] = {}
        self._claimed = 0
        self._expired_at = -_EXPIRE_EVERY

    def __repr__(self) -> str:
        return f"<RedisStore {self._server.place}>"

    async def aclose(self) -> None:
        """Close the connections."""
        await self._server.aclose()

    # As any store

    async def create(self, header: RunHeader) -> bool:
        """See `flowtrio.abc.EventStore`."""
        await self._expire_now_and_then()
        told: str = text_of(await self._server.call(scripts.CREATE, *given_of(header)))
        return told == "ok"

    async def append(
        self,
        tenant_id: str,
        run_id: str,
        after: int,
        events: Sequence[AgentEvent],
        owner: str | None = None,
    ) -> None:
        """See `flowtrio.abc.EventStore`."""
        check_numbers(run_id, after, events)
        run = run_key(tenant_id, run_id)
        batch = encode_json(list(events))
        script = scripts.APPEND if events[-1].type is not EventType.DONE else scripts.END
        reply = await self._server.call(
            script,
            *(run, after, owner or "", len(events), new_call(), batch),
            *end_of(events[-1]),
        )
        check_reply(reply, run_id, after)
        if (tail := self._tails.get(run)) is not None:
            tail.take(b"%d %b" % (after, batch))

    async def read(
        self, tenant_id: str, run_id: str, after: int, limit: int
    ) -> Sequence[AgentEvent]:
        """See `flowtrio.abc.EventStore`."""
        run = run_key(tenant_id, run_id)
        tail = self._tails.get(run)
        if tail is not None and tail.is_ready and not self._is_stale(tail):
            found = tail.read(after, limit)
            if found is not None:
                await trio.lowlevel.checkpoint()
                return found
        told = await self._server.call(scripts.READ, run, after, limit)
        if told is None:
            refuse_unknown(run_id)
        check_place(run_id, after, 0, int(told[0]))
        events = [event for batch in told[1] for event in EVENTS.decode(batch)]
        return [event for event in events if event.seq > after][:limit]

    async def wait_past(self, tenant_id: str, run_id: str, seq: int) -> int:
        """See `flowtrio.abc.EventStore`."""
        run = run_key(tenant_id, run_id)
        tail = await self._hold(run, run_id)
        try:
            await trio.lowlevel.checkpoint()
            while True:
                if self._is_stale(tail):
                    await self._look(run, run_id, tail)
                if tail.is_gone:
                    refuse_unknown(run_id)
                if tail.last > seq or tail.has_ended:
                    return tail.last
                with trio.move_on_at(tail.heard_at + _LOOK_AGAIN):
                    await tail.news.park()
        finally:
            self._let_go(run, tail)

    async def header(self, tenant_id: str, run_id: str) -> RunHeader | None:
        """See `flowtrio.abc.EventStore`."""
        found = await self._server.call(scripts.HEADER, run_key(tenant_id, run_id))
        return _header(found[0]) if found else None

    async def list(self, tenant_id: str, session_id: str | None = None) -> builtins.list[RunHeader]:
        """See `flowtrio.abc.EventStore`."""
        index, found = index_key(tenant_id, session_id), builtins.list[RunHeader]()
        place = 0
        while runs := await self._server.call(scripts.LIST, index, place, _AT_ONCE):
            place += len(runs)
            found += [_header(each) for each in await self._server.call(scripts.HEADER, *runs)]
        return found

    async def newest(
        self, tenant_id: str | None, *, before: str | None = None, limit: int
    ) -> builtins.list[ListedRun]:
        """See `flowtrio.abc.EventStore`."""
        index = "all" if tenant_id is None else index_key(tenant_id, None)
        end = "+inf" if before is None else f"({read_place(before)}"
        told = await self._server.call(scripts.NEWEST, index, end, limit)
        return [ListedRun(_header(run[:4]), text_of(run[4])) for run in told]

    async def live(self) -> builtins.list[RunHeader]:
        """See `flowtrio.abc.EventStore`."""
        runs, found = await self._server.call(scripts.LIVE), builtins.list[RunHeader]()
        for place in range(0, len(runs), _AT_ONCE):
            some = runs[place : place + _AT_ONCE]
            found += [_header(each) for each in await self._server.call(scripts.HEADER, *some)]
        return [header for header in found if header.ended_at is None]

    async def delete(
        self, tenant_id: str, *, run_id: str | None = None, session_id: str | None = None
    ) -> int:
        """See `flowtrio.abc.EventStore`."""
        if run_id is not None:
            if session_id is not None:
                header = await self.header(tenant_id, run_id)
                if header is None or header.session_id != session_id:
                    return 0
            return await self._forget([run_key(tenant_id, run_id)])
        index, count = index_key(tenant_id, session_id), 0
        while runs := await self._server.call(scripts.LIST, index, 0, _AT_ONCE):
            count += await self._forget(runs)
        return count

    async def expire(self, before: float) -> int:
        """See `flowtrio.abc.EventStore`."""
        count = 0
        while runs := await self._server.call(scripts.EXPIRED, repr(before), _AT_ONCE):
            count += await self._forget(runs)
        return count

    async def _forget(self, runs: Sequence[str | bytes]) -> int:
        count: int = await self._server.call(scripts.FORGET, *runs)
        for run in runs:
            if (tail := self._tails.get(text_of(run))) is not None:
                tail.take(b"gone")
        return count

    async def _expire_now_and_then(self) -> None:
        now = self._clock()
        if self.keep is not None and abs(now - self._expired_at) >= _EXPIRE_EVERY:
            self._expired_at = now
            await self.expire(now - self.keep)

    async def follow(self, tenant_id: str, run_id: str) -> Listening:
        """See `flowtrio.abc.SharedStore`."""
        run = run_key(tenant_id, run_id)
        return _Following(self, run, await self._hold(run, run_id))

    # Tails

    async def _hold(self, run: str, run_id: str) -> Tail:
        """Have a run's tail, until it is let go; a `LookupError` if there is no such run."""
        tail = self._tails.get(run)
        if tail is None or tail.is_gone:
            tail = self._tails[run] = Tail()
        tail.users += 1
        if tail.is_ready:
            # Without the lock: those who wait for one event would come through it one by one.
            return tail
        try:
            async with tail.opening:
                if not tail.is_ready:
                    if tail.listening is None:
                        tail.listening = await self._server.listen(f"n:{run}", tail.take)
                    await self._look(run, run_id, tail)
                    tail.is_ready = True
        except BaseException:
            self._let_go(run, tail)
            raise
        return tail

    def _let_go(self, run: str, tail: Tail) -> None:
        tail.users -= 1
        if tail.users:
            return
        if tail.listening is not None:
            tail.listening.close()
        if self._tails.get(run) is tail:
            del self._tails[run]

    async def _look(self, run: str, run_id: str, tail: Tail) -> None:
        """Ask where the log ends."""
        known, tail.heard_at = tail.last, trio.current_time()
        told = await self._server.call(scripts.LOOK, run)
        if told is None:
            tail.take(b"gone")
            refuse_unknown(run_id)
        tail.note(known, int(told[0]), bool(told[1]))

    @staticmethod
    def _is_stale(tail: Tail) -> bool:
        return trio.current_time() >= tail.heard_at + _LOOK_AGAIN


def _header(told: Sequence[bytes]) -> RunHeader:
    shown, owner, ended, status = told
    return decode_header(shown, owner, ended=ended, status=status)


def check_reply(reply: Any, run_id: str, after: int) -> None:
    """Say why a script has refused to append."""
    if not isinstance(reply, list):
        return
    match text_of(reply[0]):
        case "unknown":
            refuse_unknown(run_id)
        case "fenced":
            refuse_stranger(run_id)
        case "ended":
            refuse_ended(run_id, int(reply[1]))
        case _:
            refuse_place(run_id, after, int(reply[1]))
