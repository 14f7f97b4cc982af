#!lua flags=allow-oom
-- ROSTER: a worker's heartbeat, and who else is alive.
--
-- KEYS[1]  cancelq:workers (of the whole installation, not of a lane)
-- ARGV     name, how old in ms a heartbeat may be
-- Replies  {name, …}, sorted. Whose clock: Redis' TIME.

local t = redis.call('TIME')
local now_ms = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', now_ms), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now_ms - 60000))
redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%.0f', now_ms + 1000), '+inf') -- the clock went back
local fresh = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('%.0f', now_ms - tonumber(ARGV[2])), '+inf')
table.sort(fresh)
return fresh
