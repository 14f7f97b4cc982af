#!lua flags=no-writes
-- LOOK: what `status` and `top` show of one lane, at one moment. It changes nothing.
--
-- KEYS[1]  the lane's clock
-- ARGV     mark of the last look at a lane at rest, or ''; '1' to be told `sent`, and `oldest` exactly, which takes the right
--          to read the state of intents
-- Replies  {} if the lane has no inbox; {mark} if nothing has happened since the look of that mark; else
--          {mark, wall_us, steady_us, touched_us, queued, confirming, oldest, in_flight, timed, inbox length,
--           results length, cursor, first, whole, ahead, holds, buckets, sent}
--   mark: differs once a worker, a producer or an operator did anything here; the passing of time it does not tell
--   touched_us: wall time at which a worker last did anything here; oldest: steady time (us) of the longest waiting
--   unsent intent; first: the first entry of the inbox that is not admitted; each empty where there is none
--   whole: 1 if no entry of the inbox is admitted; ahead: entries after the cursor that are admitted all the same
--   holds: scope|reason, until and why, … as kept
--   buckets: name, limit, units in use, refusals, refused_ms, …; the last two may be empty
--   sent: wall time (us) of the last cancel call for whichever intent has waited longest for its end since; of many that
--   wait, some of those due first and last are looked at
-- `steady_us` may be ahead of the lane's own steady clock while nobody serves the lane, as no script moves that one.

local ROOT = string.sub(KEYS[1], 1, -6)
local CLASSES_MOST, AHEAD_MOST = 1000, 64
local LAST_ID = '18446744073709551615-18446744073709551615' -- none can follow, and the server refuses to look behind it

local function text(n) return string.format('%.0f', n) end

if redis.call('EXISTS', ROOT .. 'inbox') == 0 then return {} end
local clock, inbox = redis.call('GET', KEYS[1]) or '', redis.call('XLEN', ROOT .. 'inbox')
local mark = clock .. ' ' .. text(inbox) .. ' ' .. text(redis.call('HLEN', ROOT .. 'hold'))
if mark == ARGV[1] then return {mark} end

local t = redis.call('TIME')
local wall = t[1] * 1000000 + t[2]
local steady = wall
local last_wall, last_steady = string.match(clock, '^(%d+) (%d+) ')
if last_wall then steady = last_steady + math.max(0, wall - last_wall) end

-- A class' head is never before its entry in the index of heads: once that is later than the oldest, no class is older.
local waiting, oldest = {c = 0, l = 0}, nil
for _, where in ipairs({'c:u', 'c:n', 'l:u', 'l:n'}) do
  local stage = string.sub(where, 1, 1)
  local heads = redis.call('ZRANGE', ROOT .. 'classes:' .. where, 0, CLASSES_MOST - 1, 'WITHSCORES')
  for i = 1, #heads, 2 do
    local queue = ROOT .. 'queue:' .. where .. ':' .. heads[i]
    waiting[stage] = waiting[stage] + redis.call('ZCARD', queue)
    if stage == 'c' and (not oldest or tonumber(heads[i + 1]) < oldest) then
      local head = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
      local at = tonumber(head[2])
      if at and (not oldest or at < oldest) then oldest = at end
    end
  end
end

