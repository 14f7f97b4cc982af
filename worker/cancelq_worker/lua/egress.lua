#!lua flags=allow-oom
-- EGRESS: units of a limit the venue counts per address, for all lanes that leave from one address.
--
-- KEYS[1]  cancelq:{egress:NAME}:BUCKET, a zset: unit in use → when it is free again (us)
-- KEYS[2]  the same with `:note`, a hash: `last` unit handed out; `units` per window, for those who only look; `hold`:
--          closed until (ms) and why; `probe`: after a hold one call goes alone, `1` until its unit is handed out, then
--          the unit and when it is given up (us); `streak`: how often in a row it was refused without being told for how
--          long, and until when that closed it (ms); `ahead`: until when none is handed out, as the clock went ahead or
--          the server may have lost its last writes (us); `at`: when somebody asked last (us); `server`: its run id and
--          since when it has these data; `lost`: the same, once its processes were waited for
-- ARGV     units per window, window_us, wanted, live_us, hold_ms (-1: the venue refused and did not say for how long),
--          detail, wanted for urgent calls, units kept for these, by how much the clock was found to have gone ahead (us),
--          for how long the process has known how the clock goes (us), -1: to be left out of account, the `server` that
--          the process heard last, unused_n, unit …, ended_n, then for each: unit, how long ago its call ended in us,
--          extra us (for a call without an answer)
-- Replies  {first unit granted, number granted, hold left in ms, 1 if one call is to go alone, number granted for urgent
--          calls, which follow the others, units that are left, `server`}
--
-- Units are taken ahead of their calls. One that nobody reports stays in use for `live_us`: by then its call, if it was
-- made, is over and out of the venue's window. A reported one is free a window after its call ended. Whose clock: Redis'
-- TIME; where that went ahead, none is handed out for as long, and what is in use is free that much later. So it is by as
-- much as nobody vouches for: a clock that went ahead while no process was there was noticed by none. Another server
-- than before may have lost its last writes, and one whose data were dropped has lost them all: each process tells
-- again what it used, and until all have had the time to, none is handed out. Numbers begin at the time then, so that
-- none is given twice.

local function text(n) return string.format('%.0f', n) end

-- How long the call that goes alone is waited for: its unit is used within two seconds, and who took it may be dead.
local PROBE_US = 5000000
local UNDER_WAY_US = 10000000 -- what is in use for so much longer has not ended: it is told again
-- For how long it is closed where the venue does not say, twice as long each time.
local BACK_OFF_MS, BACK_OFF_MAX_MS = 1000, 300000
local TOLD_AGAIN_US = 3000000 -- how long every process may take until it has told a server what another one knew

local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local units, window, wanted, live = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local wanted_urgent, kept, ahead = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local known, pos = ARGV[11], 12

-- What is in use is free that much later. From the last one on, in portions: Lua's stack takes some thousands of values,
-- and those behind stay in their places.
local function free_later(by)
  for behind = 0, redis.call('ZCARD', KEYS[1]) - 1, 1000 do
    local used, moved = redis.call('ZRANGE', KEYS[1], -behind - 1000, -behind - 1, 'WITHSCORES'), {}
    for i = 1, #used, 2 do
      moved[i], moved[i + 1] = text(math.max(used[i + 1], math.min(used[i + 1] + by, now + window + live))), used[i]
    end
    redis.call('ZADD', KEYS[1], unpack(moved))
  end
end

-- None is handed out for so long, or longer if that was said before. What lies further ahead than a window was written by
-- a clock that was set back since.
local function shut_for(span)
  local till = tonumber(redis.call('HGET', KEYS[2], 'ahead') or 0)
  if till > now + window then till = 0 end
  redis.call('HSET', KEYS[2], 'ahead', text(math.max(till, now + span)))
end

local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or '-'
local before, waited_for, last, at = unpack(redis.call('HMGET', KEYS[2], 'server', 'lost', 'last', 'at'))
local server = before
if not before or string.match(before, '^%S+') ~= run then
  server = run .. ' ' .. text(now)
  redis.call('HSET', KEYS[2], 'server', server, 'last', text(math.max(now, tonumber(last or 0))))
end
if ((before and before ~= server) or (known ~= '' and known ~= server)) and waited_for ~= server then
  redis.call('HSET', KEYS[2], 'lost', server)
  shut_for(math.min(window, TOLD_AGAIN_US))
end

-- The clock was set back since somebody asked last: everything is that much nearer. By no more than that, so that
-- nothing is free too early.
at = tonumber(at or now)
if at > now then
  local back = at - now
  for from = 0, redis.call('ZCARD', KEYS[1]) - 1, 1000 do
    local used, moved = redis.call('ZRANGE', KEYS[1], from, from + 999, 'WITHSCORES'), {}
    for i = 1, #used, 2 do moved[i], moved[i + 1] = text(used[i + 1] - back), used[i] end
    redis.call('ZADD', KEYS[1], unpack(moved))
  end
  local till_ms, why = string.match(redis.call('HGET', KEYS[2], 'hold') or '', '^(%d+) (.*)$')
  if till_ms then redis.call('HSET', KEYS[2], 'hold', text(till_ms - math.floor(back / 1000)) .. ' ' .. why) end
  local unit, till = string.match(redis.call('HGET', KEYS[2], 'probe') or '', '^(%d+) (%d+)$')
  if unit then redis.call('HSET', KEYS[2], 'probe', unit .. ' ' .. text(till - back)) end
