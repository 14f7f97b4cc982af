#!lua flags=allow-oom
-- VERSION: of which version a lane's data are; raised on request, never lowered.
--
-- KEYS[1]  the lane's clock
-- ARGV[1]  '0' to ask, else the version that the data shall have from now on
-- Replies  the version, as a number. Data that were written before versions were kept, and a lane without any, are of
--          the first.

local key = string.sub(KEYS[1], 1, -6) .. 'version'
local kept, wanted = tonumber(redis.call('GET', key) or '1'), tonumber(ARGV[1])
if wanted > kept then
  redis.call('SET', key, string.format('%.0f', wanted))
  return wanted
end
return kept
