"""What is done on the server, each step a script that happens at once.

The first key is the prefix of all keys; which others a script uses follows from what it finds, so
this is for one server and not for a cluster of shards. ``R`` is a run (``run_id|tenant``), ``T`` a
tenant, ``S`` a conversation, ``W`` a process::

    h:R     hash    hd: header as JSON  rq: parts and what was asked, until the end
                    last: newest event  own: owner  end: when it ended  st: how  T, S
                    no: its number      enq: 1 if enqueued  told: 1 if its turn is in c:S
                    by: the call that made it   did: the call that changed it last
    e:R     stream  batches of events as JSON, each under ``<its last event + 1>-0``
    q       list    runs that may be claimed
    wait    zset    runs that wait, by since when (ms of the server)
    line:S  list    a conversation's runs without an end, the first one first
    live    set     runs without an end    live:T  set  those of a tenant
    all t:T s:S     zsets   runs by number    ended  zset  runs by their end
    w:W     string  a lease, which expires     ws: set of those who had one    o:W: set, owned runs
    claims  hash    W: the call by which it claimed last, and what
    c:S     string  a conversation as JSON      d:T     hash    name:session, what is told of it

Channels: ``n:R`` news of a run, ``x:NAME`` whatever processes tell each other.

A call that changes something has a name of its own. The same call again, after a connection was
lost, has happened already, and says what it said. Every script has a shebang, so that a server
without memory refuses it before its first write; those that store ends, turns and leases are let
through even then.
"""

from __future__ import annotations

import hashlib
from typing import Final

import attrs


@attrs.frozen
class Script:
    """A named text in Lua."""

    name: str
    text: str = attrs.field(repr=False)
    sha: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


_COMMON: Final = """
local P = KEYS[1]
local call = redis.call

local function now()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function offer(R)
  call('RPUSH', P .. 'q', R)
  call('PUBLISH', P .. 'x:work', '')
end

-- Out of every line: R has ended, or is forgotten.
local function withdraw(R, S)
  if call('ZREM', P .. 'wait', R) == 1 then call('LREM', P .. 'q', 0, R) end
  if S == '' then return end
  local line = P .. 'line:' .. S
  local first = call('LINDEX', line, 0)
  if call('LREM', line, 1, R) == 1 and first == R then
    local next = call('LINDEX', line, 0)
    if next and call('HGET', P .. 'h:' .. next, 'own') == '' then offer(next) end
  end
end

local function append(R, after, count, batch)
  local last = after + count
  call('XADD', P .. 'e:' .. R, string.format('%d-0', last + 1), 'b', batch)
  call('HSET', P .. 'h:' .. R, 'last', last)
end

local function finish(R, own, ended, status)
  local h = P .. 'h:' .. R
  local keys = call('HMGET', h, 'T', 'S', 'enq')
  call('HSET', h, 'end', ended, 'st', status)
  call('HDEL', h, 'rq')
  call('SREM', P .. 'live:' .. keys[1], R)
  call('SREM', P .. 'live', R)
  call('SREM', P .. 'o:' .. own, R)
  call('ZADD', P .. 'ended', ended, R)
  withdraw(R, keys[3] == '1' and keys[2] or '')
end

local function renew(W, ttl)
  call('SADD', P .. 'ws', W)
  return call('SET', P .. 'w:' .. W, '1', 'PX', ttl, 'GET') and 1 or 0
end

local function create(R, hd, rq, own, T, S, index, told, enq, by)
  local h = P .. 'h:' .. R
  local number = call('INCR', P .. 'count')
  call('HSET', h, 'hd', hd, 'rq', rq, 'last', -1, 'own', own, 'T', T, 'S', S, 'X', index,
    'no', number, 'enq', enq, 'told', told, 'by', by)
  call('SADD', P .. 'live:' .. T, R)
  call('SADD', P .. 'live', R)
  call('ZADD', P .. 'all', number, R)
  call('ZADD', P .. 't:' .. T, number, R)
  if index ~= '' then call('ZADD', P .. 's:' .. index, number, R) end
  if own ~= '' then call('SADD', P .. 'o:' .. own, R) end
end

local function whole(R)
  local v = call('HMGET', P .. 'h:' .. R, 'hd', 'own', 'rq')
  return {v[1], v[2], v[3]}
end
"""


OOM: Final = "flags=allow-oom"
"""For what is let through on a server without memory: it ends runs, keeps turns, renews leases."""
READS: Final = "flags=no-writes"


def script(name: str, body: str, flags: str = "") -> Script:
    """Make a script; what all share stands before its *body* in Lua.

    The body's first lines say what it is given, reads, writes and refuses.
    """
    return Script(name, f"#!lua {flags}".rstrip() + _COMMON + body)
