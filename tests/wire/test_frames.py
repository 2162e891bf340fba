"""What a client sends is a command or a refusal with a code, never anything else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtrio import AgentEvent, EventType, StreamMode
from flowtrio.wire._frames import (
    AnswerCommand,
    ApproveCommand,
    BadFrame,
    CancelCommand,
    CancelToolCommand,
    DenyCommand,
    MessageCommand,
    PingCommand,
    ResumeCommand,
    decode_command,
    decode_request,
    encode_accepted,
    encode_events,
    encode_rejected,
)

DEPTH = 32


def decode(value: Any) -> Any:
    return decode_command(value if isinstance(value, str) else json.dumps(value), DEPTH)


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "  hello  ",
        "{",
        '{"a": 1}',
        '{"type": 7}',
        '{"type": null}',
        '["message"]',
        '"message"',
        "null",
        "1",
        "NaN",
        '{"type": NaN}',
        '{"type": 1e999',
        "\x00",
        "[" * 100,
        "[" * 100 + "]" * 100,
        "[" * 40 + "]" * 40,
        '{"message": "hi"}',
        "é\u2028\U0001f600",
    ],
)
def test_a_text_that_is_no_command_is_a_message(text: str) -> None:
    assert decode(text) == MessageCommand(type="message", message=text)


@pytest.mark.parametrize(
    ("value", "command"),
    [
        ({"type": "message", "message": "hi"}, MessageCommand(type="message", message="hi")),
        (
            {
                "type": "message",
                "message": "hi",
                "run_id": "r-1_.~",
                "session_id": "s",
                "mode": "updates",
                "ref": 7,
            },
            MessageCommand(
                type="message",
                message="hi",
                run_id="r-1_.~",
                session_id="s",
                mode=StreamMode.UPDATES,
                ref=7,
            ),
        ),
        (
            {"type": "message", "message": "hi", "mode": "incremental"},
            MessageCommand(type="message", message="hi", mode=StreamMode.INCREMENTAL),
        ),
        ({"type": "ping"}, PingCommand(type="ping")),
        ({"type": "ping", "ref": 1}, PingCommand(type="ping", ref=1)),
        ({"type": "cancel", "run_id": "r"}, CancelCommand(type="cancel", run_id="r")),
        (
            {"type": "cancel", "run_id": "r", "reason": "enough", "ref": "a"},
            CancelCommand(type="cancel", run_id="r", reason="enough", ref="a"),
        ),
        (
            {"type": "cancel_tool", "run_id": "r", "call_id": "c"},
            CancelToolCommand(type="cancel_tool", run_id="r", call_id="c"),
        ),
        (
            {"type": "approve", "run_id": "r", "call_id": "c", "reason": "yes"},
            ApproveCommand(type="approve", run_id="r", call_id="c", reason="yes"),
        ),
        (
            {"type": "deny", "run_id": "r", "call_id": "c", "reason": None},
            DenyCommand(type="deny", run_id="r", call_id="c"),
        ),
        (
            {"type": "answer", "run_id": "r", "request_id": "q", "text": ""},
            AnswerCommand(type="answer", run_id="r", request_id="q", text=""),
        ),
        (
            {"type": "resume", "run_id": "r", "after": -1},
            ResumeCommand(type="resume", run_id="r", after=-1),
        ),
    ],
)
def test_commands(value: Any, command: Any) -> None:
    assert decode(value) == command


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [
        ("", "bad_frame", "a text that is not empty"),
        (" \n\t", "bad_frame", "a text that is not empty"),
        ({"type": "dance"}, "unknown_type", "expected one of message, cancel"),
        ({"type": ""}, "unknown_type", "expected one of"),
        ({"type": "message"}, "bad_frame", "message: Object missing required field `message`"),
        ({"type": "message", "message": ""}, "bad_frame", "length >= 1 - at `$.message`"),
        ({"type": "message", "message": 1}, "bad_frame", "Expected `str`"),
        ({"type": "message", "message": "a", "x": 1}, "bad_frame", "unknown field `x`"),
        ({"type": "message", "message": "a", "mode": "loud"}, "bad_frame", "one of values"),
        ({"type": "message", "message": "a", "run_id": "a b"}, "bad_frame", "1 to 64 of the"),
        ({"type": "message", "message": "a", "run_id": "a" * 65}, "bad_frame", "$.run_id"),
        ({"type": "message", "message": "a", "run_id": "a\n"}, "bad_frame", "$.run_id"),
        ({"type": "message", "message": "a", "session_id": ""}, "bad_frame", "$.session_id"),
        ({"type": "message", "message": "a", "session_id": "s" * 257}, "bad_frame", "session_id"),
        ({"type": "message", "message": "a", "ref": [1]}, "bad_frame", "$.ref"),
        ({"type": "message", "message": "a", "ref": True}, "bad_frame", "$.ref"),
        ({"type": "cancel"}, "bad_frame", "missing required field `run_id`"),
        ({"type": "cancel", "run_id": None}, "bad_frame", "$.run_id"),
        ({"type": "approve", "run_id": "r"}, "bad_frame", "`call_id`"),
        ({"type": "answer", "run_id": "r", "request_id": "q"}, "bad_frame", "`text`"),
        ({"type": "resume", "run_id": "r", "after": -2}, "bad_frame", "$.after"),
        ({"type": "resume", "run_id": "r", "after": "0"}, "bad_frame", "$.after"),
        ({"type": "resume", "run_id": "r"}, "bad_frame", "`after`"),
        *(
            ({"type": "message", "message": "m", key: dots}, "bad_frame", f"$.{key}")
            for key in ("run_id", "session_id")
            for dots in (".", "..")
        ),
        ('{"type": "message", "message": ' + "[" * 50 + "]" * 50 + "}", "bad_frame", "than 32"),
        ('  {"a": ' + "[" * 100_000, "bad_frame", "nested deeper than 32"),
        ('{"type": "resume", "run_id": "r", "after": ' + "9" * 300 + "}", "bad_frame", "$.after"),
        ('{"type": "resume", "after": ' + "9" * 5000 + "}", "bad_frame", "number out of range"),
        ('{"type": "x", "after": 1e999}', "bad_frame", "number out of range"),
    ],
)
def test_refusals(value: Any, code: str, words: str) -> None:
    with pytest.raises(BadFrame) as caught:
        decode(value)
    assert caught.value.code == code
    assert words in caught.value.error


@pytest.mark.parametrize(
    ("ref", "given_back"), [("a", "a"), (7, 7), (None, None), (True, None), ([], None), (1.5, None)]
)
def test_a_refusal_gives_the_ref_back(ref: Any, given_back: Any) -> None:
    for kind in ("dance", "cancel"):
        with pytest.raises(BadFrame) as caught:
            decode({"type": kind, "ref": ref})
        assert caught.value.ref == given_back
        assert type(caught.value.ref) is type(given_back)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    ["message", "run_id", "session_id", "mode", "ref", "reason", "call_id", "after", "text", "x"]
)
kinds = st.sampled_from(["message", "cancel", "cancel_tool", "approve", "answer", "resume", "no"])


@given(
    st.text()
    | json_values.map(json.dumps)
    | st.builds(
        lambda kind, rest: json.dumps({"type": kind, **rest}),
        kinds,
        st.dictionaries(keys, json_values | st.just("r"), max_size=4),
    )
)
def test_nothing_else_comes_out(text: str) -> None:
    command: Any = None
    error: BadFrame | None = None
    try:
        command = decode_command(text, DEPTH)
    except BadFrame as exc:
        error = exc
    if error is not None:
        assert error.code in ("bad_frame", "unknown_type")
        assert error.error
    else:
        assert command.type in ("message", "cancel", "cancel_tool", "approve", "answer", "resume")


# What the server sends


def events(count: int) -> list[AgentEvent]:
    return [
        AgentEvent(
            type=EventType.CUSTOM,
            data={"name": "n", "payload": "\u2028é"},
            seq=seq,
            run_id="r",
            agent="a",
            timestamp=0.5,
        )
        for seq in range(count)
    ]


def test_events_are_one_frame_each() -> None:
    texts = encode_events(events(2), is_batch=False)

    assert [json.loads(text) for text in texts] == [
        {
            "type": "custom",
            "data": {"name": "n", "payload": "\u2028é"},
            "seq": seq,
            "run_id": "r",
            "agent": "a",
            "timestamp": 0.5,
        }
        for seq in range(2)
    ]


def test_a_batch_is_one_frame() -> None:
    [text] = encode_events(events(3), is_batch=True)

    assert [event["seq"] for event in json.loads(text)] == [0, 1, 2]
    assert encode_events([], is_batch=True) == []


def test_a_large_batch_is_several_frames() -> None:
    large = events(1)[0]
    large = msgspec.structs.replace(large, data={"name": "n", "value": "x" * 70_000})
    many = [*events(1000), large, large]
    arrays = [json.loads(text) for text in encode_events(many, is_batch=True)]

    assert [event for array in arrays for event in array] == json.loads(msgspec.json.encode(many))
    assert all(len(json.dumps(array)) < 70_000 or len(array) == 1 for array in arrays)
    assert 4 < len(arrays) < 20


def test_replies() -> None:
    accepted = {"type": "accepted", "ref": 7, "run_id": "r"}
    assert json.loads(encode_accepted(7, "r")) == accepted
    assert json.loads(encode_accepted(7, "r", is_over=True)) == {**accepted, "is_over": True}
    assert json.loads(encode_rejected(None, "bad_frame", "no")) == {
        "type": "rejected",
        "ref": None,
        "code": "bad_frame",
        "error": "no",
    }


# Commands that came as requests


@pytest.mark.parametrize("body", [b'{"reason": "enough"}', {"reason": "enough"}])
def test_a_request_is_the_command_of_its_address_and_body(body: Any) -> None:
    assert decode_request("cancel", body, DEPTH, run_id="r1") == CancelCommand(
        type="cancel", run_id="r1", reason="enough"
    )


def test_a_request_without_a_body_is_the_command_of_its_address() -> None:
    expected = CancelCommand(type="cancel", run_id="r1")
    assert decode_request("cancel", b"", DEPTH, run_id="r1") == expected


@pytest.mark.parametrize("body", [b"{", b"[1]", b"7", b"\xff", b'{"a":' * 40 + b"1" + b"}" * 40])
def test_a_request_whose_body_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadFrame, match="expected a JSON object in the request's body"):
        decode_request("cancel", body, DEPTH, run_id="r1")


@pytest.mark.parametrize("key", ["type", "run_id"])
def test_a_body_may_not_say_what_the_address_says(key: str) -> None:
    with pytest.raises(BadFrame, match=f"the address has {key}, the body may not"):
        decode_request("cancel", {key: "other"}, DEPTH, run_id="r1")


def test_a_request_of_an_unknown_type_is_refused() -> None:
    with pytest.raises(BadFrame, match="unknown type"):
        decode_request("explode", b"{}", DEPTH)


# Requests of their own


@pytest.mark.parametrize(
    ("type_", "body", "keys", "command"),
    [
        ("message", {"message": "hi"}, {}, MessageCommand(type="message", message="hi")),
        ("cancel", b"", {"run_id": "r"}, CancelCommand(type="cancel", run_id="r")),
        (
            "approve",
            b'{"call_id": "c1"}',
            {"run_id": "r"},
            ApproveCommand(type="approve", run_id="r", call_id="c1"),
        ),
    ],
)
def test_a_request_is_a_command(type_: str, body: Any, keys: Any, command: Any) -> None:
    assert decode_request(type_, body, DEPTH, **keys) == command


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"nonsense", "expected a JSON object in the request's body"),
        (b"[1]", "expected a JSON object in the request's body"),
        (b'{"reason": ' + b"[" * 50 + b"]" * 50 + b"}", "expected a JSON object"),
        (b'{"type": "x", "run_id": "s"}', "the address has run_id, type, the body may not"),
    ],
)
def test_a_request_that_is_none_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(BadFrame) as caught:
        decode_request("cancel", body, DEPTH, run_id="r")

    assert caught.value.code == "bad_frame"
    assert words in caught.value.error
