"""Scripts that divide the work; `_scripts` says which keys there are."""

from __future__ import annotations

from typing import Final

from ._scripts import OOM, READS, script

ENQUEUE: Final = script(
    "enqueue",
    """
-- R hd rq own T S index told by queue_length runs_per_tenant
-- Writes what create writes, and wait, line:S, q; tells 'work'. Refuses a run that there is
-- ('exists'), one too many of the tenant's or in line ('tenant' or 'session', and how many are).
local R, T, S, by = ARGV[1], ARGV[5], ARGV[6], ARGV[9]
if call('EXISTS', P .. 'h:' .. R) == 1 then
  return call('HGET', P .. 'h:' .. R, 'by') == by and 'ok' or 'exists'
end
local live = call('SCARD', P .. 'live:' .. T)
if ARGV[11] ~= '' and live >= tonumber(ARGV[11]) then return {'tenant', live} end
local before = S ~= '' and call('LLEN', P .. 'line:' .. S) or 0
if ARGV[10] ~= '' and before > tonumber(ARGV[10]) then return {'session', before} end
create(R, ARGV[2], ARGV[3], '', T, S, ARGV[7], ARGV[8], '1', by)
call('ZADD', P .. 'wait', now(), R)
if S ~= '' then call('RPUSH', P .. 'line:' .. S, R) end
if before == 0 then offer(R) end
return 'ok'
""",
)

CLAIM: Final = script(
    "claim",
    """
-- W ttl number
-- Writes h:R, o:W, q, wait, w:W, claims. Gives R, header, owner and what was asked; nil if none
-- waits, or the lease is gone. Numbers grow: the same one again gets the same run, an earlier one
-- that comes late nothing.
local W, number = ARGV[1], tonumber(ARGV[3])
local had, has = call('SISMEMBER', P .. 'ws', W), call('EXISTS', P .. 'w:' .. W)
if had == 1 and has == 0 then return false end
renew(W, ARGV[2])
local before = call('HGET', P .. 'claims', W)
if before then
  local place = string.find(before, ' ', 1, true)
  local known = tonumber(string.sub(before, 1, place - 1))
  if number < known then return false end
  if number == known then
    local R = string.sub(before, place + 1)
    local v = call('HMGET', P .. 'h:' .. R, 'own', 'end')
    if v[1] == W and not v[2] then return {R, unpack(whole(R))} end
    return false
  end
end
local R = call('LPOP', P .. 'q')
if not R then return false end
call('HSET', P .. 'h:' .. R, 'own', W)
call('SADD', P .. 'o:' .. W, R)
call('ZREM', P .. 'wait', R)
call('HSET', P .. 'claims', W, ARGV[3] .. ' ' .. R)
return {R, unpack(whole(R))}
""",
    OOM,
)

TAKE: Final = script(
    "take",
    """
-- R W call
-- Writes h:R, o:W, q, wait. Refuses (0) a run that does not wait.
local R, W = ARGV[1], ARGV[2]
local v = call('HMGET', P .. 'h:' .. R, 'own', 'end', 'enq', 'did')
if v[1] == W and v[4] == ARGV[3] then return 1 end
if v[1] ~= '' or v[2] or v[3] ~= '1' then return 0 end
call('HSET', P .. 'h:' .. R, 'own', W, 'did', ARGV[3])
call('SADD', P .. 'o:' .. W, R)
call('ZREM', P .. 'wait', R)
call('LREM', P .. 'q', 0, R)
return 1
""",
    OOM,
)

LINE: Final = script(
    "line",
    """
-- S
-- Reads line:S.
return call('LRANGE', P .. 'line:' .. ARGV[1], 0, -1)
""",
    READS,
)

RENEW: Final = script(
    "renew",
    """
-- W ttl
-- Writes w:W, ws. Gives 1 if there was a lease.
return renew(ARGV[1], ARGV[2])
""",
    OOM,
)

LEAVE: Final = script(
    "leave",
    """
-- W
-- Removes w:W; puts the runs of W without events back before all others, and tells 'work'.
local W = ARGV[1]
call('DEL', P .. 'w:' .. W)
call('HDEL', P .. 'claims', W)
local back = {}
for _, R in ipairs(call('SMEMBERS', P .. 'o:' .. W)) do
  local v = call('HMGET', P .. 'h:' .. R, 'last', 'enq', 'no')
  if v[1] == '-1' and v[2] == '1' then table.insert(back, {tonumber(v[3]), R}) end
end
table.sort(back, function(a, b) return a[1] > b[1] end)
for _, run in ipairs(back) do
  call('SREM', P .. 'o:' .. W, run[2])
  call('HSET', P .. 'h:' .. run[2], 'own', '')
  call('ZADD', P .. 'wait', now(), run[2])
  call('LPUSH', P .. 'q', run[2])
  call('PUBLISH', P .. 'x:work', '')
end
return #back
""",
    OOM,
)

