"""What each provider's request has of text, images and files; and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowtrio import File, Image, ProviderError, Text
from flowtrio._core._history import read_history
from flowtrio._core._parts import read_message, to_content
from flowtrio.wire import (
    _anthropic_requests,
    _gemini,
    _ollama,
    _openai_chat_requests,
    _openai_input,
)
from flowtrio.wire._media import with_media_behind
from flowtrio.wire._openai_chat_media import DASHSCOPE

Body = dict[str, Any]


def _chat(messages: list[Body], **options: Any) -> list[Any]:
    body = _openai_chat_requests.encode_request("m", messages, None, {}, stream=True, **options)
    return list(body["messages"])


def _responses(messages: list[Body]) -> list[Any]:
    return list(_openai_input.encode_request("m", messages, None, {}, stream=True)["input"])


def _anthropic(messages: list[Body]) -> list[Any]:
    body = _anthropic_requests.encode_request("m", messages, None, {}, stream=True)
    return list(body["messages"])


def _google(messages: list[Body]) -> list[Any]:
    return list(_gemini.encode_request(messages, None, {})["contents"])


def _local(messages: list[Body]) -> list[Any]:
    return list(_ollama.encode_request("m", messages, None, {}, stream=True)["messages"])


HOSTS: Final[dict[str, Callable[[list[Body]], list[Any]]]] = {
    "openai": _chat,
    "responses": _responses,
    "anthropic": _anthropic,
    "gemini": _google,
    "ollama": _local,
    "dashscope": partial(_chat, media=DASHSCOPE),
}

PNG: Final = "iVBORw0KGgo="
PDF: Final = "JVBERi0xLjcK"
HELLO: Final = "aGVsbG8="

PARTS: Final[dict[str, Any]] = {
    "image": Image(data=b"\x89PNG\r\n\x1a\n", name="a.png"),
    "image at": Image(url="https://example.org/a.png"),
    "image somewhere": Image(url="https://example.org/a"),
    "heic": Image(data=b"hello", media_type="image/heic"),
    "pdf": File(data=b"%PDF-1.7\n", name="b.pdf"),
    "pdf at": File(url="https://example.org/b.pdf"),
    "text": File(data=b"hello", media_type="text/markdown"),
    "text at": File(url="https://example.org/c.txt"),
    "json": File(data=b"hello", name="c.json"),
    "wav": File(data=b"RIFF....WAVE"),
    "mp3": File(data=b"ID3", name="d.mp3"),
    "ogg": File(data=b"OggS"),
    "mp3 at": File(url="https://example.org/d.mp3"),
    "video": File(data=b"hello", name="e.mp4"),
    "docx": File(data=b"hello", name="f.docx"),
}
WORD: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"

REFUSED: Final = "refused"


def _url(url: str) -> Body:
    return {"type": "image_url", "image_url": {"url": url}}


def _seen(url: str) -> Body:
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def _file(name: str, url: str) -> Body:
    return {"type": "file", "file": {"filename": name, "file_data": url}}


def _given(name: str, url: str) -> Body:
    return {"type": "input_file", "filename": name, "file_data": url}


def _sound(data: str, format: str) -> Body:
    return {"type": "input_audio", "input_audio": {"data": data, "format": format}}


def _held(kind: str, media_type: str, data: str, **more: str) -> Body:
    source = {"type": "base64", "media_type": media_type, "data": data}
    return {"type": kind, "source": source, **more}


def _at(kind: str, url: str) -> Body:
    return {"type": kind, "source": {"type": "url", "url": url}}


def _read(data: str, **more: str) -> Body:
    source = {"type": "text", "media_type": "text/plain", "data": data}
    return {"type": "document", "source": source, **more}


def _inline(media_type: str, data: str) -> Body:
    return {"inlineData": {"mimeType": media_type, "data": data}}


def _remote(url: str, **more: str) -> Body:
    return {"fileData": {**more, "fileUri": url}}


PNG_URL: Final = f"data:image/png;base64,{PNG}"
PDF_URL: Final = f"data:application/pdf;base64,{PDF}"
A, AT, B, C, D = (
    f"https://example.org/{name}" for name in ("a.png", "a", "b.pdf", "c.txt", "d.mp3")
)
WAV: Final = "UklGRi4uLi5XQVZF"
MP3: Final = "SUQz"

EXPECTED: Final[dict[str, dict[str, Any]]] = {
    "openai": {
        "image": _url(PNG_URL),
        "image at": _url(A),
        "image somewhere": _url(AT),
        "heic": _url(f"data:image/heic;base64,{HELLO}"),
        "pdf": _file("b.pdf", PDF_URL),
        "pdf at": REFUSED,
        "text": _file("file", f"data:text/markdown;base64,{HELLO}"),
        "text at": REFUSED,
        "json": _file("c.json", f"data:application/json;base64,{HELLO}"),
        "wav": _sound(WAV, "wav"),
        "mp3": _sound(MP3, "mp3"),
        "ogg": REFUSED,
        "mp3 at": REFUSED,
        "video": REFUSED,
        "docx": _file("f.docx", f"data:{WORD};base64,{HELLO}"),
    },
    "responses": {
        "image": _seen(PNG_URL),
        "image at": _seen(A),
        "image somewhere": _seen(AT),
        "heic": _seen(f"data:image/heic;base64,{HELLO}"),
        "pdf": _given("b.pdf", PDF_URL),
        "pdf at": {"type": "input_file", "file_url": B},
        "text": _given("file", f"data:text/markdown;base64,{HELLO}"),
        "text at": {"type": "input_file", "file_url": C},
        "json": _given("c.json", f"data:application/json;base64,{HELLO}"),
        "wav": REFUSED,
        "mp3": REFUSED,
        "ogg": REFUSED,
        "mp3 at": REFUSED,
        "video": REFUSED,
        "docx": _given("f.docx", f"data:{WORD};base64,{HELLO}"),
    },
    "anthropic": {
        "image": _held("image", "image/png", PNG),
        "image at": _at("image", A),
        "image somewhere": _at("image", AT),
        "heic": REFUSED,
        "pdf": _held("document", "application/pdf", PDF, title="b.pdf"),
        "pdf at": _at("document", B),
        "text": _read("hello"),
        "text at": REFUSED,
        "json": _read("hello", title="c.json"),
        "wav": REFUSED,
        "mp3": REFUSED,
        "ogg": REFUSED,
        "mp3 at": REFUSED,
        "video": REFUSED,
        "docx": REFUSED,
    },
    "gemini": {
        "image": _inline("image/png", PNG),
        "image at": _remote(A, mimeType="image/png"),
        "image somewhere": _remote(AT),
        "heic": _inline("image/heic", HELLO),
        "pdf": _inline("application/pdf", PDF),
        "pdf at": _remote(B, mimeType="application/pdf"),
        "text": _inline("text/markdown", HELLO),
        "text at": _remote(C, mimeType="text/plain"),
        "json": _inline("application/json", HELLO),
        "wav": _inline("audio/wav", WAV),
        "mp3": _inline("audio/mpeg", MP3),
        "ogg": _inline("audio/ogg", "T2dnUw=="),
        "mp3 at": _remote(D, mimeType="audio/mpeg"),
        "video": _inline("video/mp4", HELLO),
        "docx": _inline(WORD, HELLO),
    },
    "ollama": {
        "image": PNG,
        "heic": HELLO,
        **dict.fromkeys(PARTS.keys() - {"image", "heic"}, REFUSED),
    },
    "dashscope": {
        "image": _url(PNG_URL),
        "image at": _url(A),
        "image somewhere": _url(AT),
        "heic": _url(f"data:image/heic;base64,{HELLO}"),
        "wav": _sound(f"data:;base64,{WAV}", "wav"),
        "mp3": _sound(f"data:;base64,{MP3}", "mp3"),
        **dict.fromkeys(
            ("pdf", "pdf at", "text", "text at", "json", "ogg", "mp3 at", "video", "docx"), REFUSED
        ),
    },
}

KEYS: Final = {"gemini": "parts", "ollama": "images"}
"""Where a host has a message's parts, other than in its content."""


