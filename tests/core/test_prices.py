"""Price tables: decimals, and the price of whoever answered."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from flowtrio import Usage
from flowtrio._core._prices import PriceTable

PRICES = {
    "small": {"prompt": "0.15", "completion": "0.60", "cached": "0.075"},
    "plain": {"prompt": 1, "completion": Decimal("2.5")},
}


class Huge:
    def __str__(self) -> str:
        return str(10**5000)


class Unhashable(str):
    __hash__ = None  # type: ignore[assignment]


def cost(*models: str | None, **usage: Any) -> str | None:
    table = PriceTable.of(PRICES)
    assert table is not None
    return table.priced(Usage(**usage), models).cost


def test_cost_is_exact_decimal_text() -> None:
    assert cost("small", prompt_tokens=1000, completion_tokens=1) == "0.0001506"
    assert cost("small", prompt_tokens=3_000_000) == "0.45"
    assert cost("plain", prompt_tokens=2_000_000) == "2"


def test_cached_tokens_cost_their_own_price_where_there_is_one() -> None:
    assert cost("small", prompt_tokens=1000, cached_tokens=400) == "0.00012"
    assert cost("plain", prompt_tokens=1000, cached_tokens=400) == "0.001"


def test_the_first_model_with_a_price_counts() -> None:
    assert cost(None, "unknown", "plain", prompt_tokens=1_000_000) == "1"
    assert cost("small", "plain", completion_tokens=1_000_000) == "0.6"


def test_a_model_may_be_a_text_of_a_type_of_ones_own() -> None:
    assert cost(Unhashable("other"), Unhashable("plain"), prompt_tokens=1_000_000) == "1"


def test_a_model_without_a_price_has_no_cost() -> None:
    assert cost("unknown", prompt_tokens=1) is None


def test_a_cost_that_the_provider_told_stays() -> None:
    assert cost("plain", prompt_tokens=1, cost="7") == "7"


def test_a_table_is_taken_as_it_is() -> None:
    table = PriceTable.of(PRICES)

    assert PriceTable.of(table) is table
    assert PriceTable.of(None) is None


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ([], TypeError, "expected a mapping by model, got list"),
        ({"m": 3}, TypeError, r"prices\['m'\]: expected a mapping, got int"),
        ({"m": {"prompt": 1}}, ValueError, "expected a price for 'completion'"),
        ({"m": {"prompt": 1, "completion": 1, "input": 2}}, ValueError, "'input'.* unknown"),
        ({"m": {"prompt": "a", "completion": 1}}, ValueError, r"\['prompt'\]='a': expected"),
        ({"m": {"prompt": -1, "completion": 1}}, ValueError, "expected a price"),
        ({"m": {"prompt": float("inf"), "completion": 1}}, ValueError, "expected a price"),
        ({"m": {"prompt": None, "completion": 1}}, ValueError, "expected a price"),
        *(
            ({"m": {"prompt": price, "completion": 1}}, ValueError, "10.*15 and 60 places at most$")
            for price in ("1E+999999", "1E-999999", 10**16, Huge(), 1e-70)
        ),
        ({"x" * 1000: {1: 1, "input": 2}}, ValueError, "^.{1,250}$"),
    ],
)
def test_what_is_no_table_is_refused(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        PriceTable.of(given)
