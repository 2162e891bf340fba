"""The conversation of a run: results belong to their calls, and parts to the whole."""

from __future__ import annotations

from typing import Any

import pytest

from flowtrio import ToolCall
from flowtrio._core._fit import NO_TEXT, NOT_RUN, without_withheld
from flowtrio._core._history import read_history
from flowtrio._core._parts import read_message
from flowtrio._core._transcript import Reply, Transcript, result_text
from flowtrio.testing import check_messages

CANCELLED = "error: the call was cancelled"
NOT_ENDED = "error: this call has not ended yet"


def transcript(message: str = "hi", *history: dict[str, Any], run_id: str = "r") -> Transcript:
    return Transcript(read_history(history), read_message(message), run_id)


def say(
    into: Transcript,
    message_id: str,
    text: str = "",
    *calls: tuple[str, ToolCall],
    reason: str = "stop",
    note: Transcript | None = None,
    **reply: Any,
) -> None:
    """Have the log tell of a message that belongs *into* a part of *note*."""
    into.expect(Reply(message_id, list(calls), **reply))
    data = {"message_id": message_id, "content": text, "finish_reason": reason}
    (note or into).note_message(data)


def call(call_id: str, id: str = "", name: str = "look", **arguments: Any) -> tuple[str, ToolCall]:
    return call_id, ToolCall(id or f"p_{call_id}", name, arguments)


def end(
    call_id: str, result: Any = "done", outcome: str = "ok", error: Any = None
) -> dict[str, Any]:
    return {"call_id": call_id, "outcome": outcome, "result": result, "error": error}


def words(of: Transcript) -> list[Any]:
    """The contents of a conversation that every provider takes."""
    messages = of.messages()
    check_messages(messages)
    return [message["content"] for message in messages]


# Results


def test_a_result_that_comes_after_a_later_message_stands_behind_its_call() -> None:
    it = transcript()
    say(it, "m1", "", call("c1"), call("c2"))
    it.note_result(end("c2", "second"))
    say(it, "m2", "still working")
    it.note_result(end("c1", "first"))

    assert words(it) == ["hi", None, "first", "second", "still working"]


def test_a_call_says_what_became_of_it() -> None:
    it = transcript()
    say(it, "m1", "", *(call(f"c{n}") for n in range(5)))
    it.note_approval({"call_id": "c0", "arguments": {}})
    it.note_start({"call_id": "c1", "arguments": {}})
    it.note_result(end("c1", None, "cancelled"))
    it.note_result(end("c2", None, "denied", "not today"))
    it.note_result(end("c3", {"a": 2**70}))
    it.note_result(end("c9", "a call of the agent's own"))
    it.note_start({"call_id": "c9", "arguments": {}})

    assert words(it)[2:] == [
        NOT_ENDED,
        CANCELLED,
        "error: the call was denied: not today",
        '{"a":1180591620717411303424}',
        NOT_RUN,
    ]


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (end("c", "x"), "x"),
        (end("c", [1]), "[1]"),
        (end("c", None, "denied"), "error: the call was denied"),
        (end("c", None, "cancelled", "the reply was cut"), f"{CANCELLED}: the reply was cut"),
        (end("c", None, "timeout"), "error: timeout"),
        (end("c", None, "error", "E: no"), "error: E: no"),
    ],
)
def test_the_model_is_told_how_a_call_ended(told: dict[str, Any], text: str) -> None:
    assert result_text(told) == text


