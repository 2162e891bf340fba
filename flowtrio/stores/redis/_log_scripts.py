"""Scripts of logs and conversations; `_scripts` says which keys there are."""

from __future__ import annotations

from typing import Final

from ._scripts import OOM, READS, script

GREET: Final = script(
    "greet",
    """
-- Reads what the server is. Writes nothing.
return {call('INFO', 'server'), call('INFO', 'memory')}
""",
    READS,
)

CREATE: Final = script(
    "create",
    """
-- R hd rq own T S index told by
-- Writes h:R, live, live:T, all, t:T, s:S, o:W. Refuses a run that there is ('exists').
local R, by = ARGV[1], ARGV[9]
if call('EXISTS', P .. 'h:' .. R) == 1 then
  return call('HGET', P .. 'h:' .. R, 'by') == by and 'ok' or 'exists'
end
create(R, ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], '0', by)
return 'ok'
""",
)

_APPEND: Final = """
-- R after owner count call batch ended status
-- Writes e:R, h:R; with DONE also ended, live, live:T, o:W, the line and q; tells n:R.
-- Refuses an unknown run, another's ('fenced'), an ended one, a wrong place ('last'); the latter
-- two with the last event.
local R, after, owner = ARGV[1], ARGV[2], ARGV[3]
local v = call('HMGET', P .. 'h:' .. R, 'last', 'own', 'end', 'did')
if not v[1] then return {'unknown'} end
if v[4] == ARGV[5] then return 'ok' end
if owner ~= '' and owner ~= v[2] then return {'fenced'} end
if v[3] then return {'ended', v[1]} end
if v[1] ~= after then return {'last', v[1]} end
append(R, tonumber(after), tonumber(ARGV[4]), ARGV[6])
call('HSET', P .. 'h:' .. R, 'did', ARGV[5])
if ARGV[7] ~= '' then finish(R, v[2], ARGV[7], ARGV[8]) end
call('PUBLISH', P .. 'n:' .. R, after .. ' ' .. ARGV[6])
return 'ok'
"""

APPEND: Final = script("append", _APPEND)

END: Final = script("end", _APPEND, OOM)

READ: Final = script(
    "read",
    """
-- R after limit
-- Reads e:R, h:R. Gives the last event's number, and the batches behind after; nil for an unknown
-- run.
local last = call('HGET', P .. 'h:' .. ARGV[1], 'last')
if not last then return false end
local found = {}
if tonumber(ARGV[2]) < tonumber(last) then
  local from = string.format('%d', tonumber(ARGV[2]) + 2)
  for _, entry in ipairs(call('XRANGE', P .. 'e:' .. ARGV[1], from, '+', 'COUNT', ARGV[3])) do
    table.insert(found, entry[2][2])
  end
end
return {last, found}
""",
    READS,
)

LOOK: Final = script(
    "look",
    """
-- R
-- Reads h:R. Gives the last event's number, and when it ended; nil for an unknown run.
local v = call('HMGET', P .. 'h:' .. ARGV[1], 'last', 'end')
if not v[1] then return false end
return {v[1], v[2] or ''}
""",
    READS,
)

HEADER: Final = script(
    "header",
    """
-- R ...
-- Reads h:R. Gives for each run that there is its header, owner, end and status.
local found = {}
for _, R in ipairs(ARGV) do
  local v = call('HMGET', P .. 'h:' .. R, 'hd', 'own', 'end', 'st')
  if v[1] then table.insert(found, {v[1], v[2], v[3] or '', v[4] or ''}) end
end
return found
""",
    READS,
)

LIST: Final = script(
    "list",
    """
-- index from count
-- Reads t:T or s:S. Gives runs in the order in which they came.
return call('ZRANGE', P .. ARGV[1], ARGV[2], ARGV[2] + ARGV[3] - 1)
""",
    READS,
)

NEWEST: Final = script(
    "newest",
    """
-- index end count
-- Reads all or t:T, and h:R. Gives runs from the newest before a number on, each with its header,
-- owner, end, status and number.
local found = {}
local runs = call('ZRANGE', P .. ARGV[1], ARGV[2], '-inf', 'BYSCORE', 'REV',
  'LIMIT', 0, ARGV[3], 'WITHSCORES')
for i = 1, #runs, 2 do
  local v = call('HMGET', P .. 'h:' .. runs[i], 'hd', 'own', 'end', 'st')
  table.insert(found, {v[1], v[2], v[3] or '', v[4] or '', runs[i + 1]})
end
return found
""",
    READS,
)

