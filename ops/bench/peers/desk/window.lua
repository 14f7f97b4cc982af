-- A sliding window shared by all workers: one permit, or how long until there is one.
-- KEYS 1 the permits given, a sorted set by time. ARGV 1 most in a window, 2 the window in µs.
-- Replies 0 if the permit is given, else µs to wait. The clock is the server's.
local now = redis.call('TIME')
local now_us = now[1] * 1000000 + now[2]
local most, window_us = tonumber(ARGV[1]), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_us - window_us)
local given = redis.call('ZCARD', KEYS[1])
if given < most then
    redis.call('ZADD', KEYS[1], now_us, now_us .. '-' .. redis.call('INCR', KEYS[1] .. ':number'))
    redis.call('PEXPIRE', KEYS[1], 60000)
    return 0
end
local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return math.max(1000, tonumber(oldest[2]) + window_us - now_us)
