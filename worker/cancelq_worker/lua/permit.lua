#!lua flags=allow-oom
-- PERMIT: a unit of a bucket for a call that no take grants, if there is one. In use until `settle` puts it right. What
-- closes the lane for its key does not close it for this call; what makes permits doubtful (another server, a clock
-- that went ahead, a refusal) does.
--
-- KEYS[1]  the lane's clock
-- ARGV     bucket, units per window, window_us, lease_us, member
-- Replies  for how long the call must wait yet, in us, or -1 if there is none: the fleet's shortest round trip is what
--   permits are free earlier by, and who has not measured the way may be nearer than all who did

--include prelude
--include hold_end

local bucket, units, window, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local permits = ROOT .. 'permits:' .. bucket
local held = 0
for n, kept in ipairs(redis.call('HMGET', ROOT .. 'hold', bucket .. '|rate', '*|clock', '*|restart', '*|leap')) do
  if kept then held = math.max(held, hold_end(n == 1 and 'rate' or '', kept)) end
end
local stats = redis.call('HMGET', ROOT .. 'rtt:' .. bucket, 'units', 'shut', 'fast')
local told, shut = tonumber(stats[1] or units), tonumber(stats[2] or 0)
redis.call('ZREMRANGEBYSCORE', permits, '-inf', text(steady))
if math.max(held, shut) > steady or redis.call('ZCARD', permits) >= math.min(told, units) then return -1 end
local free = steady + lease + window + 1000000 -- as long as its call could possibly live, as in take.lua
redis.call('ZADD', permits, text(free), ARGV[5] .. ':1')
keep_clock(free)
return math.ceil(tonumber(stats[3] or 0))
