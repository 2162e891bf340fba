"""What must hold of a store that processes shared, whatever befell them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from flowtrio import AgentEvent
from flowtrio.testing import find_violations
from flowtrio.testing._leased_place import SharedPlace, SharedRun


def judge_runs(
    place: SharedPlace, executed: Counter[str], seen: Mapping[str, list[AgentEvent]]
) -> Iterator[str]:
    """What does not hold of the runs that it has, as sentences.

    Args:
      place: What the store has in the end.
      executed: How often each run was executed.
      seen: What a reader of each run saw.

    """
    for run in place.runs.values():
        run_id = run.header.run_id
        yield from (f"{run_id}: {violation}" for violation in find_violations(run.events))
        if executed[run_id] > 1:
            yield f"{run_id} was executed {executed[run_id]} times"
        if seen.get(run_id) != run.events:
            yield f"the reader of {run_id} saw something else than is stored"
    if left := [*place.queue, *place.lines]:
        yield f"{left} are left in the queue or in line"


def turns_of_runs(place: SharedPlace) -> Iterator[tuple[SharedRun, int]]:
    """Each run that is remembered, whose message is its id, and how often that was said."""
    for run in place.runs.values():
        header = run.header
        if header.is_remembered and header.session_id is not None:
            said = place.said.get((header.tenant_id, header.session_id), [])
            turns = [each["content"] for each in said if each["role"] == "user"]
            yield run, turns.count(header.run_id)
