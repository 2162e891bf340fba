"""What a client asks of chat completions, read from its request.

The client holds the conversation: what users and assistants said is taken from it; what it says as
a system, a developer or a tool is taken only where the server's operator wants that, since an agent
has instructions of its own, and results of tools are what models believe most. Results of calls
that wait for the client are no such thing: they answer the very run that made the calls.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from flowtrio._agents._client_tool import ClientTool
from flowtrio._agents._tools import Tool
from flowtrio._core._history import read_history
from flowtrio._core._limits import ServerLimits
from flowtrio._core._parts import UserMessage
from flowtrio.serving._access import Refused

from ._parts import read_content, text_of, unfit

SETTINGS: Final = frozenset(
    {
        *("temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "seed"),
        *("max_tokens", "max_completion_tokens", "stop", "tool_choice", "parallel_tool_calls"),
        *("reasoning_effort", "verbosity", "response_format", "service_tier", "user"),
    }
)
"""Fields of a request that can be given to the agent's model."""
ROLES: Final = ("user", "assistant", "system", "developer", "tool")
_DEPRECATED: Final = ("functions", "function_call")


def _as_set(given: Iterable[str] | str) -> frozenset[str]:
    if isinstance(given, str):
        raise TypeError(f"expected a list of names, got the text {given!r}")
    return frozenset(given)


def _among(known: Iterable[str]) -> Any:
    def check(instance: object, attribute: attrs.Attribute[Any], value: frozenset[str]) -> None:
        if strange := sorted(value - frozenset(known)):
            words = ", ".join(sorted(known))
            raise ValueError(f"{attribute.name}: unknown {', '.join(strange)}; expected {words}")

    return check


@attrs.frozen(kw_only=True)
class Options:
    """What the server's operator has chosen; see `flowtrio.protocols.OpenAIProtocol`."""

    roles: frozenset[str] = attrs.field(
        default=frozenset({"user", "assistant"}), converter=_as_set, validator=_among(ROLES)
    )
    settings: frozenset[str] = attrs.field(
        default=frozenset(), converter=_as_set, validator=_among(SETTINGS)
    )
    approvals: bool = False
    hold: bool = False
    show_tools: bool = True


@attrs.frozen(kw_only=True)
class Request:
    """A request for an answer, at either of the addresses."""

    model: str
    is_streamed: bool
    message: UserMessage | None
    """What the user says; None where calls are answered."""
    history: Sequence[dict[str, Any]] = ()
    answers: Mapping[str, str] = attrs.Factory(dict)
    """Results of calls that wait for the client, by the ids that it was told."""
    tools: Sequence[Tool[..., Any]] = ()
    settings: Mapping[str, Any] = attrs.Factory(dict)


@attrs.frozen(kw_only=True)
class ChatRequest(Request):
    """A request for a chat completion."""

    shows_usage: bool


def read_chat(
    body: Mapping[str, Any],
    limits: ServerLimits,
    *,
    roles: frozenset[str] = frozenset({"user", "assistant"}),
    settings: frozenset[str] = frozenset(),
) -> ChatRequest:
    """Read a request; `Refused` where it cannot be, or asks for what cannot be done.

    The messages of *roles* are taken, and the fields among *settings*; others are left out.
    """
    _check_possible(body, settings)
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise unfit("messages", "expected a list of messages")
    for place, message in enumerate(messages):
        if message.get("role") not in ROLES:
            raise unfit(f"messages[{place}].role", f"expected one of {', '.join(ROLES)}")
    options = body.get("stream_options")
    shows_usage = isinstance(options, dict) and options.get("include_usage") is True
    *before, last = messages or [{}]
    given: dict[str, Any] = {}
    if last.get("role") == "tool":
        given = {"message": None, "answers": _read_answers(messages)}
    elif last.get("role") == "user":
        where = f"messages[{len(before)}].content"
        message = read_content(last.get("content"), limits, where)
        if not message.text.strip() and not message.media:
            raise unfit(where, "expected a text that is not empty, or an image")
        given = {"message": message, "history": _read_history(before, limits, roles)}
    else:
        raise unfit("messages", "expected the last one to be a user's, or the result of a call")
    return ChatRequest(
        model=read_model(body),
        is_streamed=body.get("stream") is True,
        shows_usage=shows_usage,
        tools=() if body.get("tool_choice") == "none" else read_tools(body.get("tools")),
        settings=chosen(body, settings),
        **given,
    )


def read_model(body: Mapping[str, Any]) -> str:
    """The name of the agent that is asked for."""
    model = body.get("model")
    if not isinstance(model, str):
        raise unfit("model", "expected the name of an agent", "missing_required_parameter")
    return model


