#!lua flags=no-writes
-- ALIVE: which workers are alive, for those who only look. It changes nothing.
--
-- KEYS[1]  the roster, as in roster.lua
-- ARGV     how old in ms a heartbeat may be
-- Replies  {name, …}, sorted. Whose clock: Redis' TIME.

local t = redis.call('TIME')
local now_ms = t[1] * 1000 + math.floor(t[2] / 1000)
local fresh = redis.call('ZRANGEBYSCORE', KEYS[1],
  string.format('%.0f', now_ms - tonumber(ARGV[1])), string.format('%.0f', now_ms + 1000)) -- the clock may have gone back
table.sort(fresh)
return fresh
