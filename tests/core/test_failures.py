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


class Odd(Exception):
    """Says what its argument does."""

    def __str__(self) -> str:
        return self.args[0]()  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        raise ValueError("no")


class Texty(str):
    def __getitem__(self, key: Any) -> Any:
        raise ValueError("no")

    def isascii(self) -> bool:
        raise ValueError("no")


def raising(error: BaseException) -> Callable[[], str]:
    def say() -> str:
        raise error

    return say


def for_ever() -> str:
    return for_ever()


@pytest.mark.parametrize(
    ("say", "text"),
    [
        (raising(ValueError("no")), ""),
        (raising(SystemExit(1)), ""),
        (for_ever, ""),
        (lambda: None, ""),
        (lambda: b"no", ""),
        (lambda: Texty("odd"), "odd"),
        (lambda: "a\ud800\udc00\udfff", "a\U00010000\ufffd"),
        (lambda: "x" * 4096, "x" * 4096),
        (lambda: "x" * 4097, "x" * 4096 + "… (1 more characters)"),
        (lambda: "é" * 20_000_000, "é" * 4096 + "… (19995904 more characters)"),
        (lambda: "x" * 4095 + "\ud83d\ude00", "x" * 4095 + "\ufffd… (1 more characters)"),
    ],
)
def test_whatever_an_exception_says_is_told_in_bounded_clean_text(
    say: Callable[[], str], text: str
) -> None:
    exc = Odd(say)

    assert words_of(exc) == (text or "Odd")
    assert describe(exc) == (f"Odd: {text}" if text else "Odd")
    assert failure_of(exc, "tool").error == describe(exc)
    assert causes_of(None, [(exc, "tool")], "agent") == [cause(text or "Odd", "Odd", "tool")]


def test_an_interrupt_that_comes_while_an_exception_speaks_is_not_lost() -> None:
    with pytest.raises(KeyboardInterrupt):
        describe(Odd(raising(KeyboardInterrupt())))


def test_the_name_of_a_type_is_bounded_too() -> None:
    class Quiet(type):
        @property
        def __name__(cls) -> str:
            raise ValueError("no")

    assert describe(type("A" * 10**6, (Exception,), {})("b")) == "A" * 80 + ": b"
    assert words_of(Quiet("Hidden", (Exception,), {})()) == "Hidden"


def test_a_group_is_opened_down_to_its_leaves_in_order() -> None:
    a, b, c, d = ValueError("a"), KeyError("b"), SystemExit("c"), OSError("d")
    group = BaseExceptionGroup("", [ExceptionGroup("", [a, ExceptionGroup("", [b])]), c, d])

    assert list(leaves(group)) == [a, b, c, d]
    assert list(leaves(a)) == [a]


def grouped(inner: list[Exception], depth: int, places: int) -> ExceptionGroup[Exception]:
    """A group within groups, each of which has it at so many places."""
    group = ExceptionGroup("", inner)
    for _ in range(depth):
        group = ExceptionGroup("", [group] * places)
    return group


class Renewed(ExceptionGroup[Exception]):
    """Whoever asks for what is in it gets another one."""

    @property
    def exceptions(self) -> Any:
        return (Renewed("", [OSError("again")]),)


def test_a_group_is_opened_however_deep_it_is_and_each_exception_comes_once() -> None:
    a, b = ValueError("a"), OSError("b")

    assert list(leaves(grouped([a, b, a], 10_000, 1))) == [a, b]
    assert list(leaves(grouped([a, b, a], 100, 2))) == [a, b]
    assert list(leaves(Renewed("", [a]))) == [a]


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


class Bare(ProviderError):
    def __init__(self) -> None:
        pass


class Late(DeadlineExceeded):
    def __init__(self) -> None:
        pass


class Full(LimitExceeded):
    def __init__(self) -> None:
        pass


class Hidden(ProviderError):
    @property
    def code(self) -> Any:
        raise ValueError("no")

    code = code.setter(lambda self, value: None)  # type: ignore[assignment]


