"""What a run may spend on models: looked at after each reply, and before each further one."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from flowtrio._core._exceptions import LimitExceeded

if TYPE_CHECKING:
    from flowtrio._run._run import Run


def check_budget(run: Run) -> None:
    """See whether a reply that has come passed a limit.

    Raises:
      LimitExceeded: it did; ``limit`` is ``tokens`` or ``cost``.

    """
    _check_spent(run)
    if run.limits.cost is not None and run.usage.cost is None:
        raise LimitExceeded(
            "the run has a limit of cost, and what a reply cost is not known: expected "
            "prices= with the price of its model",
            limit="cost",
        )


def check_request(run: Run) -> None:
    """See whether a model may be asked once more: also where a tool made little of a limit.

    Raises:
      LimitExceeded: it may not; ``limit`` is ``tokens``, ``cost`` or ``requests``.

    """
    _check_spent(run)
    most = run.limits.requests
    if most is not None and run.requests >= most:
        raise LimitExceeded(
            f"the run asked models {run.requests} times, as often as requests={most} lets it",
            limit="requests",
        )


def _check_spent(run: Run) -> None:
    limits, usage = run.limits, run.usage
    if limits.tokens is not None:
        spent = usage.prompt_tokens + usage.completion_tokens
        if spent > limits.tokens:
            raise LimitExceeded(
                f"the run took {spent} tokens, more than tokens={limits.tokens}", limit="tokens"
            )
    if limits.cost is not None and usage.cost is not None and Decimal(usage.cost) > limits.cost:
        raise LimitExceeded(
            f"the run cost {usage.cost}, more than cost={limits.cost}", limit="cost"
        )


def is_last_request(run: Run) -> bool:
    """Whether a model may be asked once more, and not again after that."""
    most = run.limits.requests
    return most is not None and run.requests + 1 >= most
