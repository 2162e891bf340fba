"""What has nothing yet: it shares one empty dict with all others, and takes its own in time."""

from __future__ import annotations

import pytest

from flowtrio._core._events import AgentStatus, EventType
from flowtrio._core._law import Law
from flowtrio._core._nothing import NOTHING
from flowtrio._run._channel import EventChannel
from flowtrio._run._open import OpenThings


def begun() -> Law:
    law = Law()
    law.step(EventType.RUN_START, {}, "root")
    change = {"old_status": AgentStatus.INITIALIZING, "new_status": "running", "reason": None}
    law.step(EventType.STATE_CHANGE, change, "root")
    return law


def test_it_takes_nothing_in() -> None:
    with pytest.raises(TypeError):
        NOTHING["a"] = 1
    assert not NOTHING


def test_what_idles_has_no_dict_of_its_own() -> None:
    law, opened, channel = begun(), OpenThings("r"), EventChannel(4)
    of_law = (law._calls, law._agents, law._questions, law._messages, law._used)
    of_opened = (opened._things, opened._since, opened._ids)
    assert all(each is NOTHING for each in (*of_law, *of_opened, channel.emitters))


@pytest.mark.parametrize("is_abandoned", [False, True])
def test_two_share_nothing_once_they_have_something(is_abandoned: bool) -> None:
    one, other = begun(), begun()
    if is_abandoned:
        one.abandon()
    one.begin_message("m1", "root")
    opened, another = OpenThings("r"), OpenThings("r")

    assert one.open_message("m1") is not None
    assert (other.open_message("m1"), other.is_new("m1"), NOTHING) == (None, True, {})
    assert [opened.new_id("c"), opened.new_id("c"), another.new_id("c")] == ["c1", "c2", "c1"]
