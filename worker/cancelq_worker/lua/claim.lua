#!lua flags=allow-oom
-- CLAIM: takes the open intents that name an order out of their queues for a step that sends nothing, because its end
-- became known. Those that are in a call now are left to it.
--
-- KEYS[1]  the lane's clock
-- ARGV     lease_us, order…
-- Replies  {{id, state before, record, …}, left alone}   the fence of each is one higher than in that state; left alone:
--          how many are in a call; not 0 where there are more than are claimed at once, either

--include prelude

-- An order may be named by hundreds, and thousands are more than one settlement can carry.
local AT_ONCE = 500

local lease = tonumber(ARGV[1])
local ids, has = {}, {}
for _, list in ipairs(redis.call('HMGET', ROOT .. 'orders', unpack(ARGV, 2))) do
  for id in string.gmatch(list or '', '%S+') do
    if not has[id] then ids[#ids + 1] = id end
    has[id] = true
  end
end

local claimed, left_alone, at_once = {}, 0, 0
for _, id in ipairs(ids) do
  if at_once == AT_ONCE then
    left_alone = left_alone + 1
    break
  end
  local line = redis.call('HGET', ROOT .. 'state', id)
  local record = redis.call('HGET', ROOT .. 'intents', id)
  local s = line and record and parse(line)
  if s and s.taken ~= '0' then
    left_alone = left_alone + 1
  elseif s then
    at_once = at_once + 1
    unqueue(id, s)
    s.fence, s.taken = s.fence + 1, '2'
    redis.call('HSET', ROOT .. 'state', id, pack(s))
    redis.call('ZADD', ROOT .. 'leases', text(steady + lease), id)
    claimed[#claimed + 1] = id
    claimed[#claimed + 1] = line
    claimed[#claimed + 1] = record
  end
end
if #ids > 0 then keep_clock(#claimed > 0 and steady + lease or nil) end
return {claimed, left_alone}
