"""Whether one may ask, and start a run, as often as one does."""

from __future__ import annotations

from flowtrio._core._exceptions import LimitExceeded
from flowtrio.serving._access import Refused

from ._clients import Hosting, asking_the_store
from ._throttle import address_of


def check_address(hosting: Hosting, client: str | None) -> None:
    """Count a request; who has no address has come by none that others can reach.

    Raises:
      Refused: there were too many from its address.

    """
    if client is None:
        return
    most = hosting.limits.requests_per_minute
    wait = hosting.throttle.requests.take(address_of(client), most)
    if wait:
        words = f"more than {most:g} requests a minute from this address"
        raise Refused(429, words, "rate_limited", wait)


async def check_start(hosting: Hosting, tenant_id: str, run_id: str | None) -> None:
    """Count a start; one of a run that there is starts nothing.

    Raises:
      LimitExceeded: the tenant has started, or spent, too much.
      StoreFailed: nobody can tell.

    """
    limits, throttle = hosting.limits, hosting.throttle
    if run_id is not None and hosting.find(tenant_id, run_id) is not None:
        return
    wait = throttle.starts.take(tenant_id, limits.starts_per_minute)
    if not wait and limits.spend_per_day is None:
        return
    words, name = f"more than {limits.starts_per_minute:g} runs a minute", "starts_per_minute"
    code = "rate_limited"
    with asking_the_store():
        if not wait and limits.spend_per_day is not None:
            most = limits.spend_per_day
            wait = await throttle.wait_to_spend(hosting.orchestrator, tenant_id, most)
            words, name = f"{most} spent within a day, as much as may be", "spend_per_day"
            code = "spend_limited"
        if not wait or (run_id is not None and await hosting.is_known(tenant_id, run_id)):
            return
    error = f"{words}: try again in {wait:.0f} s"
    raise LimitExceeded(error, limit=name, code=code, retry_after=wait)