LIVE: Final = script(
    "live",
    """
-- Reads live. Gives runs without an end.
return call('SMEMBERS', P .. 'live')
""",
    READS,
)

FORGET: Final = script(
    "forget",
    """
-- R ...
-- Removes all of the runs; the next in line may be claimed; tells n:R. Gives how many there were.
local count = 0
for _, R in ipairs(ARGV) do
  local h = P .. 'h:' .. R
  local v = call('HMGET', h, 'T', 'S', 'X', 'own', 'enq')
  if v[1] then
    count = count + 1
    call('DEL', h, P .. 'e:' .. R)
    call('SREM', P .. 'live:' .. v[1], R)
    call('SREM', P .. 'live', R)
    call('ZREM', P .. 'all', R)
    call('SREM', P .. 'o:' .. v[4], R)
    call('ZREM', P .. 't:' .. v[1], R)
    call('ZREM', P .. 's:' .. v[3], R)
    call('ZREM', P .. 'ended', R)
    withdraw(R, v[5] == '1' and v[2] or '')
    call('PUBLISH', P .. 'n:' .. R, 'gone')
  end
end
return count
""",
    OOM,
)

EXPIRED: Final = script(
    "expired",
    """
-- before limit
-- Reads ended. Gives runs that ended before a time.
return call('ZRANGEBYSCORE', P .. 'ended', '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
""",
    READS,
)

SAVE: Final = script(
    "save",
    """
-- S conversation milliseconds R owner
-- Writes c:S, and h:R that its turn is there. Refuses (0) another's run, or one that has ended.
local R, owner = ARGV[4], ARGV[5]
if owner ~= '' then
  local v = call('HMGET', P .. 'h:' .. R, 'own', 'end')
  if v[1] ~= owner or v[2] then return 0 end
end
if ARGV[3] ~= '' then
  call('SET', P .. 'c:' .. ARGV[1], ARGV[2], 'PX', ARGV[3])
else
  call('SET', P .. 'c:' .. ARGV[1], ARGV[2])
end
local h = P .. 'h:' .. R
if R ~= '' and call('EXISTS', h) == 1 then call('HSET', h, 'told', '1') end
return 1
""",
    OOM,
)

LOAD: Final = script(
    "load",
    """
-- S
-- Reads c:S.
return call('GET', P .. 'c:' .. ARGV[1])
""",
    READS,
)

DROP: Final = script(
    "drop",
    """
-- S tenant session
-- Removes c:S, and what d:T has of it.
for _, name in ipairs({'title', 'agent_title', 'branched_from'}) do
  call('HDEL', P .. 'd:' .. ARGV[2], name .. ':' .. ARGV[3])
end
return call('DEL', P .. 'c:' .. ARGV[1])
""",
    OOM,
)

DESCRIBE: Final = script(
    "describe",
    """
-- tenant session name value
-- Writes d:T, or removes what is empty from it.
local field = ARGV[3] .. ':' .. ARGV[2]
if ARGV[4] == '' then return call('HDEL', P .. 'd:' .. ARGV[1], field) end
return call('HSET', P .. 'd:' .. ARGV[1], field, ARGV[4])
""",
)

DESCRIPTIONS: Final = script(
    "descriptions",
    """
-- tenant sessions
-- Reads d:T; where it is said how S begins, removes what is told of those without c:S and s:S.
local d = P .. 'd:' .. ARGV[1]
local told = call('HGETALL', d)
if ARGV[2] == '' then return told end
local found = {}
for i = 1, #told, 2 do
  local S = ARGV[2] .. string.sub(told[i], string.find(told[i], ':', 1, true) + 1)
  if call('EXISTS', P .. 'c:' .. S, P .. 's:' .. S) > 0 then
    table.insert(found, told[i])
    table.insert(found, told[i + 1])
  else
    call('HDEL', d, told[i])
  end
end
return found
""",
    OOM,
)
