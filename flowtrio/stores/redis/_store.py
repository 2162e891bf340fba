"""`RedisStore`: runs on a server, and how several processes divide them."""

from __future__ import annotations

import builtins
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from flowtrio._core._events import AgentEvent
from flowtrio.abc import RunHeader, SharedStatistics
from flowtrio.stores._rules import check_closing, check_numbers, refuse_one_more
from flowtrio.wire._json import encode_json

from . import _work_scripts as scripts
from ._headers import decode_header
from ._keys import end_of, given_of, names_of, run_key, session_key, text_of, turn_key
from ._logs import RedisLogs, check_reply
from ._server import new_call

if TYPE_CHECKING:
    from flowtrio.abc import Listening, Message


class RedisStore(RedisLogs):
    """A `flowtrio.abc.SharedStore` on Redis or Valkey 7.0 or newer.

    Any process that opens the same URL sees the same runs. What was appended outlasts every
    process; what the server outlasts is its own setting (``appendonly``, ``appendfsync``).

    The server is asked at the first use, which has to be in Trio; ``async with`` closes the
    connections. A call that is not answered is made again for half a minute, and done once.
    """

    # Who runs a run

    async def enqueue(
        self, header: RunHeader, *, queue_length: float, runs_per_tenant: float | None
    ) -> bool:
        """See `flowtrio.abc.SharedStore`."""
        await self._expire_now_and_then()
        told = await self._server.call(
            scripts.ENQUEUE, *given_of(header), _limit(queue_length), _limit(runs_per_tenant)
        )
        if isinstance(told, builtins.list):
            refuse_one_more(header, text_of(told[0]), told[1])
        return text_of(told) == "ok"

    async def claim(self, owner: str, ttl: float) -> RunHeader | None:
        """See `flowtrio.abc.SharedStore`."""
        number = self._claims.get(owner)
        if number is None:
            # Later ones have to be larger, also those of another store of the same owner.
            self._claimed = number = max(self._claimed + 1, time.time_ns() // 1000)
            self._claims[owner] = number
        told = await self._server.call(scripts.CLAIM, owner, _milliseconds(ttl), number)
        # Had it been cancelled, the next one would have asked for the same; who left does not.
        self._claims.pop(owner, None)
        return None if told is None else decode_header(told[1], told[2], told[3])

    async def take(self, tenant_id: str, run_id: str, owner: str) -> bool:
        """See `flowtrio.abc.SharedStore`."""
        run = run_key(tenant_id, run_id)
        return bool(await self._server.call(scripts.TAKE, run, owner, new_call()))

    async def line(self, tenant_id: str, session_id: str) -> Sequence[str]:
        """See `flowtrio.abc.SharedStore`."""
        runs = await self._server.call(scripts.LINE, session_key(tenant_id, session_id))
        return [names_of(run)[1] for run in runs]

    async def renew(self, owner: str, ttl: float) -> bool:
        """See `flowtrio.abc.SharedStore`."""
        return bool(await self._server.call(scripts.RENEW, owner, _milliseconds(ttl)))

    async def leave(self, owner: str) -> None:
        """See `flowtrio.abc.SharedStore`."""
        self._claims.pop(owner, None)
        await self._server.call(scripts.LEAVE, owner)

    async def lost(self, limit: int = 100) -> Sequence[RunHeader]:
        """See `flowtrio.abc.SharedStore`."""
        found = await self._server.call(scripts.LOST, limit)
        return [decode_header(*each) for each in found]

    async def owned(self, owner: str) -> Mapping[tuple[str, str], int]:
        """See `flowtrio.abc.SharedStore`."""
        flat = iter(await self._server.call(scripts.OWNED, owner))
        return {names_of(run): int(last) for run, last in zip(flat, flat, strict=True)}

    async def overdue(self, seconds: float, limit: int = 100) -> Sequence[RunHeader]:
        """See `flowtrio.abc.SharedStore`."""
        found = await self._server.call(scripts.OVERDUE, _milliseconds(seconds), limit)
        return [decode_header(*each) for each in found]

    async def close(
        self,
        header: RunHeader,
        after: int,
        events: Sequence[AgentEvent],
        said: Sequence[Message] | None = None,
        by: str | None = None,
    ) -> None:
        """See `flowtrio.abc.SharedStore`."""
        check_numbers(header.run_id, after, events)
        check_closing(header.run_id, events)
        session = turn_key(header)
        reply = await self._server.call(
            scripts.CLOSE,
            *(run_key(header.tenant_id, header.run_id), header.owner or "", after),
            *(len(events), new_call(), encode_json(builtins.list(events)), *end_of(events[-1])),
            *(session, b"" if said is None else encode_json(builtins.list(said)), by or ""),
        )
        check_reply(reply, header.run_id, after)

    # Telling each other

    async def send(self, channel: str, data: bytes) -> int:
        """See `flowtrio.abc.SharedStore`."""
        return await self._server.post(f"x:{channel}", data)

    async def listen(self, channel: str, callback: Callable[[bytes], object]) -> Listening:
        """See `flowtrio.abc.SharedStore`."""
        return await self._server.listen(f"x:{channel}", callback)

    async def followers(self, tenant_id: str, run_id: str) -> int:
        """See `flowtrio.abc.SharedStore`."""
        return await self._server.listeners(f"n:{run_key(tenant_id, run_id)}")

    async def statistics(self) -> SharedStatistics:
        """See `flowtrio.abc.SharedStore`."""
        told = await self._server.call(scripts.STATISTICS)
        queued, waiting, owned, processes, lapse = told
        return SharedStatistics(
            queued=queued,
            in_line=waiting - queued,
            owned=owned,
            processes=processes,
            next_lapse=None if lapse < 0 else lapse / 1000,
        )


def _limit(value: float | None) -> str:
    return "" if value is None or value == math.inf else str(int(value))


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
