#!lua flags=allow-oom
-- CLAIM: takes open intents out of their queues for a step that sends nothing, because the end of the order
-- they name became known. A call already on its way for one of them becomes stale.
--
-- KEYS[1]  the lane's clock
-- ARGV     lease_us, id…
-- Replies  {wall, {id, state before, record, …}}   the fence of each is one higher than in that state

--include

local lease = tonumber(ARGV[1])
local claimed = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local line = redis.call('HGET', ROOT .. 'state', id)
  local record = redis.call('HGET', ROOT .. 'intents', id)
  if line and record then
    local s = parse(line)
    unqueue(id, s)
    s.fence, s.taken = s.fence + 1, '2'
    redis.call('HSET', ROOT .. 'state', id, pack(s))
    redis.call('ZADD', ROOT .. 'leases', text(steady + lease), id)
    claimed[#claimed + 1] = id
    claimed[#claimed + 1] = line
    claimed[#claimed + 1] = record
  end
end
keep_clock(#claimed > 0 and steady + lease or nil)
return {text(wall), claimed}
