#!lua flags=allow-oom
-- GUARD: a lane's dead man's switch: seen to be armed, fired once, closed.
--
-- KEYS[1]  the lane's clock
-- ARGV[1]  'see': what there is; notes the deadline of a guard that is armed
--              Replies {wall_us, left_ms, armed, fired}
--                left_ms: until the guard expires, -1 if it never does, -2 if there is none
--                armed: the last deadline that was noted (epoch ms), '' if the guard was disarmed or has fired
--                fired: the last firing, as below, or ''
--          'fire' deadline round at_ms number, for each intent {id memory_key digest record head tail queue expires_ms},
--              number and fields of the event
--              Replies {1} or {0}: the guard is armed again, or another worker was first
--          'close' deadline round state, number and fields of the event
--              Replies {1} or {0} alike
-- `fired` is kept as 'deadline round at_ms state after ids': at_ms is when the first round was fired, after the newest
-- entry of the results by then, ids a comma list; state: open | done | armed-again | given-up.
-- It has allow-oom: a full memory must not keep a lane from being flattened, and a firing is small.

--include prelude
--include memory

local FIRED_KEPT_S = 7 * 86400

local guard, armed_key, fired_key = ROOT .. 'guard', ROOT .. 'armed', ROOT .. 'fired'
local left = redis.call('PTTL', guard)
local armed, fired = redis.call('GET', armed_key), redis.call('GET', fired_key)

if ARGV[1] == 'see' then
  if armed and not string.match(armed, '^%d+$') then
    armed = text(math.floor(wall / 1000)) -- not of our writing, but a mark: without a guard it has been missed
    redis.call('SET', armed_key, armed)
  end
  if left ~= -2 then
    local deadline = math.floor(wall / 1000) + math.max(0, left)
    local noted = tonumber(armed or '')
    -- Two readings of one deadline may differ by a millisecond; a guard that never expires has none to follow.
    if not noted or (left ~= -1 and math.abs(noted - deadline) > 5) then
      armed = text(deadline)
      redis.call('SET', armed_key, armed)
    end
  end
  return {text(wall), left, armed or '', fired or ''}
end

local deadline, round = ARGV[2], ARGV[3]
local is_open, after = false, nil
if fired then
  local f_deadline, f_round, f_state = string.match(fired, '^(%d+) (%d+) %d+ (%S+) ')
  is_open = f_state == 'open' and f_deadline == deadline
    and tonumber(f_round) == tonumber(round) - (ARGV[1] == 'fire' and 1 or 0)
end

local function tell(pos)
  redis.call('XADD', ROOT .. 'results', '*', 'settled_us', text(wall), unpack(ARGV, pos + 1, pos + 2 * tonumber(ARGV[pos])))
end

if ARGV[1] == 'close' then
  if not is_open then return {0} end
  tell(5)
  redis.call('SET', fired_key, (string.gsub(fired, ' open ', ' ' .. ARGV[4] .. ' ', 1)), 'EX', FIRED_KEPT_S)
  return {1}
end

if left ~= -2 then return {0} end
if round == '1' then
  if armed ~= deadline then return {0} end
elseif not is_open then
  return {0}
end

local newest = redis.call('XREVRANGE', ROOT .. 'results', '+', '-', 'COUNT', 1)[1]
local ids, pos = {}, 6
for _ = 1, tonumber(ARGV[5]) do
  local id, memory_key, queue, expires_ms = ARGV[pos], ARGV[pos + 1], ARGV[pos + 6], ARGV[pos + 7]
  ids[#ids + 1] = id
  if redis.call('HEXISTS', ROOT .. 'state', id) == 0 and not memory().known(memory_key) then
    redis.call('HSET', ROOT .. 'intents', id, ARGV[pos + 3])
    redis.call('HSET', ROOT .. 'state', id, ARGV[pos + 4] .. text(steady) .. ARGV[pos + 5])
    redis.call('ZADD', ROOT .. 'expiry', expires_ms, id)
    queue_later(queue, id, text(steady))
  end
  pos = pos + 8
end
queue_all()
tell(pos)
redis.call('SET', fired_key, string.format('%s %s %s open %s %s', deadline, round, ARGV[4],
  newest and newest[1] or '0-0', table.concat(ids, ',')))
redis.call('DEL', armed_key)
keep_clock()
return {1}