end

local vouched = tonumber(ARGV[10])
local unvouched = now - at - vouched
if vouched >= 0 and unvouched > 0 then free_later(unvouched) end
redis.call('HSET', KEYS[2], 'at', text(now))

local unused = tonumber(ARGV[pos])
if unused > 0 then redis.call('ZREM', KEYS[1], unpack(ARGV, pos + 1, pos + unused)) end
pos = pos + unused + 1
local ended, answered = {}, {}
for i = pos + 1, pos + 3 * tonumber(ARGV[pos]), 3 do
  ended[#ended + 1] = text(now - ARGV[i + 1] + window + ARGV[i + 2])
  ended[#ended + 1] = ARGV[i]
  if tonumber(ARGV[i + 2]) < UNDER_WAY_US then answered[ARGV[i]] = ARGV[i + 2] == '0' end
end
if #ended > 0 then redis.call('ZADD', KEYS[1], unpack(ended)) end

local now_ms, hold = math.floor(now / 1000), redis.call('HGET', KEYS[2], 'hold')
local held_ms = hold and math.max(0, string.match(hold, '^%d+') - now_ms) or 0
local hold_ms = tonumber(ARGV[5])
if hold_ms < 0 then
  -- Of calls that were under way together each may be refused: that is one refusal. A long calm begins anew.
  local streak, till = string.match(redis.call('HGET', KEYS[2], 'streak') or '', '^(%d+) (%d+)$')
  if not streak or now_ms > till + BACK_OFF_MAX_MS then
    streak = 1
  elseif held_ms == 0 then
    streak = streak + 1
  end
  hold_ms = math.min(BACK_OFF_MAX_MS, BACK_OFF_MS * 2 ^ (streak - 1))
  redis.call('HSET', KEYS[2], 'streak', text(streak) .. ' ' .. text(now_ms + math.max(hold_ms, held_ms)))
end
if hold_ms > 0 then
  -- A call that was on its way may be refused later and for less: the address stays closed for the longer of both.
  if hold_ms > held_ms then
    redis.call('HSET', KEYS[2], 'hold', text(now_ms + hold_ms) .. ' ' .. ARGV[6])
    held_ms = hold_ms
  end
  redis.call('HSET', KEYS[2], 'probe', '1')
elseif hold and held_ms == 0 then
  redis.call('HDEL', KEYS[2], 'hold')
end

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now))
if ahead > 0 then
  ahead = math.min(ahead, window)
  free_later(ahead)
  shut_for(ahead)
end
local room = units - redis.call('ZCARD', KEYS[1])
local closed = tonumber(redis.call('HGET', KEYS[2], 'ahead') or 0)
if closed > now and closed <= now + window then
  room = 0
elseif closed > 0 then
  redis.call('HDEL', KEYS[2], 'ahead')
end
local probe = held_ms == 0 and redis.call('HGET', KEYS[2], 'probe')
if probe and probe ~= '1' then
  local unit, till = string.match(probe, '^(%d+) (%d+)$')
  if answered[unit] then
    redis.call('HDEL', KEYS[2], 'probe', 'streak')
    probe = false
  elseif answered[unit] == false or not redis.call('ZSCORE', KEYS[1], unit) or tonumber(till) <= now then
    probe = '1'
  else
    room = 0
  end
end
if probe == '1' then room = math.min(room, 1) end
local granted, urgent = 0, 0
if held_ms == 0 then
  granted = math.max(0, math.min(wanted, room - kept))
  if probe == '1' and wanted > 0 then granted = math.max(0, room) end
  urgent = math.max(0, math.min(wanted_urgent, room - granted))
end
local first, all = 0, granted + urgent
if all > 0 then
  first = redis.call('HINCRBY', KEYS[2], 'last', all) - all + 1
  local free, rows = text(now + live), {}
  for unit = first, first + all - 1 do
    rows[#rows + 1] = free
    rows[#rows + 1] = text(unit)
  end
  redis.call('ZADD', KEYS[1], unpack(rows))
  if probe == '1' then redis.call('HSET', KEYS[2], 'probe', text(first) .. ' ' .. text(now + PROBE_US)) end
  redis.call('HSET', KEYS[2], 'units', ARGV[1])
end
redis.call('PEXPIRE', KEYS[1], math.ceil((window + live) / 1000) + 60000)
redis.call('EXPIRE', KEYS[2], 30 * 86400) -- one that was not heard for so long comes as another server
return {first, granted, held_ms, probe and 1 or 0, urgent, room - all, server}
