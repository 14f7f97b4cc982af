#!lua flags=allow-oom
-- ARCHIVED: what only the one archiver of a lane may do: tell what is verified, and trim what is.
--
-- KEYS[1]  cancelq:{LANE}:archived   "<last verified entry> <its segment> <the hash of the segment's manifest line>"
-- KEYS[2]  cancelq:{LANE}:archiver   the token of whoever holds the lane
-- KEYS[3]  cancelq:{LANE}:results
-- ARGV[1]  the caller's token
-- ARGV[2]  'mark', what the marker must hold now ('' for none), what it shall hold
--          'trim', what the marker must hold now, the first entry to be kept, '1' to pass over consumer groups
-- Replies  {'lost'}                       another archiver holds the lane: nothing was done
--          {'changed', what it holds}     the marker is not as it was thought to be: nothing was done
--          {'done', trimmed, kept, group} `kept`: the first entry that was to be kept in the end; `group`: the consumer
--                                         group that has not read, or not acknowledged, what lies before it, or ''
-- Checked and done in one step: a group that is made or set back meanwhile loses nothing.

local archived, archiver, results = KEYS[1], KEYS[2], KEYS[3]
local token, act, expected = ARGV[1], ARGV[2], ARGV[3]

if redis.call('GET', archiver) ~= token then return {'lost'} end
local held = redis.call('GET', archived) or ''
if held ~= expected then return {'changed', held} end

if act == 'mark' then
  redis.call('SET', archived, ARGV[4])
  return {'done', 0, '', ''}
end

-- As text: ids of 20 digits would not fit a number.
local function later(a, b)
  local a_ms, a_seq = string.match(a, '^0*(%d+)-0*(%d+)$')
  local b_ms, b_seq = string.match(b, '^0*(%d+)-0*(%d+)$')
  if #a_ms ~= #b_ms then return #a_ms > #b_ms end
  if a_ms ~= b_ms then return a_ms > b_ms end
  if #a_seq ~= #b_seq then return #a_seq > #b_seq end
  return a_seq > b_seq
end

local kept, by = ARGV[4], ''
-- What is verified ends with the marker's entry; the one after it is the last that may be the first to be kept.
local most = string.match(held, '^(%d+%-)') .. string.format('%.0f', tonumber(string.match(held, '^%d+%-(%d+)')) + 1)
if later(kept, most) then kept = most end
if ARGV[5] ~= '1' then
  for _, told in ipairs(redis.call('XINFO', 'GROUPS', results)) do
    local group = {}
    for i = 1, #told, 2 do group[told[i]] = told[i + 1] end
    local needs = group['last-delivered-id']
    if tonumber(group['pending']) > 0 then
      local oldest = redis.call('XPENDING', results, group['name'])[2]
      if oldest and later(needs, oldest) then needs = oldest end
    end
    if later(kept, needs) then kept, by = needs, group['name'] end
  end
end
return {'done', redis.call('XTRIM', results, 'MINID', kept), kept, by}
