"""What one sees of a cluster who asks its store, and nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import trio

_WITHIN: Final = 1.0
"""Seconds without an answer after which a store counts as away."""
_LAPSED: Final = """
local found = {}
for _, W in ipairs(redis.call('SMEMBERS', KEYS[1] .. 'ws')) do
  if redis.call('EXISTS', KEYS[1] .. 'w:' .. W) == 0 then
    for _, R in ipairs(redis.call('SMEMBERS', KEYS[1] .. 'o:' .. W)) do table.insert(found, R) end
  end
end
return table.concat(found, ' ')
"""
"""Runs without an end whose owner has no lease."""


async def lapsed_runs(socket: Path, prefix: str) -> list[str] | None:
    """Runs that nobody runs any more and nobody has ended yet; None where there is no store."""
    command = "".join(f"${len(word)}\r\n{word}\r\n" for word in ("EVAL", _LAPSED, "1", prefix))
    told = b""
    with trio.move_on_after(_WITHIN):
        try:
            async with await trio.open_unix_socket(str(socket)) as stream:
                await stream.send_all(f"*4\r\n{command}".encode())
                while told.count(b"\r\n") < 2 and not told.startswith(b"-"):
                    if not (more := await stream.receive_some(65536)):
                        break
                    told += more
        except (OSError, trio.BrokenResourceError):
            return None
    if not told.startswith(b"$"):
        return None
    return told.split(b"\r\n")[1].decode().split()