def check_model(name: str, agents: Collection[str]) -> None:
    """Refuse the name of an agent that there is not."""
    if name not in agents:
        words = f"there is no agent of this name; expected {', '.join(agents)}"
        raise Refused(404, words, "model_not_found")


def chosen(body: Mapping[str, Any], settings: frozenset[str]) -> dict[str, Any]:
    """The fields among *settings* that a request has."""
    given = {key: body[key] for key in sorted(settings) if body.get(key) is not None}
    if given.get("tool_choice") in ("auto", "none"):
        del given["tool_choice"]
    return given


def check_choice(body: Mapping[str, Any], settings: frozenset[str]) -> None:
    """Refuse a choice among the tools that nobody would make."""
    if body.get("tool_choice") not in (None, "auto", "none") and "tool_choice" not in settings:
        raise unfit("tool_choice", "expected auto or none here", "unsupported_parameter")


def _check_possible(body: Mapping[str, Any], settings: frozenset[str]) -> None:
    """Refuse what would make another answer of it, rather than leave it out in silence."""
    formats = body.get("response_format")
    is_text = not isinstance(formats, dict) or formats.get("type") == "text"
    impossible = {
        "n": body.get("n") not in (None, 1),
        "logprobs": body.get("logprobs") not in (None, False),
        "modalities": body.get("modalities") not in (None, ["text"]),
        "response_format": not is_text and "response_format" not in settings,
        "stop": bool(body.get("stop")) and "stop" not in settings,
        **{key: bool(body.get(key)) for key in _DEPRECATED},
    }
    for key, is_impossible in impossible.items():
        if is_impossible:
            raise unfit(key, "this is not possible here", "unsupported_parameter")
    check_choice(body, settings)


def _read_answers(messages: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The results behind the last reply, by the ids of their calls."""
    answers: dict[str, str] = {}
    for place in reversed(range(len(messages))):
        message, where = messages[place], f"messages[{place}]"
        if message["role"] != "tool":
            break
        call_id = message.get("tool_call_id")
        if not isinstance(call_id, str):
            raise unfit(f"{where}.tool_call_id", "expected a text")
        answers[call_id] = text_of(message.get("content"), f"{where}.content")
    return dict(reversed(answers.items()))


def _read_history(
    messages: Sequence[Mapping[str, Any]], limits: ServerLimits, roles: frozenset[str]
) -> list[dict[str, Any]]:
    """What was said before, as far as it is taken."""
    taken = []
    for place, message in enumerate(messages):
        role, where = message["role"], f"messages[{place}].content"
        if role not in roles:
            continue
        told: dict[str, Any] = {"role": role}
        if role == "user":
            told["content"] = read_content(message.get("content"), limits, where).content
        else:
            told["content"] = text_of(message.get("content"), where)
        # Calls whose results are left out are no calls of anybody's.
        if "tool" in roles:
            told.update({k: message[k] for k in ("tool_calls", "tool_call_id") if message.get(k)})
        if told["content"] or role == "tool" or "tool_calls" in told:
            taken.append(told)
    return fit(taken)


def fit(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A conversation that a client brought, checked; `Refused` if it is none."""
    try:
        return read_history(messages, "messages")
    except (TypeError, ValueError) as exc:
        raise unfit("messages", str(exc).removeprefix("messages: ")) from None


# Tools of the client's


def read_tools(given: Any) -> list[Tool[..., Any]]:
    """Tools that the client runs; `Refused` if something in *given* is none."""
    if given is None:
        return []
    if not isinstance(given, list):
        raise unfit("tools", "expected a list of functions")
    tools = [_read_tool(tool, f"tools[{place}]") for place, tool in enumerate(given)]
    names = [tool.name for tool in tools]
    if len(set(names)) < len(names):
        raise unfit("tools", "two functions have the same name")
    return tools


def _read_tool(given: Any, where: str) -> Tool[..., Any]:
    is_function = isinstance(given, dict) and given.get("type") == "function"
    function = given.get("function", given) if is_function else None
    if not isinstance(function, dict):
        raise unfit(where, "expected a function; tools of other kinds are not possible here")
    name = function.get("name")
    described = function.get("description") or f"The client's {name}."
    try:
        return ClientTool(name, described, function.get("parameters") or _NOTHING)  # type: ignore[arg-type]
    except (TypeError, ValueError) as exc:
        raise unfit(where, str(exc)) from None
    except ImportError:
        raise unfit(where, "not possible here: the server has no jsonschema") from None


_NOTHING: Final[dict[str, Any]] = {"type": "object", "properties": {}}