def test_binding_results_to_the_message_that_follows_would_be_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The planted bug: what has no result when something else is said, never gets one."""
    right = Transcript.note_message

    def settle(it: Transcript, data: dict[str, Any]) -> None:
        it._book.open.clear()
        right(it, data)

    monkeypatch.setattr(Transcript, "note_message", settle)

    with pytest.raises(AssertionError):
        test_a_result_that_comes_after_a_later_message_stands_behind_its_call()


# What is said


def test_text_that_ended_early_is_kept_and_marked_without_its_calls() -> None:
    it = transcript()
    say(it, "m1", "half", call("c1"), reason="error", carry={"x": 1})
    say(it, "m2", "", reason="cancelled")

    assert it.messages()[1:] == [
        {"role": "assistant", "content": "half", "flowtrio": {"partial": True}}
    ]


def test_what_a_provider_wants_back_is_kept_if_it_can_be() -> None:
    it = transcript()
    odd = call("c2")[0], ToolCall("p", "look", None, carry={"x": object()})
    kept = call("c1")[0], ToolCall("q", "look", {}, carry={"y": 1})
    say(it, "m1", "", kept, odd, carry={"z": [1]})
    say(it, "m2", "fine", carry={"z": {1, 2}, "o": object()})

    asked, _, _, fine = it.messages()[1:]
    assert asked["flowtrio"] == {"carry": {"z": [1]}}
    assert asked["tool_calls"][0]["flowtrio"] == {"carry": {"y": 1}}
    assert "flowtrio" not in asked["tool_calls"][1]
    assert fine == {"role": "assistant", "content": "fine"}


def test_a_turn_that_says_nothing_to_read_leaves_no_message() -> None:
    it = transcript()
    say(it, "m1", "")
    say(it, "m2", " \n")
    say(it, "m3", " \n", call("c1"))
    say(it, "m4", "", refusal="I won't.")

    assert words(it) == ["hi", None, NOT_RUN, "I won't."]


def test_what_nobody_expects_is_not_taken() -> None:
    it = transcript()
    it.note_message({"message_id": "m1", "content": "x", "finish_reason": "stop"})

    assert words(it) == ["hi"]


def test_names_ids_and_texts_are_made_fit() -> None:
    long = "chatcmpl-tool-0123456789abcdef0123456789abcdef"
    before = {"role": "assistant", "content": None, "tool_calls": [_asked("twice")]}
    it = transcript(" \n", before, run_id="a run id that is much longer than forty characters are")
    say(
        it,
        "m1",
        "",
        call("c1", long, "functions.get_weather"),
        call("c2", "twice"),
        ("c3", ToolCall("", "look", {})),
        call("c4", "fits"),
    )
    for number in range(1, 5):
        it.note_result(end(f"c{number}", f"result {number}"))

    _, _, user, asked, *results = it.messages()
    check_messages(it.messages())
    assert user["content"] == NO_TEXT
    assert asked["tool_calls"][0]["function"]["name"] == "functions_get_weather"
    assert asked["tool_calls"][3]["id"] == "fits"
    assert [(m["tool_call_id"], m["content"]) for m in results] == [
        (call["id"], f"result {number}") for number, call in enumerate(asked["tool_calls"], 1)
    ]


def _asked(id: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "look", "arguments": "{}"}}


def test_ids_of_two_runs_of_one_name_differ_in_one_conversation() -> None:
    history: list[dict[str, Any]] = []
    for _ in range(3):
        it = transcript("hi", *history, run_id="same")
        say(it, "m1", "", ("c1", ToolCall("", "look", {})))
        history = it.messages()

    check_messages(history)


def test_a_conversation_is_its_readers_own() -> None:
    history = [{"role": "user", "content": [{"type": "text", "text": "before"}]}]
    carry = {"x": [1]}
    it = transcript("hi", *history)
    say(it, "m1", "yes", call("c1"), carry=carry)
    told = it.messages()
    carry["x"].append(2)
    for message in told:
        message["content"] = "changed"
    told[0]["name"] = "changed"
    told[2]["flowtrio"]["carry"]["x"].append(3)
    told[2]["tool_calls"][0]["function"]["arguments"] = "changed"

    assert words(it) == [history[0]["content"], "hi", "yes", NOT_RUN]
    assert it.messages()[2]["flowtrio"]["carry"] == {"x": [1]}
    assert it.messages()[2]["tool_calls"][0]["function"]["arguments"] == "{}"


# Parts


def test_parts_join_whole_in_the_order_in_which_they_end() -> None:
    it = transcript("hi", {"role": "user", "content": "before"})
    first, second = (
        it.begin(read_message("one"), is_told=True),
        it.begin(read_message("two"), is_told=True),
    )
    say(first, "m1", "", call("c1"), note=it)
    say(second, "m2", "2", note=it)
    say(it, "m3", "still working")
    say(first, "m4", "1", note=it)
    it.note_result(end("c1"))

    under_way = ["before", "hi", "still working", "one", None, "done", "1", "two", "2"]
    assert words(it) == under_way
    assert words(second) == ["before", "two", "2"]
    second.end()
    say(it, "m5", "one is left")
    first.end()
    assert words(it) == [
        *("before", "hi", "still working", "two", "2"),
        *("one is left", "one", None, "done", "1"),
    ]


def test_a_message_that_is_passed_on_is_there_once() -> None:
    it = transcript(" ")
    for text in ("a", "b"):
        part = it.begin(read_message(""), is_told=True)
        say(part, text, text, note=it)
        part.end()

    assert words(it) == [NO_TEXT, "a", "b"]


def test_a_part_in_which_nothing_was_said_leaves_nothing() -> None:
    it = transcript()
    part = it.begin(read_message("other"), is_told=True)
    assert words(part) == ["other"]
    part.end()

    assert words(it) == ["hi"]


def test_what_is_said_inside_a_tool_stays_there() -> None:
    it = transcript()
    say(it, "m1", "", call("c1"))
    part = it.begin(read_message("other"), is_told=False)
    say(part, "m2", "asked inside", call("c2"), note=it)
    it.note_result(end("c2", "inner"))
    it.note_result(end("c1", "outer"))

    assert words(part) == ["other", "asked inside", "inner"]
    part.end()
    it.answer("asked inside")
    assert words(it) == ["hi", None, "outer", "asked inside"]


def test_ids_are_unique_over_all_parts() -> None:
    it = transcript()
    part = it.begin(read_message("other"), is_told=True)
    say(it, "m1", "", call("c1", "same"))
    say(part, "m2", "", call("c2", "same"), note=it)

    assert words(it) == ["hi", None, NOT_RUN, "other", None, NOT_RUN]


# The answer


@pytest.mark.parametrize(
    ("said", "value", "answers"),
    [
        ([], "text", ["text"]),
        ([], {"a": 1}, ['{"a":1}']),
        ([], False, ["false"]),
        ([], None, []),
        ([], " ", []),
        (["text"], "text", []),
        (["text"], "other", ["other"]),
        (["text", "other"], "text", ["text"]),
        (["text"], {"a": 1}, []),
        (["text"], None, []),
    ],
)
def test_what_a_body_returns_is_its_answer_unless_it_said_that(
    said: list[str], value: Any, answers: list[str]
) -> None:
    it = transcript()
    for number, text in enumerate(said):
        say(it, f"m{number}", text)
    it.answer(value)

    assert words(it) == ["hi", *said, *answers]


def test_what_was_cut_off_is_no_answer() -> None:
    it = transcript()
    say(it, "m1", "half", reason="error")
    it.answer("half")

    assert words(it) == ["hi", "half", "half"]


def test_what_an_agent_of_a_body_said_is_said_by_the_body() -> None:
    it = transcript()
    part = it.begin(read_message("other"), is_told=True)
    say(part, "m1", "answer", note=it)
    it.answer({"not": "told"})
    it.answer("answer")

    assert words(it) == ["hi", "other", "answer"]


@pytest.mark.parametrize("is_part", [False, True])
def test_what_is_said_behind_a_withheld_reply_is_asked(is_part: bool) -> None:
    """The user says more while a provider withholds: that was in nothing which it refused."""
    whole = transcript("bad")
    said = whole.begin(read_message("bad"), is_told=True) if is_part else whole
    say(said, "m1", "fine so far")
    say(said, "m2", "", reason="content_filter")
    assert without_withheld(said.messages()) == without_withheld(whole.messages()) == []

    said.hear(read_message("better"))
    asked = [message["content"] for message in without_withheld(said.messages())]
    say(said, "m3", "gladly")

    assert asked == ["better"]
    told = ["bad", "fine so far", "better", "gladly"]
    for _ in range(2):
        assert [message["content"] for message in whole.messages()] == told
        sent = [message["content"] for message in without_withheld(whole.messages())]
        assert sent == ["better", "gladly"]
        said.end()


def test_what_is_withheld_once_more_takes_all_before_it_along() -> None:
    whole = transcript("bad")
    say(whole, "m1", "", reason="content_filter")
    whole.hear(read_message("as bad"))
    say(whole, "m2", "", reason="content_filter")
    assert without_withheld(whole.messages()) == []

    whole.hear(read_message("good"))

    assert [message["content"] for message in without_withheld(whole.messages())] == ["good"]