-- Adds the intents at both ends of the queues of those classes of a stage and priority that are due first and last.
local CLASSES, ENDS, ENDS_ALONE = 2, 4, 8 -- at either end; of a class that is alone
local function add_ends(ids, where)
  local index, classes, has = ROOT .. 'classes:' .. where, {}, {}
  local function note(from, to)
    for _, class in ipairs(redis.call('ZRANGE', index, from, to)) do
      if not has[class] then classes[#classes + 1] = class end
      has[class] = true
    end
  end
  note(0, CLASSES - 1)
  note(-CLASSES, -1)
  local ends = #classes == 1 and ENDS_ALONE or ENDS
  for _, class in ipairs(classes) do
    local queue = ROOT .. 'queue:' .. where .. ':' .. class
    for _, id in ipairs(redis.call('ZRANGE', queue, 0, ends - 1)) do ids[#ids + 1] = id end
    for _, id in ipairs(redis.call('ZRANGE', queue, -ends, -1)) do ids[#ids + 1] = id end
  end
end
local function lines_of(ids) return #ids > 0 and redis.call('HMGET', ROOT .. 'state', unpack(ids)) or {} end
-- The least number that `pattern` finds in these state lines.
local function least_of(lines, pattern)
  local least
  for _, line in ipairs(lines) do
    local n = line and tonumber(string.match(line, pattern)) or 0
    if n > 0 and (not least or n < least) then least = n end
  end
  return least
end
local WORD = '%S+ ' -- of a state line (prelude.lua)

-- Who stepped back for a call that has its order stands in the queue as of when it may go, behind all others, but waits
-- since its place.
local UNSENT_SINCE = '^' .. string.rep(WORD, 3) .. '0 ' .. string.rep(WORD, 4) .. '(%d+) '
local function unsent_lines()
  local ids = {}
  for _, where in ipairs({'c:u', 'c:n'}) do add_ends(ids, where) end
  return lines_of(ids)
end
local to_be_sent = ARGV[2] == '1' and waiting.c > 0 and unsent_lines() or {}
do
  local place = least_of(to_be_sent, UNSENT_SINCE)
  if place and (not oldest or place < oldest) then oldest = place end
end

-- In hand: whose lease ends first was taken first. In a look queue, who is due first has waited longest for its look, and
-- who is due last was looked for most often, as the pauses grow. Who is to be sent again has no end either.
local SENT_MOST = 16 -- intents in hand
local TAKEN_US = '^' .. string.rep(WORD, 17) .. '(%d+) ' -- 0 before the first cancel call
local function first_sent()
  local ids = redis.call('ZRANGE', ROOT .. 'leases', 0, SENT_MOST - 1)
  for _, where in ipairs({'l:u', 'l:n'}) do add_ends(ids, where) end
  local looked_for, again = least_of(lines_of(ids), TAKEN_US), least_of(to_be_sent, TAKEN_US)
  return math.min(looked_for or math.huge, again or math.huge)
end
local sent = ARGV[2] == '1' and first_sent() or math.huge

local cursor = redis.call('GET', ROOT .. 'cursor')
local after, first, whole = cursor and '(' .. cursor or '-', '', 0
local function next_entry(from)
  if from == '(' .. LAST_ID then return nil end
  return redis.call('XRANGE', ROOT .. 'inbox', from, '+', 'COUNT', 1)[1]
end
local ahead = redis.call('SCARD', ROOT .. 'ahead')
do
  local entry = next_entry(after)
  if entry and entry[1] == redis.call('XRANGE', ROOT .. 'inbox', '-', '+', 'COUNT', 1)[1][1] then whole = 1 end
  local seen = 0
  while entry and ahead > 0 and seen < AHEAD_MOST and redis.call('SISMEMBER', ROOT .. 'ahead', entry[1]) == 1 do
    entry = next_entry('(' .. entry[1])
    seen = seen + 1
  end
  if entry then first = entry[1] end
end

local buckets, limits = {}, redis.call('HGETALL', ROOT .. 'limits')
for i = 1, #limits, 2 do
  local used = redis.call('ZCOUNT', ROOT .. 'permits:' .. limits[i], '(' .. text(steady), '+inf')
  local kept = redis.call('HMGET', ROOT .. 'rtt:' .. limits[i], 'refusals', 'refused_ms')
  for _, value in ipairs({limits[i], limits[i + 1], used, kept[1] or '', kept[2] or ''}) do
    buckets[#buckets + 1] = value
  end
end

return {mark, text(wall), text(steady), last_wall or '', waiting.c, waiting.l, oldest and text(oldest) or '',
  redis.call('ZCARD', ROOT .. 'leases'), redis.call('ZCARD', ROOT .. 'timed'),
  inbox, redis.call('XLEN', ROOT .. 'results'),
  cursor or '', first, whole, ahead, redis.call('HGETALL', ROOT .. 'hold'), buckets,
  sent < math.huge and text(sent) or ''}
