#!lua flags=allow-oom
-- SOCKETS: who has a place among the connections that a venue lets one address have open at a time.
--
-- KEYS[1]  cancelq:{egress:NAME}:BUCKET, a zset: holder → until when it has its place (us)
-- KEYS[2]  the same with `:note`, a hash: `units`, how many places there are, for those who only look
-- ARGV     holder, lease_us, places, what: 'hold' (or keep) a place, 'leave' it
-- Replies  1 if this holder has a place now, else 0
--
-- A place that is not kept is free after its lease: its holder was killed, or has closed its connection since. Whose
-- clock: Redis' TIME. Where that was set back, nobody has a place for longer than a lease all the same.

local function text(n) return string.format('%.0f', n) end

if ARGV[4] == 'leave' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  return 0
end
local t = redis.call('TIME')
local now, lease = t[1] * 1000000 + t[2], tonumber(ARGV[2])
local till = text(now + lease)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now))
for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. till, '+inf')) do
  redis.call('ZADD', KEYS[1], till, other)
end
local had = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not had and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[1], till, ARGV[1])
redis.call('PEXPIRE', KEYS[1], math.ceil(lease / 1000) + 60000)
redis.call('HSET', KEYS[2], 'units', ARGV[3])
redis.call('EXPIRE', KEYS[2], 86400)
return 1
