"""What an agent's body or a tool knows of its run: what a `RunContext` tells, beside its verbs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic

import attrs

from flowtrio._core._fit import without_withheld
from flowtrio._core._parts import parts_of
from flowtrio._core._values import copy_json

from ._signature import Context

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from flowtrio._core._chunks import Usage
    from flowtrio._core._parts import Part
    from flowtrio._run._frame import Frame

    # Only type checkers know defaults before Python 3.13.
    AppT = TypeVar("AppT", default=Any)
else:
    from typing import TypeVar

    AppT = TypeVar("AppT")


@attrs.frozen(eq=False, init=False, repr=False)
class AboutRun(Context, Generic[AppT]):
    """What a context tells of the run, the agent and the conversation that it belongs to."""

    _frame: Frame

    def __repr__(self) -> str:
        return f"<RunContext run={self.run_id!r} agent={self.agent!r}>"

    @property
    def run_id(self) -> str:
        """The run."""
        return self._frame.run.info.run_id

    @property
    def agent(self) -> str:
        """Path of the agent: ``root``, ``root/researcher``."""
        return self._frame.agent

    @property
    def tenant_id(self) -> str:
        """Whose run it is; ``default`` without an orchestrator."""
        return self._frame.run.info.tenant_id

    @property
    def session_id(self) -> str | None:
        """The conversation, or None for a run that has none."""
        return self._frame.run.info.session_id

    @property
    def history(self) -> Sequence[dict[str, Any]]:
        """What was said before this agent's message; for a nested agent what it was given."""
        history: list[dict[str, Any]] = copy_json(list(self._frame.transcript.history))
        return history

    @property
    def parts(self) -> tuple[Part, ...]:
        """What this agent was asked, with its images and files: its message is their text alone.

        In a tool it is what the agent that called the tool was asked.
        """
        return parts_of(self._frame.transcript.message)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation as the next request would send it: history, message, what followed.

        Each call has a result; one that nobody ran, or that has not ended, says so. In a tool it is
        the conversation of the agent that called the tool.
        """
        return without_withheld(self._frame.transcript.messages())

    @property
    def call_id(self) -> str | None:
        """The tool call that this context belongs to, as in its events; None in an agent's body."""
        return self._frame.call_id

    @property
    def tool_name(self) -> str | None:
        """The tool of that call; None in an agent's body."""
        return self._frame.tool_name

    @property
    def attempt(self) -> int | None:
        """Which try of the tool's function this is, from 1; None in an agent's body.

        What stands around the tool reads how many tries there were, 0 before the first.
        """
        return None if self._frame.call_id is None else self._frame.attempt

    @property
    def usage(self) -> Usage:
        """What the models were paid here so far, and in all that was begun from here."""
        return self._frame.usage

    @property
    def idempotency_key(self) -> str | None:
        """The same for each try of one call, and for no other call: for services that take one.

        SHA-256 over tenant, run and call, 40 hex digits; None in an agent's body.
        """
        if self._frame.call_id is None:
            return None
        said = json.dumps([self.tenant_id, self.run_id, self._frame.call_id])
        return hashlib.sha256(said.encode()).hexdigest()[:40]

    @property
    def app(self) -> AppT:
        """What the application gave with ``app=``."""
        app: AppT = self._frame.run.info.app
        return app