def _encoded(host: str, content: Any) -> Any:
    [message] = HOSTS[host](read_history([{"role": "user", "content": content}]))
    return message[KEYS.get(host, "content")]


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("host", HOSTS)
def test_each_host_gets_a_part_in_its_own_form_or_it_is_refused(host: str, name: str) -> None:
    expected = EXPECTED[host][name]
    content = read_message([Text("What is it?"), PARTS[name]]).content

    if expected is REFUSED:
        with pytest.raises(ProviderError, match="takes no") as caught:
            _encoded(host, content)
        assert caught.value.code == "unsupported_part"
        assert not caught.value.retryable
    else:
        assert _encoded(host, content)[-1] == expected


@pytest.mark.parametrize("host", HOSTS)
def test_nothing_of_our_own_is_sent(host: str) -> None:
    names = [name for name, expected in EXPECTED[host].items() if expected is not REFUSED]
    body = json.dumps(_encoded(host, to_content([PARTS[name] for name in names])))

    assert "flowtrio" not in body


@attrs.frozen
class _Wrong:
    part: Body
    words: str


BROKEN: Final = {
    "data": _Wrong(_url("data:image/png,abc"), "expected data:"),
    "inside": _Wrong({"type": "file", "file": {"filename": 3}}, "no content part of type 'file'"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("host", ["anthropic", "gemini", "ollama"])
def test_a_part_that_is_none_is_refused_by_who_has_to_read_it(host: str, name: str) -> None:
    wrong = BROKEN[name]
    with pytest.raises(ProviderError, match=wrong.words):
        _encoded(host, [wrong.part])


@pytest.mark.parametrize("host", ["openai", "responses", "dashscope"])
def test_what_a_provider_keeps_is_named_to_it(host: str) -> None:
    [part] = _encoded(host, [{"type": "file", "file": {"file_id": "f1"}}])

    assert part in (
        {"type": "file", "file": {"file_id": "f1"}},
        {"type": "input_file", "file_id": "f1"},
    )


def test_base64_that_says_no_type_has_that_of_its_name() -> None:
    for name, media_type in (("b.pdf", "application/pdf"), ("b", "application/octet-stream")):
        file = {"type": "file", "file": {"filename": name, "file_data": PDF}}

        assert _encoded("gemini", [file]) == [_inline(media_type, PDF)]
        assert _encoded("openai", [file]) == [_file(name, f"data:{media_type};base64,{PDF}")]


def test_a_file_that_is_an_image_is_one_for_every_host() -> None:
    file = {"type": "file", "file": {"file_data": PNG_URL}}

    assert _encoded("openai", [file]) == [_url(PNG_URL)]
    assert _encoded("responses", [file]) == [_seen(PNG_URL)]
    assert _encoded("anthropic", [file]) == [_held("image", "image/png", PNG)]
    assert _encoded("ollama", [file]) == [PNG]


def test_a_sound_in_openais_own_shape_reaches_gemini_too() -> None:
    assert _encoded("gemini", [_sound(WAV, "wav")]) == [_inline("audio/wav", WAV)]
    assert _encoded("openai", [_sound(WAV, "wav")]) == [_sound(WAV, "wav")]


# What was said before


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("host", HOSTS)
def test_what_a_host_does_not_take_spoils_no_later_turn(host: str, name: str) -> None:
    content = read_message([Text("What is it?"), PARTS[name]]).content
    told = [{"role": "user", "content": content}, {"role": "assistant", "content": "a thing"}]
    encoded = HOSTS[host](read_history([*told, {"role": "user", "content": "and now?"}]))

    assert len(encoded) == 3
    is_noted = "cannot be shown here" in json.dumps(encoded)
    assert is_noted == (EXPECTED[host][name] is REFUSED)


@pytest.mark.parametrize("host", HOSTS)
def test_what_a_tool_shows_and_a_host_does_not_take_is_told_to_the_model(host: str) -> None:
    video = to_content([PARTS["video"]])
    talk = [{"role": "user", "content": "Look!"}, _calls("c1"), _result("c1", video)]
    encoded = json.dumps(HOSTS[host](read_history(talk)))

    assert ("(file video/mp4 e.mp4: cannot be shown here)" in encoded) == (host != "gemini")


def test_a_note_says_what_is_known() -> None:
    odd = [{"type": "video_url"}, _url("data:image/png,x"), "odd"]
    told = [{"role": "user", "content": odd}, {"role": "user", "content": "and now?"}]
    encoded = HOSTS["anthropic"](told)

    assert json.dumps(encoded).count("(something: cannot be shown here)") == 2


# What tools show

SEEN: Final = [{"type": "text", "text": "page 1"}, {**_url(PNG_URL), "flowtrio": {"name": "a.png"}}]


def _calls(*ids: str) -> Body:
    function = {"name": "look", "arguments": "{}"}
    calls = [{"id": id, "type": "function", "function": function} for id in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _result(id: str, content: Any) -> Body:
    return {"role": "tool", "tool_call_id": id, "content": content}


TALK: Final = [
    {"role": "user", "content": "Look!"},
    _calls("c1", "c2"),
    _result("c1", SEEN),
    _result("c2", "nothing"),
]
BEHIND: Final = "What the tools showed, in this order:"


def _after(host: str, messages: Sequence[Body] = TALK) -> list[Any]:
    return HOSTS[host](read_history(messages))[2:]


@pytest.mark.parametrize("host", ["openai", "dashscope"])
def test_where_a_result_is_text_its_image_stands_behind_the_results(host: str) -> None:
    assert _after(host) == [
        _result("c1", "page 1\n(shown below, number 1)"),
        _result("c2", "nothing"),
        {"role": "user", "content": [{"type": "text", "text": BEHIND}, _url(PNG_URL)]},
    ]


def test_for_ollama_too() -> None:
    assert _after("ollama") == [
        {"role": "tool", "tool_name": "look", "content": "page 1\n(shown below, number 1)"},
        {"role": "tool", "tool_name": "look", "content": "nothing"},
        {"role": "user", "content": BEHIND, "images": [PNG]},
    ]


def test_for_gemini_in_a_content_of_its_own() -> None:
    def response(text: str) -> Body:
        return {"functionResponse": {"name": "look", "response": {"result": text}}}

    assert _after("gemini") == [
        {
            "role": "user",
            "parts": [response("page 1\n(shown below, number 1)"), response("nothing")],
        },
        {"role": "user", "parts": [{"text": BEHIND}, _inline("image/png", PNG)]},
    ]


def test_anthropic_and_responses_have_images_in_results() -> None:
    assert _after("anthropic") == [
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "c1",
                    "content": [
                        {"type": "text", "text": "page 1"},
                        _held("image", "image/png", PNG),
                    ],
                },
                {"type": "tool_result", "tool_use_id": "c2", "content": "nothing"},
            ],
        }
    ]
    assert _after("responses")[1] == {
        "type": "function_call_output",
        "call_id": "c1",
        "output": [{"type": "input_text", "text": "page 1"}, _seen(PNG_URL)],
    }


