"""How a run ended, and what is told of it: to readers, to who awaits its result, to operators."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import attrs

from flowtrio._core._chunks import Usage
from flowtrio._core._events import AgentStatus, EventType
from flowtrio._core._exceptions import (
    DeadlineExceeded,
    FlowtrioError,
    RunCancelled,
    RunFailed,
)
from flowtrio._core._failures import Failure, causes_of, failure_of, leaves, words_of
from flowtrio._core._telling import is_told, tell

if TYPE_CHECKING:
    from ._info import RunInfo
    from ._log import EventLog


@attrs.frozen
class Ending:
    """The first reason for which a run ended: what decides how it ended."""

    status: AgentStatus
    reason: str | None = None
    failure: Failure | None = None
    exc: BaseException | None = None
    value: Any = None
    """What the agent returned."""
    result: Any = None
    """The same as JSON."""

    @classmethod
    def by_exception(cls, exc: BaseException, source: str) -> Ending:
        """*source* raised *exc*, which is no group."""
        failure = failure_of(exc, source)
        return cls(AgentStatus.ERROR, failure.code, failure, exc)

    @classmethod
    def by_overrun(cls, leftover: Sequence[str], grace: float) -> Ending:
        """Cleanup took longer than *grace* seconds; *leftover* names the tasks still alive."""
        exc = DeadlineExceeded(
            f"cleanup took longer than the grace of {grace} s: {', '.join(leftover)}",
            deadline="grace",
        )
        failure = Failure(error=words_of(exc), code="cleanup_timeout", source="internal")
        return cls(AgentStatus.ERROR, failure.code, failure, exc)

    def error_data(self, also: Sequence[tuple[BaseException, str]]) -> dict[str, Any]:
        """The data of the ERROR event; *also* went wrong besides, each with its source."""
        assert self.failure is not None
        return self.failure.to_data(causes_of(self.exc, list(also), self.failure.source))

    def as_exception(
        self, run_id: str, also: Sequence[tuple[BaseException, str]], told: dict[str, Any]
    ) -> RunCancelled | RunFailed:
        """What ``result()`` raises where there is none; *told* has messages and usage."""
        if self.failure is None:
            return RunCancelled(
                f"run {run_id!r} was cancelled: {self.reason or 'no reason given'}",
                run_id=run_id,
                **told,
            )
        return RunFailed(
            f"run {run_id!r} failed: {self.failure.error}",
            run_id=run_id,
            error=self.error_data(also),
            **told,
        )


def end_events(
    ending: Ending,
    also: Sequence[tuple[BaseException, str]],
    log: EventLog,
    usage: Usage,
    duration: float,
    leftover: Sequence[str],
) -> list[tuple[EventType, dict[str, Any]]]:
    """The events that end a run's log: STATE_CHANGE, ERROR where it failed, DONE."""
    status = str(ending.status)
    change = {"old_status": str(log.status), "new_status": status, "reason": ending.reason}
    end = [(EventType.STATE_CHANGE, change)]
    if ending.failure is not None:
        end.append((EventType.ERROR, ending.error_data(also)))
    done = {
        "status": status,
        "reason": ending.reason,
        "result": ending.result,
        "usage": usage.to_dict(),
        "events": log.law.count + len(end) + 1,
        "duration": duration,
        "leftover": list(leftover),
    }
    return [*end, (EventType.DONE, done)]


def blame(exc: BaseException, run_id: str, source: str) -> None:
    """Remember who raised *exc* in a run, wherever it will be caught.

    With the exception itself: most are handled, and the run would keep them for nothing.
    """
    for error in leaves(exc):
        with suppress(Exception):
            error.__flowtrio__ = (run_id, source)  # type: ignore[attr-defined]


@contextmanager
def blaming(run_id: str, source: str) -> Iterator[None]:
    """Whatever the block raises was raised by *source*."""
    try:
        yield
    except BaseException as exc:
        # Also one that is no Exception: it ends the run, by whoever raised it.
        blame(exc, run_id, source)
        raise


def blamed(exc: BaseException, run_id: str) -> str | None:
    """Who raised *exc* in this run, where that was remembered; see `blame`."""
    blamed = getattr(exc, "__flowtrio__", None)
    return blamed[1] if isinstance(blamed, tuple) and blamed[0] == run_id else None


def tell_operators(
    info: RunInfo, ending: Ending, duration: float, events: int, usage: Usage
) -> None:
    """Write a run's one line into the log: a warning with the reason, where it failed.

    The traceback stands in it where it says more than the reason, which is where a program has a
    bug; of a failure that we have a word for it is a line of its own, for who debugs.
    """
    failure = ending.failure
    level = logging.INFO if failure is None else logging.WARNING
    if not is_told(level):
        return
    keys: dict[str, Any] = {
        "run_id": info.run_id,
        "tenant": info.tenant_id,
        "session": info.session_id,
        "agent": info.agent_name,
        "status": str(ending.status),
        "code": None if failure is None else failure.code,
        "duration": round(duration, 3),
        "events": events,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
    }
    line = (
        "run %s tenant=%s session=%s agent=%s status=%s code=%s duration=%.3f events=%d "
        "prompt_tokens=%d completion_tokens=%d"
    )
    values = list(keys.values())
    if failure is not None:
        detail = failure.detail or {}
        keys |= {name: detail.get(name) for name in ("request_id", "words")}
        keys |= {"source": failure.source, "error": failure.error}
        line += " request_id=%s error=%s"
        values += [keys["request_id"], _with_words(failure.error, keys["words"])]
    is_bug = not isinstance(ending.exc, FlowtrioError)
    told = [_printable(value) if isinstance(value, str) else value for value in values]
    keys = {**info.log_keys, **keys}
    tell(level, line, *told, exc=ending.exc if is_bug else None, keys=keys)
    if not is_bug:
        tell(logging.DEBUG, "run %s: where it failed", info.run_id, exc=ending.exc)


def _with_words(error: str, words: object) -> str:
    """What happened, and what the provider said of it, unless that is in there already."""
    return error if not isinstance(words, str) or words in error else f"{error}: {words}"


def _printable(text: str) -> str:
    """A text as one word of the log's line: clients choose some, and could forge lines."""
    return text if text.isprintable() and " " not in text else repr(text)
