#!lua flags=no-writes
-- AHEAD: looks for urgent entries in a part of the inbox that is not admitted yet.
--
-- KEYS[1]  the lane's inbox
-- ARGV     entry id to look after, entries to read at most, urgent entries to find at most, bytes of one at most
-- Replies  {id of the last entry looked at, entries that say they are urgent}
-- A larger one is rejected in its turn: many of them were more than a round can carry.

local after, found, bytes_most = ARGV[1], {}, tonumber(ARGV[4])
local function fits(fields)
  local bytes = 0
  for i = 1, #fields do bytes = bytes + #fields[i] end
  return bytes <= bytes_most
end
local read = redis.call('XRANGE', KEYS[1], '(' .. after, '+', 'COUNT', ARGV[2])
for _, entry in ipairs(read) do
  after = entry[1]
  local fields = entry[2]
  for i = 1, #fields, 2 do
    if fields[i] == 'priority' then
      if fields[i + 1] == 'urgent' and fits(fields) then found[#found + 1] = entry end
      break
    end
  end
  if #found >= tonumber(ARGV[3]) then break end
end
return {after, found}
