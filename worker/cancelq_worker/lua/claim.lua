#!lua flags=allow-oom
-- CLAIM: takes open intents out of their queues for a step that sends nothing, because the end of the order
-- they name became known.
--
-- KEYS[1]  the lane's clock
-- ARGV     lease_us, at_rest, ids_n, id…, order…   the intents with these ids, and all that name these orders
--   at_rest: '1' leaves those alone that are in a call now; '0' takes them too, and their call becomes stale
-- Replies  {wall, {id, state before, record, …}, left alone}   the fence of each is one higher than in that state

--include

local lease, at_rest, ids_n = tonumber(ARGV[1]), ARGV[2] == '1', tonumber(ARGV[3])
local ids, has = {}, {}
local function name(id)
  if not has[id] then ids[#ids + 1] = id end
  has[id] = true
end
for i = 4, 3 + ids_n do name(ARGV[i]) end
if #ARGV > 3 + ids_n then
  for _, list in ipairs(redis.call('HMGET', ROOT .. 'orders', unpack(ARGV, 4 + ids_n))) do
    for id in string.gmatch(list or '', '%S+') do name(id) end
  end
end

local claimed, left_alone = {}, 0
for _, id in ipairs(ids) do
  local line = redis.call('HGET', ROOT .. 'state', id)
  local record = redis.call('HGET', ROOT .. 'intents', id)
  local s = line and record and parse(line)
  if s and at_rest and s.taken ~= '0' then
    left_alone = left_alone + 1
  elseif s then
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
return {text(wall), claimed, left_alone}
