"""Headers as JSON."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flowtrio import AgentStatus, Limits
from flowtrio.abc import RunHeader, RunOptions
from flowtrio.stores.redis._headers import decode_header, encode_header

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SECONDS = st.one_of(st.just(math.inf), st.floats(0.5, 1e6))
LIMITS = st.builds(
    Limits,
    run=SECONDS,
    turns=st.one_of(st.just(math.inf), st.integers(1, 99)),
    tokens=st.one_of(st.none(), st.integers(1, 10**9)),
    cost=st.one_of(st.none(), st.decimals("0.01", "99", places=2)),
)
JSON: Any = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=3)
OPTIONS = st.builds(
    RunOptions,
    history=st.one_of(st.none(), st.lists(OBJECTS, max_size=2)),
    model_settings=OBJECTS,
    limits=st.one_of(st.none(), LIMITS),
    client_tools=st.lists(OBJECTS, max_size=2),
    app=JSON,
    resume_window=st.one_of(st.just(0), SECONDS),
    waits_for_reader=st.booleans(),
)
HEADERS = st.builds(
    RunHeader,
    tenant_id=TEXTS,
    run_id=TEXTS,
    session_id=st.one_of(st.none(), TEXTS),
    agent=TEXTS,
    message=TEXTS,
    parts=st.lists(OBJECTS, max_size=2).map(tuple),
    digest=st.one_of(st.none(), TEXTS),
    created_at=st.floats(0, 1e10),
    owner=st.one_of(st.none(), st.just("w")),
    is_remembered=st.booleans(),
    asked=st.one_of(st.none(), OPTIONS),
)


@given(HEADERS)
def test_a_header_comes_back_as_it_was(header: RunHeader) -> None:
    shown, asked = encode_header(header)
    found = decode_header(shown, (header.owner or "").encode(), asked)

    assert found == header


@given(HEADERS)
def test_what_was_asked_is_shown_to_nobody_else(header: RunHeader) -> None:
    found = decode_header(encode_header(header)[0], b"w", ended=b"1.25", status=b"cancelled")

    assert (found.parts, found.asked) == ((), None)
    assert (found.ended_at, found.status) == (1.25, AgentStatus.CANCELLED)


def test_money_is_exact() -> None:
    options = RunOptions(limits=Limits(cost="0.10"))
    header = RunHeader(
        tenant_id="t",
        run_id="r",
        session_id=None,
        agent="a",
        message="m",
        created_at=1.0,
        asked=options,
    )
    found = decode_header(encode_header(header)[0], b"", encode_header(header)[1])

    assert found.asked is not None
    assert found.asked.limits is not None
    assert found.asked.limits.cost == Decimal("0.10")
