#!lua flags=no-writes,allow-stale
-- PACE: how many entries came into a stream in the last hour, about.
--
-- KEYS[1]  the stream
-- Replies  {entries there are, entries of the last hour}
-- Of each of twelve slices of five minutes a few entries are read. A slice that has no more of them is counted exactly;
-- of a fuller one the time that those few took tells how many it has.

local SLICES, SLICE_MS, READ = 12, 300000, 50

local now_ms = tonumber(redis.call('TIME')[1]) * 1000 + 999
local count = 0
for n = 1, SLICES do
  local from = now_ms - n * SLICE_MS
  local to = from + SLICE_MS - 1
  local first = string.format('%.0f', from)
  local found = redis.call('XRANGE', KEYS[1], first, string.format('%.0f', to), 'COUNT', READ)
  if #found < READ then
    count = count + #found
  else
    local took = tonumber(string.match(found[READ][1], '^%d+')) - from + 1
    count = count + math.floor(READ * SLICE_MS / took)
  end
end
return {redis.call('XLEN', KEYS[1]), count}
