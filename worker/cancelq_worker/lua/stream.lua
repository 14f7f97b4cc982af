#!lua flags=allow-oom
-- STREAM: which worker holds the lane's private order stream, and whether it is alive.
--
-- KEYS[1]  the lane's clock
-- ARGV     worker, lease_ms, what: 'hold' (or keep) it, 'live' the same and it tells of every order now, 'leave' it
-- Replies  1 if this worker holds it now, else 0
-- `stream` exists while the stream is alive: after an acknowledgement a look may wait for its push.

local ROOT = string.sub(KEYS[1], 1, -6)
local lease_key, live_key = ROOT .. 'stream:lease', ROOT .. 'stream'
local holder = redis.call('GET', lease_key)
if holder and holder ~= ARGV[1] then return 0 end
if ARGV[3] == 'leave' then
  redis.call('DEL', lease_key, live_key)
  return 0
end
redis.call('SET', lease_key, ARGV[1], 'PX', ARGV[2])
if ARGV[3] == 'live' then redis.call('SET', live_key, ARGV[1], 'PX', ARGV[2]) else redis.call('DEL', live_key) end
return 1
