"""What model replies cost: a price table, and the arithmetic, in decimals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

import attrs
import msgspec

from ._chunks import MONEY, Usage, decimal_text, is_money
from ._values import told

_MILLIONTH: Final = Decimal("0.000001")
_KEYS: Final = ("prompt", "completion", "cached")


@attrs.frozen
class Price:
    """Prices of one model, each for a million tokens."""

    prompt: Decimal
    completion: Decimal
    cached: Decimal

    def cost(self, usage: Usage) -> Decimal:
        """What *usage* costs."""
        fresh = max(0, usage.prompt_tokens - usage.cached_tokens)
        total = MONEY.multiply(fresh, self.prompt)
        total = MONEY.fma(usage.cached_tokens, self.cached, total)
        total = MONEY.fma(usage.completion_tokens, self.completion, total)
        return MONEY.multiply(total, _MILLIONTH)


@attrs.frozen
class PriceTable:
    """Prices by model. Made from what ``prices=`` was given; there is no table of our own."""

    _prices: dict[str, Price]

    @classmethod
    def of(cls, given: Mapping[str, Any] | PriceTable | None) -> PriceTable | None:
        """Read ``{"model": {"prompt": "0.15", "completion": "0.60", "cached": "0.075"}}``.

        Prices are for a million tokens, in any one currency; as text or `decimal.Decimal`, so that
        nothing is rounded, or as a number. ``cached`` is ``prompt`` where it is left out.

        Raises:
          TypeError: it is no mapping of mappings.
          ValueError: a price is missing, unknown, negative or no number.

        """
        if given is None or isinstance(given, PriceTable):
            return given
        if not isinstance(given, Mapping):
            raise TypeError(f"prices: expected a mapping by model, got {type(given).__name__}")
        return cls({model: _read_price(model, prices) for model, prices in given.items()})

    def priced(self, usage: Usage, models: Iterable[str | None]) -> Usage:
        """Give *usage* with its cost, at the price of the first of *models* that has one.

        A cost that the provider told itself stays.
        """
        if usage.cost is not None:
            return usage
        for model in models:
            # As a text of the plain type: another one may not even have a hash.
            if model is not None and (price := self._prices.get(str.__str__(model))) is not None:
                return msgspec.structs.replace(usage, cost=decimal_text(price.cost(usage)))
        return usage


def read_prices(given: Mapping[str, Any] | PriceTable | None) -> PriceTable | None:
    """See `PriceTable.of`."""
    return PriceTable.of(given)


def _read_price(model: str, prices: Any) -> Price:
    if not isinstance(prices, Mapping):
        raise TypeError(f"prices[{told(model)}]: expected a mapping, got {type(prices).__name__}")
    if unknown := set(prices) - set(_KEYS):
        known = ", ".join(_KEYS)
        raise ValueError(f"prices[{told(model)}]: {told(unknown)} unknown, expected {known}")
    read = {key: _read_decimal(model, key, value) for key, value in prices.items()}
    for key in ("prompt", "completion"):
        if key not in read:
            raise ValueError(f"prices[{told(model)}]: expected a price for {key!r}")
    return Price(read["prompt"], read["completion"], read.get("cached", read["prompt"]))


def _read_decimal(model: str, key: str, value: Any) -> Decimal:
    try:
        price = Decimal(str(value))
    except (ArithmeticError, ValueError):
        price = Decimal("nan")
    if not is_money(price) or price < 0:
        raise ValueError(
            f"prices[{told(model)}][{key!r}]={told(value)}: expected a price for a million tokens, "
            "10**15 and 60 places at most"
        )
    return price
