"""Whether the stores take what runs have to keep: for those who ask if a server is ready.

While nothing fails, nobody is asked. Once something did, a trial is written and deleted at each
question, since a server that is not ready gets no runs whose success would tell.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from typing import TYPE_CHECKING, Final

import attrs
import trio

from flowtrio._core._events import ROOT, AgentEvent, EventType
from flowtrio._core._telling import tell
from flowtrio.abc import RunHeader

if TYPE_CHECKING:
    from flowtrio.abc import ConversationStore, EventStore

_TENANT: Final = "flowtrio:trial"
_SECONDS: Final = 5.0
"""That a trial may take."""
_EACH: Final = 1.0
"""Seconds for which the outcome of a trial holds."""
_SIZE: Final = 64 * 1024
"""Bytes of a trial: a store whose disk is full may have room left for a few."""


@attrs.define(eq=False)
class Health:
    """Knows what the stores of one orchestrator failed with, until they work again."""

    store: EventStore
    conversations: ConversationStore
    fault: Exception | None = attrs.field(default=None, init=False)
    """What they failed with."""
    _is_told: bool = attrs.field(default=False, init=False)
    """Whether the log says that they fail."""
    _lock: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _tried_at: float = attrs.field(default=-math.inf, init=False)

    def begin(self) -> None:
        """The orchestrator is opened: another loop's clock says nothing of a trial's age."""
        self._tried_at = -math.inf

    def note(self, exc: BaseException) -> None:
        """A store failed a run."""
        if isinstance(exc, Exception):
            self.fault = exc

    async def check(self) -> Exception | None:
        """Give what the stores fail with now; None where they work."""
        if self.fault is None:
            return None
        async with self._lock:
            if self.fault is not None and trio.current_time() >= self._tried_at + _EACH:
                await self._try()
        return self.fault

    async def _try(self) -> None:
        try:
            with trio.fail_after(_SECONDS):
                await self._write()
        except Exception as exc:
            self.fault = exc
            if not self._is_told:
                tell(logging.ERROR, "not ready: the stores take nothing from runs", exc=exc)
            self._is_told = True
        else:
            self.fault = None
            if self._is_told:
                tell(logging.WARNING, "ready again: the stores take what they are given")
            self._is_told = False
        self._tried_at = trio.current_time()

    async def _write(self) -> None:
        name, now = secrets.token_hex(16), time.time()
        text = "x" * _SIZE
        header = RunHeader(
            tenant_id=_TENANT, run_id=name, session_id=name, agent=ROOT, message="", created_at=now
        )
        event = AgentEvent(EventType.CUSTOM, {"name": "trial", "value": text}, 0, name, ROOT, now)
        try:
            await self.store.create(header)
            await self.store.append(_TENANT, name, -1, [event])
            await self.conversations.save(_TENANT, name, [{"role": "user", "content": text}])
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _SECONDS):
                await self._remove(name)

    async def _remove(self, name: str) -> None:
        """Take the trial back; conversations that fail or hang leave no log of it behind."""
        try:
            with trio.fail_after(_SECONDS / 2):
                await self.conversations.delete(_TENANT, name)
        finally:
            await self.store.delete(_TENANT, run_id=name)
