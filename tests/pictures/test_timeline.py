"""Pictures of logs: complete, readable, small, and safe whatever the log says."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from flowtrio._core._events import EventType
from flowtrio.pictures import _lanes
from flowtrio.pictures import _svg as _timeline
from flowtrio.pictures._lanes import lay_out
from flowtrio.pictures._svg import draw_timeline
from tests.testing.test_checks import LAWFUL, Log, delegates, lawful

T = EventType
SVG = "{http://www.w3.org/2000/svg}"
MEGABYTE = 1_000_000
GOLDEN = Path(__file__).parents[1] / "golden"
GOLDEN_LANES: dict[str, dict[str, list[str]]] = json.loads(
    (GOLDEN / "lanes.json").read_text("utf-8")
)
"""The lanes of each golden log: those that the page has too, and those that it has not."""


def texts(picture: str) -> list[str]:
    """Every text that a picture shows, or tells when it is pointed at."""
    tree = ElementTree.fromstring(picture)
    return [node.text or "" for node in tree.iter() if node.tag in (f"{SVG}text", f"{SVG}title")]


def untold(log: Log) -> list[str]:
    """What a log has, and its picture does not tell of; as sentences."""
    told = texts(draw_timeline(log))
    ended = {"tool_call_end": "call_id", "agent_end": "agent", "message_complete": "message_id"}
    missing = []
    for event in log:
        data = event["data"]
        if event["type"] in ended:
            name = data[ended[event["type"]]]
            outcome = data.get("outcome", data.get("finish_reason"))
            ends = [text for text in told if f" {name}: " in text and outcome in text]
            missing += [f"the end of {name}"] * (len(ends) != 1)
        if event["type"] == "done":
            missing += ["the terminal"] * (told.count(f"DONE {data['status']}") != 1)
        if event["type"] == "error":
            missing += ["the error"] * (told.count(f"ERROR {data['code']}") != 1)
        if "tool_name" in data:
            missing += [f"the lane of {data['tool_name']}"] * (data["tool_name"] not in told)
    return missing


@lawful
def test_each_call_agent_message_and_terminal_is_in_the_picture(make: Callable[[], Log]) -> None:
    assert untold(make()) == []


def test_a_picture_without_a_call_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _timeline.lay_out

    def forgetful(events: Any) -> Any:
        return whole([e for e in events if e["data"].get("call_id") != "c2"])

    monkeypatch.setattr(_timeline, "lay_out", forgetful)

    assert "the end of c2" in untold(delegates())


@lawful
def test_a_log_that_stops_anywhere_is_drawn_as_far_as_it_goes(make: Callable[[], Log]) -> None:
    log = make()
    for length in range(len(log)):
        picture = draw_timeline(log[:length])

        assert f"{length} events" in " ".join(texts(picture))
        assert ("not ended" in picture) == (log[length - 1]["type"] != "done" or not length)


@lawful
def test_a_log_that_breaks_laws_is_drawn_too(make: Callable[[], Log]) -> None:
    log = make()
    for index, event in enumerate(log):
        for mutant in (
            log[:index] + log[index + 1 :],
            [*log[:index], copy.deepcopy(event), *log[index:]],
            [*log[:index], {"type": event["type"], "data": None}, *log[index + 1 :]],
            [*log[:index], {"type": "unheard_of", "data": {}, "seq": "1"}, *log[index + 1 :]],
        ):
            ElementTree.fromstring(draw_timeline(mutant))


# Lanes


def lanes(log: Log) -> list[tuple[int, str]]:
    return [(lane.depth, lane.name) for lane in lay_out(log).lanes]


def test_a_nested_agents_lanes_stand_below_its_own() -> None:
    assert lanes(delegates()) == [
        (0, "run"),
        (0, "model"),
        (0, "look"),
        (0, "visa"),
        (1, "model"),
        (1, "look"),
        (1, "lawyer#2"),
        (2, "model"),
    ]


@pytest.mark.parametrize("name", GOLDEN_LANES)
def test_a_log_has_the_lanes_that_it_has_on_the_page_and_those_of_calls_that_never_began(
    name: str,
) -> None:
    # See tests/browser/modules/golden.test.mjs.
    lines = (GOLDEN / name).read_text("utf-8").splitlines()
    found = [
        f"agent {lane.name}" if lane.kind == "agent" else f"{lane.kind} {lane.name} {lane.depth}"
        for lane in lay_out(map(json.loads, lines)).lanes
        if lane.kind not in ("run", "question")
    ]

    expected = GOLDEN_LANES[name]
    assert sorted(found) == sorted(expected["both"] + expected["never_begun"])


def test_the_table_of_lanes_has_every_golden_log() -> None:
    logs = {str(path.relative_to(GOLDEN)) for path in GOLDEN.glob("schema-*/*.jsonl")}

    assert GOLDEN_LANES.keys() == logs


def test_what_overlaps_in_a_lane_gets_rows_of_its_own_and_gives_them_back() -> None:
    log = Log()
    log.begin()
    for call_id in ("c1", "c2"):
        log.start(call_id, message_id=None)
    log.end("c1")
    log.start("c3", message_id=None)
    log.end("c2")
    log.end("c3")
    log.complete()
    [_, tool] = lay_out(log).lanes

    assert [(bar.text.split()[0], bar.row) for bar in tool.bars] == [
        ("c1", 0),
        ("c2", 1),
        ("c3", 0),
    ]


def test_neighbouring_chunks_are_one_column_and_keep_their_number() -> None:
    log = Log()
    log.begin()
    log.speak("m1", *"abcdefgh")
    log.complete()
    layout = lay_out(log)

    assert [column.count for column in layout.columns] == [1, 1, 8, 1, 1, 1]
    assert list(layout.lanes[1].streaks.values()) == [8]


def test_a_call_is_drawn_in_its_phases() -> None:
    log = Log()
    log.begin()
    log.say(T.TOOL_CALL_ARGS, call_id="c1", tool_name="look", delta="{}", message_id="m1")
    log.speak("m1", finish_reason="tool_calls")
    log.say(T.APPROVAL_REQUIRED, call_id="c1", tool_name="look")
    log.start("c1")
    log.end("c1", outcome="timeout")
    log.complete()
    [tool] = [lane for lane in lay_out(log).lanes if lane.kind == "tool"]

    assert [(bar.tone, bar.start, bar.end) for bar in tool.bars] == [
        ("written", 2, 3),
        ("asked", 4, 4),
        ("timeout", 5, 6),
    ]


def test_what_the_log_leaves_open_is_marked() -> None:
    log = delegates()
    del log[7:]

    assert 'class="running open"' in draw_timeline(log)
    assert "open" not in {
        n.get("class") for n in ElementTree.fromstring(draw_timeline(delegates()))
    }


def unfit_rails(log: Log) -> list[int]:
    """Places of the moments whose rail is another thing's, or nobody's."""
    taken: set[int] = set()
    unfit = []
    for index, moment in enumerate(lay_out(log).moments):
        if moment.rail is None or (moment.rail in taken) == moment.opens:
            unfit.append(index)
            continue
        taken.add(moment.rail)
        if moment.closes:
            taken.remove(moment.rail)
    return [*unfit, *(len(log) for _ in taken)]


@lawful
def test_whatever_is_open_has_a_rail_of_its_own(make: Callable[[], Log]) -> None:
    assert unfit_rails(make()) == []


def test_a_rail_that_is_never_free_again_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _lanes._Layouter._close

    def never(self: Any, track: Any, tone: str, title: str) -> None:
        whole(self, track, tone, title)
        self._rails[track.rail] = True

    monkeypatch.setattr(_lanes._Layouter, "_close", never)
    rails = [moment.rail for moment in lay_out(delegates()).moments if moment.rail is not None]

    monkeypatch.undo()
    assert max(rails) > max(moment.rail or 0 for moment in lay_out(delegates()).moments)


def test_an_application_s_own_event_stands_at_the_agent_that_says_it() -> None:
    log = [
        {"type": "agent_start", "agent": "root/visa", "data": {"agent": "root/visa"}},
        {"type": "custom", "agent": "root/visa", "data": {"name": "mood"}},
    ]
    [_, visa] = lay_out(log).lanes

    assert [(mark.kind, mark.title) for mark in visa.marks] == [("custom", "CUSTOM mood")]
    assert {moment.rail for moment in lay_out(log).moments} == {0}


def test_what_ends_without_a_beginning_has_a_rail_for_that_event() -> None:
    log = Log()
    log.end("c1")
    [moment] = lay_out(log).moments

    assert (moment.rail, moment.opens, moment.closes) == (0, True, True)


# Sizes


def ten_events() -> Log:
    log = Log()
    log.begin()
    log.speak("m1", "Hi", " you", finish_reason="tool_calls")
    log.start("c1")
    log.end("c1")
    log.speak("m2")
    log.complete()
    return log


def two_streams() -> Log:
    log = Log()
    log.begin()
    for _ in range(2498):
        for message_id in ("m1", "m2", "m3", "m4"):
            log.say(T.MESSAGE_CHUNK, chunk="word ", message_id=message_id)
    for message_id in ("m1", "m2", "m3", "m4"):
        log.say(T.MESSAGE_COMPLETE, message_id=message_id, content="")
    log.complete()
    return log


def calls_only() -> Log:
    log = Log()
    log.begin()
    for number in range(4998):
        log.start(f"c{number}", message_id=None)
        log.end(f"c{number}")
    log.complete()
    return log


def all_at_once() -> Log:
    log = Log()
    log.begin()
    for number in range(4998):
        log.start(f"c{number}", message_id=None)
    for number in range(4998):
        log.end(f"c{number}")
    log.complete()
    return log


def a_tool_each_with_a_hostile_name() -> Log:
    log = Log()
    log.begin()
    for number in range(4998):
        name = f"{number}<&\"'😀" * 20
        log.start(f"{number}" * 9, name, message_id=None)
        log.end(f"{number}" * 9, name)
    log.complete()
    return log


def progress_between_calls() -> Log:
    log = Log()
    log.begin()
    for number in range(2499):
        log.start(f"c{number}", message_id=None)
        log.say(T.TOOL_PROGRESS, call_id=f"c{number}", tool_name="look", progress=1)
        log.say(T.CUSTOM, name="&" * 300, value=None)
        log.end(f"c{number}")
    log.complete()
    return log


@pytest.mark.parametrize(
    "make",
    [two_streams, calls_only, all_at_once, a_tool_each_with_a_hostile_name, progress_between_calls],
)
def test_a_picture_of_ten_thousand_events_has_less_than_a_megabyte(make: Callable[[], Log]) -> None:
    log = make()
    picture = draw_timeline(log)

    assert 9_900 <= len(log) <= 10_100
    assert len(picture.encode()) < MEGABYTE
    assert "DONE completed" in picture or 'class="running end"' in picture
    ElementTree.fromstring(picture)


def test_a_log_too_long_for_a_small_picture_is_drawn_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_timeline, "LARGEST", 100)
    picture = draw_timeline(delegates())

    assert "DONE completed" not in texts(picture)
    assert "lawyer#2" in texts(picture)


def test_long_streams_are_as_readable_as_short_ones() -> None:
    """Two streams of thousands of chunks take the room of a few events."""
    assert len(draw_timeline(two_streams())) < 2 * len(draw_timeline(ten_events()))


def test_short_logs_are_wide_enough_for_their_words() -> None:
    """Every bar is as wide as its text, and no two texts of a row overlap."""
    tree = ElementTree.fromstring(draw_timeline(ten_events()))
    rows: dict[str, list[tuple[float, float]]] = {}
    for node in tree.iter(f"{SVG}text"):
        start = float(node.attrib["x"])
        rows.setdefault(node.attrib["y"], []).append(
            (start, start + len(node.text or "") * _timeline.CHARACTER)
        )
    width = float(tree.attrib["width"])

    assert len(ten_events()) == 10
    for spans in rows.values():
        spans.sort()
        assert all(end <= width for _, end in spans)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


# What a log may say


def test_hostile_names_are_text() -> None:
    name = "</text><script>alert(1)</script>\x1b[2J\x00\ud800\ufffe\u202e&"
    log = Log()
    log.begin(message=name)
    log.start("<c>", name, message_id=None)
    log.end("<c>", name, outcome="error", error=name)
    log.complete()
    for event in log:
        event["run_id"] = name
    picture = draw_timeline(log)

    assert {node.tag for node in ElementTree.fromstring(picture).iter()} <= {
        SVG + tag for tag in ("svg", "title", "style", "rect", "text", "path", "circle")
    }
    assert not re.search("[\x00-\x09\x0b-\x1f\ud800\ufffe\u202e]", picture)
    assert picture.count("&lt;script&gt;") >= 2


def test_a_picture_brings_everything_it_needs() -> None:
    for make in LAWFUL:
        picture = draw_timeline(make())

        assert "prefers-color-scheme:dark" in picture
        assert "href" not in picture
        assert "url(" not in picture


def test_every_colour_is_there_for_light_and_for_dark() -> None:
    light, dark = _timeline._style().split("@media")
    for tone in _timeline._COLOURS:
        assert f".{tone}{{fill:" in light
        assert f".{tone}{{fill:" in dark
