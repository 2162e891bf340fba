from __future__ import annotations

import inspect
from typing import Any, Final

import pytest

from flowtrio._core import _exceptions
from flowtrio._core._exceptions import (
    DeadlineExceeded,
    Fenced,
    FlowtrioError,
    InputDeclined,
    LimitExceeded,
    LocalProtocolError,
    ProtocolError,
    ProviderError,
    RemoteProtocolError,
    ReplayGap,
    RunCancelled,
    RunExists,
    RunFailed,
    ToolDenied,
    ToolFailed,
)

USAGE: Final = {"prompt_tokens": 1}
MESSAGES: Final = [{"role": "user", "content": "Hello"}]
RUN: Final = {"run_id": "r1", "messages": MESSAGES, "usage": USAGE}

MADE: Final[list[tuple[type[FlowtrioError], dict[str, Any]]]] = [
    (LocalProtocolError, {"law": "L3"}),
    (Fenced, {"law": None}),
    (RunExists, {"run_id": "r1", "code": "run_exists", "law": "L1"}),
    (RemoteProtocolError, {"code": "stream_cut", "retryable": True, "detail": {"status": 200}}),
    (
        ProviderError,
        {
            "status": 429,
            "code": "rate_limited",
            "retry_after": 1.5,
            "retryable": True,
            "detail": {"request_id": "x"},
        },
    ),
    (RunFailed, {**RUN, "error": {"code": "agent_failed"}}),
    (RunCancelled, RUN),
    (ToolFailed, {"tool_name": "look", "call_id": "c1", "outcome": "denied"}),
    (ToolDenied, {}),
    (InputDeclined, {"request_id": "q1", "reason": "busy"}),
    (DeadlineExceeded, {"deadline": "gap", "source": "tool"}),
    (LimitExceeded, {"limit": "turns", "code": "session_busy", "retry_after": 2.5}),
    (ReplayGap, {"run_id": "r1", "after": 3, "oldest": None}),
]

DEFAULTS: Final[list[tuple[FlowtrioError, dict[str, Any]]]] = [
    (LocalProtocolError("no"), {"law": None}),
    (RunExists("no", run_id="r1"), {"run_id": "r1", "code": "run_exists", "law": None}),
    (RemoteProtocolError("no"), {"code": "bad_stream", "retryable": False, "detail": None}),
    (
        ProviderError("no"),
        {
            "status": None,
            "code": "provider_error",
            "retry_after": None,
            "retryable": False,
            "detail": None,
        },
    ),
    (DeadlineExceeded("no", deadline="run"), {"source": "deadline"}),
    (LimitExceeded("no", limit="turns"), {"code": "limit_exceeded", "retry_after": None}),
]


def drawn_tree() -> dict[str, str | None]:
    """Read each class's parent from the list at the top of the module."""
    doc = inspect.getdoc(_exceptions) or ""
    parents: dict[str, str | None] = {}
    path: list[tuple[int, str]] = []
    for line in doc.split("::\n", 1)[1].split("\n\nFor ")[0].strip("\n").splitlines():
        indent, name = len(line) - len(line.lstrip()), line.split()[0]
        while path and path[-1][0] >= indent:
            path.pop()
        parents[name] = path[-1][1] if path else None
        path.append((indent, name))
    return parents


def test_the_tree_is_the_one_that_is_drawn() -> None:
    found = {
        name: value
        for name, value in vars(_exceptions).items()
        if inspect.isclass(value) and issubclass(value, Exception) and not name.startswith("_")
    }
    drawn = drawn_tree()

    assert set(found) == set(drawn)
    for name, parent in drawn.items():
        ours = [base.__name__ for base in found[name].__mro__[1:] if base.__name__ in drawn]
        assert ours[:1] == ([parent] if parent else [])


def test_one_clause_catches_all_that_is_ours() -> None:
    assert {kind for kind, _ in MADE} == {
        kind
        for kind in map(vars(_exceptions).get, drawn_tree())
        if kind not in (FlowtrioError, ProtocolError)
    }
    assert all(issubclass(kind, FlowtrioError) for kind, _ in MADE)


@pytest.mark.parametrize(("kind", "said"), MADE)
def test_an_error_tells_what_it_was_told(kind: type[FlowtrioError], said: dict[str, Any]) -> None:
    with pytest.raises(FlowtrioError, match=r"^what happened$") as caught:
        raise kind("what happened", **said)

    assert vars(caught.value) == said


@pytest.mark.parametrize(("exc", "said"), DEFAULTS)
def test_what_an_error_was_not_told_is_at_its_default(
    exc: FlowtrioError, said: dict[str, Any]
) -> None:
    assert said.items() <= vars(exc).items()


@pytest.mark.parametrize(("kind", "said"), [made for made in MADE if made[1]])
def test_facts_are_told_by_name_only(kind: type[FlowtrioError], said: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        kind("what happened", *said.values())


def test_a_deadline_is_a_timeout_as_everybody_knows_it() -> None:
    with pytest.raises(TimeoutError):
        raise DeadlineExceeded("no answer after 300 s", deadline="input")


def test_a_failed_run_and_a_cancelled_one_are_told_apart() -> None:
    assert not issubclass(RunCancelled, RunFailed)
    assert not issubclass(RunFailed, RunCancelled)
    assert not hasattr(RunCancelled("stopped", **RUN), "error")
