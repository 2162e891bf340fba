"""Tokens with their tenants, from a file."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import stat
from pathlib import Path
from typing import Final

import attrs

from flowtrio.abc import Caller, NotAuthenticated, Request
from flowtrio.serving._access import token_of

logger: logging.Logger = logging.getLogger("flowtrio")

_HASHED: Final = "sha256:"
_DIGEST: Final = re.compile(rf"{_HASHED}([0-9a-fA-F]{{64}})")
_EXPECTED: Final = "expected a token, its tenant, and maybe 'operator'"


@attrs.frozen
class TokenFile:
    """An ``authenticate`` that knows the tokens of a file, each with its tenant.

    A line is a token, white space, and the tenant it belongs to; the word ``operator`` behind them
    says that it may see the runs of all tenants. Lines that are empty or begin with ``#`` mean
    nothing. Instead of a token its hash may stand there: ``sha256:`` and 64 hexadecimal digits. The
    file is read once.

    Raises:
      ValueError: a line cannot be read, or a token stands there twice; told by its number.
      OSError: the file cannot be read.

    """

    path: str | os.PathLike[str]
    """The file."""
    _callers: dict[bytes, Caller] = attrs.field(init=False, repr=False)
    """By the hash of a token: nothing of the token itself could be learnt by how long it takes."""

    def __attrs_post_init__(self) -> None:
        text = Path(self.path).read_text(encoding="utf-8")
        self._warn_of_readers()
        object.__setattr__(self, "_callers", read_tokens(text))

    def __call__(self, request: Request) -> Caller:
        """See `flowtrio.abc.Authenticate`."""
        digest = _digest(token_of(request) or "")
        for known, caller in self._callers.items():
            if hmac.compare_digest(known, digest):
                return caller
        raise NotAuthenticated("a token is needed, and the one given is missing or wrong")

    def _warn_of_readers(self) -> None:
        mode = Path(self.path).stat().st_mode
        if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            words = "the tokens in %s can be read by others on this machine (mode %s): chmod 600"
            logger.warning(words, os.fspath(self.path), oct(stat.S_IMODE(mode))[2:])


def read_tokens(text: str) -> dict[bytes, Caller]:
    """Whose the tokens of a file are, by their hashes.

    Raises:
      ValueError: a line cannot be read, or a token stands there twice.

    """
    found: dict[bytes, Caller] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) not in (2, 3) or words[2:] not in ([], ["operator"]):
            raise ValueError(f"line {number}: {_EXPECTED}")
        token, tenant = words[:2]
        if not token.isascii():
            raise ValueError(f"line {number}: expected a token in ASCII")
        match = _DIGEST.fullmatch(token)
        if match is None and token.startswith(_HASHED):
            # As a token it would let in who has read this file, and nobody else.
            raise ValueError(f"line {number}: expected {_HASHED} and 64 hexadecimal digits")
        digest = bytes.fromhex(match[1]) if match else _digest(token)
        if digest in found:
            raise ValueError(f"line {number}: its token stands there twice")
        found[digest] = Caller(tenant, is_operator=len(words) == 3)
    if not found:
        raise ValueError("no token stands there")
    return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
