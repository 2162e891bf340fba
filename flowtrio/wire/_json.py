"""Strict JSON from models: what they send is data, and may be hostile."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec

from flowtrio._core._values import clean_text

MAX_DEPTH = 128


class NestedTooDeeply(ValueError):
    """JSON of more levels than its reader wants to follow."""


def decode_json(data: bytes | str) -> Any:
    """Decode one JSON value by RFC 8259; lone surrogates become U+FFFD.

    Raises:
      ValueError: it is not JSON, has a number out of range, or is nested deeper than 128
        (`NestedTooDeeply`).

    """
    try:
        value = msgspec.json.decode(data)
    except RecursionError:
        raise NestedTooDeeply("nested too deeply") from None
    except ValueError:
        # Escapes of lone surrogates are well-formed JSON that msgspec refuses.
        value = _decode_slowly(data)
    check_depth(value)
    return value


def read_json(data: bytes) -> Any:
    """Decode what a model's host sent, as far as it can be read.

    Bytes that are no UTF-8 become U+FFFD; halves of surrogate pairs stay, since the other half may
    stand in the next fragment. Line ends may stand in texts, and numbers may be none, as servers
    write the logarithm of a probability of zero: who needs a number has to look.

    Raises:
      ValueError: it is not JSON, has a number out of range, or is nested deeper than 128.

    """
    return _load(_read_text(data), strict=False)


def _read_text(data: bytes) -> str:
    try:
        # Some write the halves of a pair as if each were a character.
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")


def is_json_object(text: str) -> bool:
    """Whether a text is a JSON object by its grammar, be its numbers larger than we can take."""
    if not text.lstrip().startswith("{"):
        return False
    try:
        # Numbers are not looked at: converting them takes longer than their length.
        json.loads(text, parse_int=len, parse_float=len, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def decode_arguments(text: str) -> dict[str, Any] | None:
    """Decode a tool call's arguments: an object, ``{}`` for empty text, None for anything else."""
    if not text.strip():
        return {}
    try:
        value = decode_json(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def encode_json(value: Any) -> bytes:
    """Encode a JSON value; lone surrogates become U+FFFD. What has no such form: `TypeError`."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(clean_json(msgspec.to_builtins(value, str_keys=True)))


def check_depth(value: Any, max_depth: int = MAX_DEPTH) -> None:
    """Refuse what is nested deeper than readers may take, by `NestedTooDeeply`."""
    level = [value]
    for _ in range(max_depth):
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise NestedTooDeeply(f"nested deeper than {max_depth}")


def _decode_slowly(data: bytes | str) -> Any:
    text = data if isinstance(data, str) else data.decode("utf-8")
    if "\\u" not in text:
        raise ValueError("not JSON")
    return clean_json(_load(text, parse_constant=_refuse))


def _load(text: str, **how: Any) -> Any:
    try:
        value = json.loads(text, parse_float=_float, **how)
    except RecursionError:
        raise NestedTooDeeply("nested too deeply") from None
    check_depth(value)
    return value


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("number out of range")
    return number


def clean_json(value: Any) -> Any:
    """Join or replace what JSON cannot carry: halves of characters, and numbers that are none."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list | tuple):
        return [clean_json(item) for item in value]
    if isinstance(value, dict):
        return {clean_text(key): clean_json(item) for key, item in value.items()}
    return value
