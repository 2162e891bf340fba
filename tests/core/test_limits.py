from __future__ import annotations

import math
from decimal import Decimal
from typing import Any, Final

import attrs
import pytest

from flowtrio._core._limits import Limits, ModelLimits, ServerLimits, is_wait
from flowtrio._core._values import told

ALL: Final = [Limits, ModelLimits, ServerLimits]

DEFAULTS: Final[dict[type, dict[str, float]]] = {
    Limits: {
        "run": 600,
        "tool": 60,
        "approval": 300,
        "input": 300,
        "grace": 5,
        "turns": 16,
        "parallel_tools": 8,
        "buffer": 64,
        "result_bytes": 1_048_576,
    },
    ModelLimits: {"connect": 10, "first_token": 60, "gap": 30, "content": 180},
    ServerLimits: {
        "handshake": 5,
        "head": 16_384,
        "message": 262_144,
        "parts": 8,
        "part_bytes": 8_388_608,
        "message_frames": 1024,
        "json_depth": 32,
        "runs_per_connection": 8,
        "connections": 1000,
        "bad_messages": 20,
        "send": 10,
        "ping_interval": 20,
        "ping_timeout": 20,
        "close": 2,
        "requests_per_minute": math.inf,
        "starts_per_minute": math.inf,
    },
}

BUDGETS: Final = ("tokens", "cost", "requests", "spend_per_day")
"""Off by default; see tests/runtime/test_agent_options.py and tests/serving/test_throttle.py."""

FIELDS: Final = [
    (kind, field.name)
    for kind in ALL
    for field in attrs.fields(kind)
    if field.name not in ("media_types", *BUDGETS)
]
COUNTS: Final = [
    (kind, name)
    for kind, name in FIELDS
    if attrs.fields_dict(kind)[name].type == "int"
    or name in ("turns", "parallel_tools", "buffer", "result_bytes")
]
TIMES: Final = [field for field in FIELDS if field not in COUNTS]


@pytest.mark.parametrize("kind", ALL)
def test_every_limit_is_on_by_default(kind: type) -> None:
    known = attrs.asdict(kind())
    for name in ("media_types", *BUDGETS):
        known.pop(name, None)

    assert known == DEFAULTS[kind]


def test_times_and_counts_are_told_apart() -> None:
    assert {name for kind, name in TIMES if kind is Limits} == {
        *("run", "tool", "approval", "input", "grace")
    }
    assert {name for kind, name in COUNTS if kind is ServerLimits} == {
        *("head", "message", "parts", "part_bytes", "message_frames", "json_depth"),
        *("runs_per_connection", "connections", "bad_messages"),
    }


@pytest.mark.parametrize(("kind", "name"), FIELDS)
@pytest.mark.parametrize("value", [1, 10**12, 2**53, math.inf])
def test_a_limit_is_any_number_above_nought_and_infinity_switches_it_off(
    kind: type, name: str, value: float
) -> None:
    assert getattr(kind(**{name: value}), name) == value


@pytest.mark.parametrize(("kind", "name"), FIELDS)
@pytest.mark.parametrize(
    "value",
    [
        *(0, -1, 0.0, -0.5, -math.inf, math.nan, None, "1", True, False, Decimal(1), 1j, [1]),
        *(2**53 + 1, 1e17, 10**70),
    ],
)
def test_anything_else_is_no_limit(kind: type, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match="expected a number above 0") as caught:
        kind(**{name: value})

    assert str(caught.value).startswith(f"{kind.__name__}({name}={value!r}): ")


@pytest.mark.parametrize(("kind", "name"), FIELDS)
@pytest.mark.parametrize("value", [10**400, 10**5000, -(10**5000)], ids=told)
def test_a_number_that_no_clock_can_add_is_refused_in_few_words(
    kind: type, name: str, value: int
) -> None:
    with pytest.raises(ValueError, match=r"at most 2\*\*53, or math\.inf") as caught:
        kind(**{name: value})

    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(("kind", "name"), FIELDS)
@pytest.mark.parametrize("now", [0.0, 1e9, 2.0**53])
def test_a_clock_can_add_the_largest(kind: type, name: str, now: float) -> None:
    later = now + getattr(kind(**{name: 2**53}), name)

    assert now < later < math.inf


@pytest.mark.parametrize(("kind", "name"), TIMES)
def test_a_time_may_be_a_part_of_a_second(kind: type, name: str) -> None:
    assert getattr(kind(**{name: 0.05}), name) == 0.05


@pytest.mark.parametrize(("kind", "name"), COUNTS)
@pytest.mark.parametrize("value", [0.5, 2.0])
def test_a_count_is_a_whole_number(kind: type, name: str, value: float) -> None:
    with pytest.raises(ValueError, match="expected a whole number"):
        kind(**{name: value})


@pytest.mark.parametrize("kind", ALL)
def test_limits_are_frozen_and_told_by_name_only(kind: type) -> None:
    limits = kind()
    name = attrs.fields(kind)[0].name

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(limits, name, 1)
    with pytest.raises(TypeError):
        kind(1)
    with pytest.raises(ValueError, match="above 0"):
        attrs.evolve(limits, **{name: 0})


@pytest.mark.parametrize("value", [0, 0.0, 0.5, 2**53, math.inf])
def test_one_may_wait_not_at_all(value: float) -> None:
    assert is_wait(value)


@pytest.mark.parametrize(
    "value", [-1, -0.5, math.nan, -math.inf, 10**400, 2**53 + 1, None, False, "0", Decimal(0), 0j]
)
def test_anything_else_is_no_wait(value: Any) -> None:
    assert not is_wait(value)


@pytest.mark.parametrize(
    ("since", "heard_at", "expected"),
    [
        (0.0, -math.inf, ("gap", 3.0)),
        (0.0, 2.0, ("gap", 5.0)),
        (0.0, 7.0, ("gap", 10.0)),
        (0.0, 8.0, ("content", 10.0)),
        (5.0, 2.0, ("gap", 8.0)),
    ],
)
def test_silence_of_the_host_and_of_the_model_are_two_clocks(
    since: float, heard_at: float, expected: tuple[str, float]
) -> None:
    assert ModelLimits(gap=3, content=10).due(since, heard_at) == expected


def test_a_model_that_stalled_is_told_with_its_limit_and_what_was_heard() -> None:
    limits = ModelLimits(gap=3, content=10)

    silent, pings = limits.stalled("gap", pings=False), limits.stalled("content", pings=True)
    assert (silent.deadline, pings.deadline) == ("gap", "content")
    assert str(silent) == "the model sent nothing for 3 s (gap)"
    assert str(pings) == "the model said nothing for 10 s, pings only (content)"


# Types of media


def test_media_types_are_a_tuple_of_plain_types() -> None:
    assert "image/png" in ServerLimits().media_types
    assert ServerLimits(media_types=["image/png"]).media_types == ("image/png",)  # type: ignore[arg-type]
    assert ServerLimits(media_types="image/png").media_types == ("image/png",)  # type: ignore[arg-type]
    for wrong in ("png", "IMAGE/PNG", "image/*", 3):
        with pytest.raises(ValueError, match=r"media_types=\.\.\.\): expected types such as"):
            ServerLimits(media_types=(wrong,))  # type: ignore[arg-type]


def test_a_whole_message_has_room_for_its_parts_in_base64() -> None:
    assert ServerLimits(media_types=()).whole_message == 262_144
    assert ServerLimits(part_bytes=300).whole_message == 262_144 + 400 + 65_536
    assert ServerLimits(part_bytes=2**53).whole_message == 262_144 + 10 * 2**20 * 4 // 3 + 65_536