LOST: Final = script(
    "lost",
    """
-- limit
-- Reads ws, w:W, o:W, h:R; forgets who has neither lease nor runs. Gives header, owner and what was
-- asked of the others' runs.
local found = {}
for _, W in ipairs(call('SMEMBERS', P .. 'ws')) do
  if call('EXISTS', P .. 'w:' .. W) == 0 then
    local runs = call('SMEMBERS', P .. 'o:' .. W)
    if #runs == 0 then
      call('SREM', P .. 'ws', W)
      call('HDEL', P .. 'claims', W)
    end
    for _, R in ipairs(runs) do
      if #found < tonumber(ARGV[1]) then table.insert(found, whole(R)) end
    end
  end
end
return found
""",
    OOM,
)

OWNED: Final = script(
    "owned",
    """
-- W
-- Reads o:W, h:R. Gives W's runs, each with its newest event.
local found = {}
for _, R in ipairs(call('SMEMBERS', P .. 'o:' .. ARGV[1])) do
  table.insert(found, R)
  table.insert(found, call('HGET', P .. 'h:' .. R, 'last'))
end
return found
""",
    READS,
)

OVERDUE: Final = script(
    "overdue",
    """
-- milliseconds limit
-- Reads wait, h:R. Gives header, owner and what was asked of those who have waited so long.
local found = {}
local before = string.format('%d', now() - tonumber(ARGV[1]))
for _, R in ipairs(call('ZRANGEBYSCORE', P .. 'wait', '-inf', before, 'LIMIT', 0, ARGV[2])) do
  table.insert(found, whole(R))
end
return found
""",
    READS,
)

CLOSE: Final = script(
    "close",
    """
-- R W after count call batch ended status S said by
-- Writes what append writes with DONE, and c:S unless its turn is there. Refuses an unknown run,
-- one that is not W's or has ended, or whose W has a lease or never had one and is not by
-- ('fenced'), and a wrong place.
local R, W, after = ARGV[1], ARGV[2], ARGV[3]
local h = P .. 'h:' .. R
local v = call('HMGET', h, 'last', 'own', 'end', 'did', 'told')
if not v[1] then return {'unknown'} end
if v[4] == ARGV[5] then return 'ok' end
if v[2] ~= W or v[3] then return {'fenced'} end
local is_dead = call('SISMEMBER', P .. 'ws', W) == 1 and call('EXISTS', P .. 'w:' .. W) == 0
if not is_dead and ARGV[11] ~= W then return {'fenced'} end
if v[1] ~= after then return {'last', v[1]} end
append(R, tonumber(after), tonumber(ARGV[4]), ARGV[6])
call('HSET', h, 'own', '', 'did', ARGV[5])
if ARGV[10] ~= '' and v[5] ~= '1' then
  local c = P .. 'c:' .. ARGV[9]
  local before = call('GET', c)
  local said = ARGV[10]
  if before and #before > 2 and #said > 2 then
    said = string.sub(before, 1, -2) .. ',' .. string.sub(said, 2)
  elseif before and #said <= 2 then
    said = before
  end
  call('SET', c, said, 'KEEPTTL')
  call('HSET', h, 'told', '1')
end
finish(R, W, ARGV[7], ARGV[8])
call('PUBLISH', P .. 'n:' .. R, after .. ' ' .. ARGV[6])
return 'ok'
""",
    OOM,
)

LISTENERS: Final = script(
    "listeners",
    """
-- channel
-- Reads how many connections have subscribed.
return call('PUBSUB', 'NUMSUB', P .. ARGV[1])[2]
""",
    READS,
)

STATISTICS: Final = script(
    "statistics",
    """
-- Reads q, wait, ws, w:W, o:W. Gives how many runs may be claimed, wait and are owned, how many
-- processes have a lease, and the milliseconds until the first of these is gone.
local owned, processes, lapse = 0, 0, -1
for _, W in ipairs(call('SMEMBERS', P .. 'ws')) do
  owned = owned + call('SCARD', P .. 'o:' .. W)
  local left = call('PTTL', P .. 'w:' .. W)
  if left > 0 then
    processes = processes + 1
    if lapse < 0 or left < lapse then lapse = left end
  end
end
return {call('LLEN', P .. 'q'), call('ZCARD', P .. 'wait'), owned, processes, lapse}
""",
    READS,
)
