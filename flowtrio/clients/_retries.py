"""When a request is sent again, and how long that waits."""

from __future__ import annotations

from collections.abc import Callable

from flowtrio._core._exceptions import ProviderError

MAX_REQUESTS = 3
"""Requests for one reply at most."""

_FIRST_WAIT = 0.5
_LONGEST_WAIT = 8.0
"""Seconds before another request where the host does not say: doubled each time, then jittered."""


def wait_before_next(
    error: ProviderError, requests: int, longest: float, jitter: Callable[[], float]
) -> float | None:
    """Seconds to wait before the next request, or None to give up.

    Args:
      error: What the last request failed of.
      requests: How many were sent.
      longest: Seconds that nobody would wait.
      jitter: Gives a share of the wait, from 0 to 1.

    """
    if not error.retryable or requests >= MAX_REQUESTS:
        return None
    wait = error.retry_after
    if wait is None:
        wait = jitter() * min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (requests - 1))
    return None if wait >= longest else wait