def test_what_was_shown_stands_before_what_is_said_next() -> None:
    messages = read_history([*TALK, {"role": "assistant", "content": "I see."}])

    assert [m["role"] for m in with_media_behind(messages)] == [
        *("user", "assistant", "tool", "tool", "user", "assistant"),
    ]


TEXTS: Final = st.text(min_size=1)
TALKS: Final = st.lists(
    st.one_of(
        st.builds(lambda text: [{"role": "user", "content": text}], TEXTS),
        st.builds(
            lambda text: [{"role": "user", "content": [{"type": "text", "text": text}]}], TEXTS
        ),
        st.builds(
            lambda text: [{"role": "assistant", "content": text}, {"role": "user", "content": "a"}],
            TEXTS,
        ),
        st.builds(lambda text: [_calls("c"), _result("c", text)], TEXTS),
    )
).map(lambda turns: [message for turn in turns for message in turn])


@given(TALKS)
def test_a_conversation_of_text_goes_out_as_it_is(talk: list[Body]) -> None:
    told = with_media_behind(talk)

    assert all(one is other for one, other in zip(told, talk, strict=True))


@given(TEXTS)
def test_one_text_alone_is_sent_as_a_text(text: str) -> None:
    plain = [{"role": "user", "content": read_message(text).content}]
    part = [{"role": "user", "content": read_message([Text(text)]).content}]

    for encode in HOSTS.values():
        assert json.dumps(encode(plain)) == json.dumps(encode(part))