HOLDS_ITSELF: Final[dict[str, Any]] = {}
HOLDS_ITSELF["a"] = HOLDS_ITSELF
ANY: Final[Any] = object()


@pytest.mark.parametrize(
    ("exc", "data"),
    [
        (Bare(), told("Bare", "model_failed", "model")),
        (Late(), told("Late", "deadline_exceeded", "deadline", deadline="unknown")),
        (Full(), told("Full", "limit_exceeded", "limit", limit="unknown")),
        (Hidden("no"), told("no", "model_failed", "model")),
        (
            ProviderError("no", code=ANY, retryable=ANY, detail=ANY),
            told(
                "no",
                "model_failed",
                "model",
                detail={"left_out": "detail: object has no JSON form"},
            ),
        ),
        (
            ProviderError("no", code="a\ud800" + "x" * 10_000, detail=["a"]),  # type: ignore[arg-type]
            told(
                "no",
                "a\ufffd" + "x" * 4094 + "… (5906 more characters)",
                "model",
                detail={"detail": ["a"]},
            ),
        ),
        (
            ProviderError("no", detail={"a": "x" * 10**6}),
            told(
                "no",
                "provider_error",
                "model",
                detail={"left_out": "detail: has more than result_bytes=65536 bytes as JSON"},
            ),
        ),
        (
            LimitExceeded("no", limit=ANY, code=ANY),
            told("no", "limit_exceeded", "limit", limit="unknown"),
        ),
    ],
)
def test_what_an_exception_says_of_itself_is_told_as_far_as_it_is_fit(
    exc: BaseException, data: dict[str, Any]
) -> None:
    assert failure_of(exc, "agent").to_data([]) == {**data, "causes": []}


def test_a_detail_that_holds_itself_is_left_out() -> None:
    detail = failure_of(ProviderError("no", detail=HOLDS_ITSELF), "agent").detail

    assert detail is not None
    assert str(detail["left_out"]).endswith("nested deeper than 64")


@pytest.mark.parametrize("source", ["agent", "tool", "model", "store", "internal"])
def test_who_raised_it_is_the_source_of_what_does_not_say_itself(source: str) -> None:
    failure = failure_of(ValueError("no"), source)

    assert (failure.source, failure.code) == (source, f"{source}_failed")
    assert failure_of(ProviderError("no"), source).source == "model"


@pytest.mark.parametrize(
    ("deadline", "retryable"),
    [
        *(("connect", True), ("first_token", True), ("gap", True), ("content", True)),
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


class Denying(Exception):
    """Does not let its cause be seen."""

    @property
    def __cause__(self) -> Any:
        raise ValueError("no")

    @property
    def __context__(self) -> Any:
        raise ValueError("no")

    @property
    def __suppress_context__(self) -> Any:
        raise ValueError("no")


@pytest.mark.parametrize("attribute", ["__cause__", "__context__"])
def test_causes_are_found_in_whatever_stands_behind_an_exception(attribute: str) -> None:
    first, last = ValueError("first"), OSError("last")
    setattr(first, attribute, grouped([last, first], 10_000, 2))
    setattr(last, attribute, first)
    chain: BaseException = OSError("0")
    for number in range(1, 10_000):
        inner, chain = chain, OSError(f"{number}")
        setattr(chain, attribute, inner)

    assert causes_of(first, [], "agent") == [cause("last", "OSError")]
    assert [told["error"] for told in causes_of(chain, [], "agent")] == [
        f"{number}" for number in range(9_998, 9_982, -1)
    ]
    assert causes_of(Denying("a"), [(Denying("b"), "tool")], "agent") == [
        cause("b", "Denying", "tool")
    ]
    while (inner := getattr(chain, attribute)) is not None:
        # All at once it would end in a recursion of the interpreter's.
        setattr(chain, attribute, None)
        chain = inner
