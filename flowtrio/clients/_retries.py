"""When a request is sent again, and how long that waits."""

from __future__ import annotations

from collections.abc import Callable

from flowtrio._core._exceptions import ProviderError, RemoteProtocolError
from flowtrio._core._limits import is_whole
from flowtrio._core._values import told

MAX_RETRIES = 2
"""How often a reply is asked for again at most, where nobody says."""

_FIRST_WAIT = 0.5
_LONGEST_WAIT = 8.0
"""Seconds before another request where the host does not say: doubled each time, then jittered."""

_SAID_NOTHING = ("stream_cut", "empty_reply")
"""Codes of replies that ended before anything was said: as if there had been no answer at all.

What could not be read is not among them: it would be paid for again, and not be read again.
"""


def check_retries(max_retries: int) -> int:
    """Refuse what is no number of retries, by a `ValueError`."""
    if not is_whole(max_retries, 0):
        raise ValueError(f"max_retries={told(max_retries)}: expected a whole number, 0 or more")
    return max_retries


def is_tried_again(error: ProviderError | RemoteProtocolError) -> bool:
    """Whether a request that failed of this, before anything was said, may be sent again."""
    if isinstance(error, RemoteProtocolError) and error.code not in _SAID_NOTHING:
        return False
    return error.retryable


def wait_before_next(
    error: ProviderError | RemoteProtocolError,
    retries: int,
    longest: float,
    jitter: Callable[[], float],
) -> float | None:
    """Seconds to wait before the next request, or None where nobody would wait so long.

    Args:
      error: What the last request failed of.
      retries: How often the reply was asked for again.
      longest: Seconds that somebody would wait.
      jitter: Gives a share of the wait, from 0 to 1.

    """
    wait = getattr(error, "retry_after", None)
    if wait is None:
        # Beyond so many doublings it is the longest in any case.
        wait = jitter() * min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(retries, 10))
    return None if wait >= longest else float(wait)
