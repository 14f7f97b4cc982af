#!lua flags=allow-oom
-- TRIM: drops what is old from the streams and the memory.
--
-- KEYS[1]  the lane's clock
-- ARGV     keep_ms (0 keeps all), dedup_hours, the caller's wall clock in ms
-- Replies  {results trimmed, inbox trimmed, ids forgotten}
-- Two clocks must agree to an hour before anything is dropped: a clock that jumps must not empty the audit.
-- The inbox is never trimmed past the cursor, and results of a lane that has an archive (`archived` says up to which
-- entry it is verified) never past what is in it.

--include prelude
--include memory

if math.abs(wall / 1000 - tonumber(ARGV[3])) > 3600000 then return {0, 0, 0} end

local results, inbox = 0, 0
local keep_ms = tonumber(ARGV[1])
if keep_ms > 0 then
  local least = math.floor(wall / 1000) - keep_ms
  local archived = string.match(redis.call('GET', ROOT .. 'archived') or '', '^(%d+%-%d+)')
  local verified = archived and tonumber(string.match(archived, '^%d+')) < least
  results = redis.call('XTRIM', RESULTS, 'MINID', '~', verified and archived or text(least))
  local at_ms = tonumber(string.match(redis.call('GET', ROOT .. 'cursor') or '0-0', '^%d+'))
  if not DRY then inbox = redis.call('XTRIM', INBOX, 'MINID', '~', text(math.min(least, at_ms))) end
end
local oldest = math.floor(wall / 3600000000) - tonumber(ARGV[2]) - 1
for _, hour in ipairs(redis.call('ZRANGEBYSCORE', ROOT .. 'memory', '-inf', '(' .. text(oldest), 'LIMIT', 0, 4)) do
  redis.call('UNLINK', ROOT .. 'memory:' .. hour)
  redis.call('ZREM', ROOT .. 'memory', hour)
end

-- All buckets within an hour of calls a minute, but never so many that others wait for it; a lane that has more is a
-- busy one, and looks through its buckets as it adds to them.
local ids, forgotten = memory(), 0
ids.hours = tonumber(ARGV[2])
if ids.count > 0 then
  forgotten = ids.forget(math.min(100, math.ceil(ids.buckets / 60)))
  ids.keep()
end
keep_clock()
return {results, inbox, forgotten}
