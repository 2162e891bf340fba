from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from flowtrio._core._exceptions import (
    DeadlineExceeded,
    LimitExceeded,
    LocalProtocolError,
    ProviderError,
    RemoteProtocolError,
)
from flowtrio._core._failures import (
    Failure,
    causes_of,
    describe,
    failure_of,
    leaves,
    words_of,
)

# Words


class Silent(Exception):
    pass


@pytest.mark.parametrize(
    ("exc", "described", "words"),
    [
        (ValueError("no"), "ValueError: no", "no"),
        (ValueError(), "ValueError", "ValueError"),
        (Silent(""), "Silent", "Silent"),
        (KeyError("a"), "KeyError: 'a'", "'a'"),
        (ValueError("a\ud800"), "ValueError: a\ufffd", "a\ufffd"),
        (KeyboardInterrupt(), "KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_an_exception_is_never_told_as_nothing(
    exc: BaseException, described: str, words: str
) -> None:
    assert describe(exc) == described
    assert words_of(exc) == words


def test_a_group_is_opened_down_to_its_leaves_in_order() -> None:
    a, b, c, d = ValueError("a"), KeyError("b"), SystemExit("c"), OSError("d")
    group = BaseExceptionGroup("", [ExceptionGroup("", [a, ExceptionGroup("", [b])]), c, d])

    assert list(leaves(group)) == [a, b, c, d]
    assert list(leaves(a)) == [a]


# Failures

PLAIN: Final = {
    "retryable": False,
    "deadline": None,
    "limit": None,
    "detail": None,
}


def told(error: str, code: str, source: str, **more: Any) -> dict[str, Any]:
    return {"error": error, "code": code, "source": source, **PLAIN, **more}


@pytest.mark.parametrize(
    ("exc", "data"),
    [
        (ValueError("no"), told("ValueError: no", "agent_failed", "agent")),
        (Silent(), told("Silent", "agent_failed", "agent")),
        (TimeoutError("no"), told("TimeoutError: no", "agent_failed", "agent")),
        (LocalProtocolError("no"), told("LocalProtocolError: no", "agent_failed", "agent")),
        (GeneratorExit(), told("GeneratorExit", "agent_failed", "agent")),
        (KeyboardInterrupt(), told("KeyboardInterrupt", "interrupted", "internal")),
        (SystemExit(3), told("SystemExit: 3", "interrupted", "internal")),
        (
            DeadlineExceeded("late", deadline="run"),
            told("late", "deadline_exceeded", "deadline", deadline="run"),
        ),
        (
            DeadlineExceeded("", deadline="tool", source="tool"),
            told("DeadlineExceeded", "deadline_exceeded", "tool", deadline="tool"),
        ),
        (
            LimitExceeded("full", limit="turns"),
            told("full", "limit_exceeded", "limit", limit="turns"),
        ),
        (
            LimitExceeded("busy", limit="queue", code="session_busy"),
            told("busy", "session_busy", "limit", limit="queue"),
        ),
        (
            ProviderError("no", status=429, code="rate_limited", retryable=True, detail={"a": 1}),
            told("no", "rate_limited", "model", retryable=True, detail={"a": 1}),
        ),
        (
            RemoteProtocolError("cut", code="stream_cut", retryable=True),
            told("cut", "stream_cut", "model", retryable=True),
        ),
    ],
)
def test_a_failure_is_told_with_whose_doing_it_was(
    exc: BaseException, data: dict[str, Any]
) -> None:
    assert failure_of(exc, "agent").to_data([]) == {**data, "causes": []}


@pytest.mark.parametrize("source", ["agent", "tool", "model", "store", "internal"])
def test_who_raised_it_is_the_source_of_what_does_not_say_itself(source: str) -> None:
    failure = failure_of(ValueError("no"), source)

    assert (failure.source, failure.code) == (source, f"{source}_failed")
    assert failure_of(ProviderError("no"), source).source == "model"


@pytest.mark.parametrize(
    ("deadline", "retryable"),
    [
        *(("connect", True), ("first_token", True), ("gap", True)),
        *(("run", False), ("tool", False), ("approval", False), ("input", False)),
    ],
)
def test_only_waiting_for_the_model_is_worth_another_try(deadline: str, retryable: bool) -> None:
    assert failure_of(DeadlineExceeded("late", deadline=deadline), "agent").retryable is retryable


def test_an_error_event_has_all_its_keys() -> None:
    causes = [{"error": "no", "type": "OSError", "source": "tool"}]
    failure = Failure(error="no", code="x", source="agent")

    assert failure.to_data(causes) == told("no", "x", "agent", causes=causes)


# Causes


def caught(raiser: Callable[[], None]) -> BaseException:
    with pytest.raises(BaseException) as info:
        raiser()
    return info.value


def raises_from_cause() -> None:
    try:
        raise OSError("disk")
    except OSError as exc:
        raise ValueError("no") from exc


def raises_in_context() -> None:
    try:
        raise OSError("disk")
    except OSError:
        raise ValueError("no")  # noqa: B904


def raises_from_none() -> None:
    try:
        raise OSError("disk")
    except OSError:
        raise ValueError("no") from None


def cause(error: str, type: str, source: str = "agent") -> dict[str, str]:
    return {"error": error, "type": type, "source": source}


@pytest.mark.parametrize(
    ("raiser", "causes"),
    [
        (raises_from_cause, [cause("disk", "OSError")]),
        (raises_in_context, [cause("disk", "OSError")]),
        (raises_from_none, []),
    ],
)
def test_causes_are_those_that_a_traceback_would_show(
    raiser: Callable[[], None], causes: list[dict[str, str]]
) -> None:
    assert causes_of(caught(raiser), [], "agent") == causes


def behind(exc: BaseException, cause: BaseException) -> BaseException:
    exc.__cause__ = cause
    return exc


def test_the_chain_is_followed_to_its_end_before_the_other_errors() -> None:
    exc = behind(ValueError("a"), behind(OSError("b"), KeyError("c")))
    other = behind(RuntimeError("d"), Silent())

    assert causes_of(exc, [(other, "tool")], "agent") == [
        cause("b", "OSError"),
        cause("'c'", "KeyError"),
        cause("d", "RuntimeError", "tool"),
        cause("Silent", "Silent", "tool"),
    ]


@pytest.mark.parametrize("attribute", ["__cause__", "__context__"])
def test_a_group_among_the_causes_is_opened(attribute: str) -> None:
    inner = [OSError("b"), ExceptionGroup("", [KeyError("c")])]
    exc = ValueError("a")
    setattr(exc, attribute, ExceptionGroup("", inner))

    assert causes_of(exc, [], "agent") == [cause("b", "OSError"), cause("'c'", "KeyError")]


def test_each_exception_is_told_once() -> None:
    common = OSError("common")
    exc = behind(ValueError("a"), common)
    other = behind(RuntimeError("b"), common)

    assert causes_of(exc, [(other, "tool"), (common, "tool"), (exc, "tool")], "agent") == [
        cause("common", "OSError"),
        cause("b", "RuntimeError", "tool"),
    ]


def test_a_chain_that_comes_back_to_itself_has_an_end() -> None:
    a, b = ValueError("a"), OSError("b")
    behind(a, behind(b, a))

    assert causes_of(a, [], "agent") == [cause("b", "OSError")]


def test_a_run_that_failed_without_an_exception_may_have_causes_all_the_same() -> None:
    assert causes_of(None, [], "internal") == []
    assert causes_of(None, [(OSError("b"), "tool")], "internal") == [cause("b", "OSError", "tool")]


def test_of_many_causes_the_first_sixteen_are_told() -> None:
    also: list[tuple[BaseException, str]] = [(OSError(f"{n}"), "tool") for n in range(40)]

    causes = causes_of(ValueError("a"), also, "agent")

    assert [cause["error"] for cause in causes] == [f"{n}" for n in range(16)]
    assert len(also) == 40
