"""How the runs of an orchestrator are let in, and what becomes of their conversations."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from flowtrio._core._exceptions import Fenced
from flowtrio._core._history import recover_history
from flowtrio._core._telling import tell
from flowtrio._run._ending import blame
from flowtrio.abc import RecoverableConversations

from ._mending import STORE_DEADLINE
from ._nowait import find_nowait

if TYPE_CHECKING:
    from flowtrio._run._run import Run
    from flowtrio.abc import ConversationStore, Message

    from ._claims import Claim
    from ._health import Health
    from ._meter import Meter
    from ._sessions import Sessions


@attrs.frozen(eq=False, kw_only=True)
class Admission:
    """Lets the runs of an orchestrator in; see `flowtrio._run._host.Admission`."""

    sessions: Sessions
    meter: Meter
    health: Health
    conversations: ConversationStore
    grace: float
    """Seconds that saving may take."""
    is_remembered: bool
    """Whether their conversation is kept."""
    claim: Claim | None = None
    """The one run that this lets in, where processes share a store: its turn has come there."""
    _recoverable: RecoverableConversations | None = attrs.field(
        init=False, default=attrs.Factory(lambda self: _recoverable(self.conversations), True)
    )
    """The conversations, if they are; asked once, as that costs as much as several tokens."""
    _load_nowait: Callable[..., list[Message]] | None = attrs.field(
        init=False,
        default=attrs.Factory(lambda self: find_nowait(self.conversations, "load"), True),
    )
    """How to load where that never waits, and so can neither be cancelled nor take too long."""
    _save_nowait: Callable[..., None] | None = attrs.field(
        init=False,
        default=attrs.Factory(lambda self: find_nowait(self.conversations, "save"), True),
    )
    """The same for saving."""

    def reserve(self, run: Run) -> None:
        """Count the run, and put it in its conversation's line."""
        self.meter.watch(run)
        if self.claim is not None:
            return
        self.sessions.count(run)
        if self.is_remembered:
            self.sessions.line_up(run)

    async def let_in(self, run: Run) -> Callable[[], Awaitable[None]] | None:
        """Have the conversation for this run alone, and give what keeps what becomes of it."""
        if self.claim is not None:
            await self.claim.has_log.wait()
        if not self.is_remembered:
            return None
        tenant_id, session_id = run.info.tenant_id, run.info.session_id
        assert session_id is not None
        if self.claim is None:
            await self.sessions.wait_for_turn(run)
        try:
            before = await self._load(tenant_id, session_id)
        except BaseException as exc:
            self._blame(run, exc)
            raise
        history, left_out = recover_history(before)
        for why in left_out:
            tell(logging.WARNING, "run %s: left out of its conversation: %s", run.info.run_id, why)
        run.begin_conversation(history)
        # Kept however the run ended, and before the next message's turn comes.
        keep = partial(self._save, run, tenant_id, session_id, before)
        if self.claim is not None:
            keep = self.claim.keep = partial(self._save_claimed, self.claim, run)
        return keep

    async def _load(self, tenant_id: str, session_id: str) -> list[Message]:
        if self._load_nowait is not None:
            return self._load_nowait(tenant_id, session_id)
        with trio.fail_after(STORE_DEADLINE):
            return await self.conversations.load(tenant_id, session_id)

    def _blame(self, run: Run, exc: BaseException) -> None:
        """What was raised is of the conversations' doing."""
        blame(exc, run.info.run_id, "store")
        if isinstance(exc, Exception):
            self.health.note(exc)

    async def _save(self, run: Run, tenant_id: str, session_id: str, before: list[Message]) -> None:
        try:
            if self._load_nowait is not None and self._save_nowait is not None:
                if not run.is_done or self._load_nowait(tenant_id, session_id) == before:
                    self._save_nowait(tenant_id, session_id, run.messages())
                return
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self.grace):
                return await self._save_in_time(run, tenant_id, session_id, before)
            raise TimeoutError(f"saving the conversation took longer than {self.grace} s")
        except BaseException as exc:
            self._blame(run, exc)
            raise

    async def _save_in_time(
        self, run: Run, tenant_id: str, session_id: str, before: list[Message]
    ) -> None:
        if run.is_done and await self.conversations.load(tenant_id, session_id) != before:
            # Its cleanup outlasted the grace, and others have spoken here since its DONE.
            return
        if (recoverable := self._recoverable) is not None:
            run_id = run.info.run_id
            await recoverable.save_after(tenant_id, session_id, run_id, run.messages())
        else:
            await self.conversations.save(tenant_id, session_id, run.messages())

    async def _save_claimed(self, claim: Claim, run: Run) -> None:
        """Keep a claimed run's turn, once: nobody else speaks there before its end."""
        if claim.keep is None or claim.is_kept:
            return
        recoverable, tenant_id, session_id = (
            self._recoverable,
            run.info.tenant_id,
            run.info.session_id,
        )
        assert recoverable is not None
        assert session_id is not None
        try:
            with trio.fail_after(self.grace, shield=True), suppress(Fenced):
                await recoverable.save_after(
                    tenant_id, session_id, run.info.run_id, run.messages(), claim.owner
                )
        except BaseException as exc:
            self._blame(run, exc)
            raise
        claim.is_kept = True


def _recoverable(conversations: ConversationStore) -> RecoverableConversations | None:
    return conversations if isinstance(conversations, RecoverableConversations) else None
