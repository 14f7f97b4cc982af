-- Shared head of every lane script (the loader puts it after the script's shebang line).
--
-- KEYS[1]  cancelq:{LANE}:clock. Every other key of the lane carries the same prefix, hence the same slot.
--
-- Two clocks, both Redis': `wall` (TIME, for not_before, expires and events) and `steady`, which grows with
-- TIME but never back and never by more than a poll allows, for permits, leases, holds and backoff.
-- All times are microseconds.

local ROOT = string.sub(KEYS[1], 1, -6)
-- A dry run keeps everything under `…:dryrun:` and tells what it does in the stream `…:dryrun`; it reads the real inbox.
local DRY = string.match(ROOT, '^(.*:)dryrun:$')
local RESULTS = DRY and DRY .. 'dryrun' or ROOT .. 'results'
local INBOX = (DRY or ROOT) .. 'inbox'
local STEP_MAX_US = 4000000 -- twice the longest poll: a larger step of TIME is a jump, or an idle lane
local JUMP_HOLD_US = 1100000 -- one window of the longest per-account limit

-- Data of a newer version are left alone, by every script of a lane and before anything else (data_version.py). The
-- loader puts DATA_VERSION here.
--data-version
do
  local kept = redis.call('GET', ROOT .. 'version')
  if kept and tonumber(kept) > DATA_VERSION then
    return {err = 'NEWER the lane\'s data are of version ' .. kept .. ', and this program reads up to '
      .. DATA_VERSION .. ': run a newer one'}
  end
end

local function text(n) return string.format('%.0f', n) end

local wall, steady, server, out_until
local passed -- by how much `steady` grew since the last script
do
  local t = redis.call('TIME')
  wall = t[1] * 1000000 + t[2]
  local last_wall, last_steady
  local kept = redis.call('GET', KEYS[1])
  if kept then
    last_wall, last_steady, server, out_until = string.match(kept, '^(%d+) (%d+) (%S+) (%d+)$')
    last_wall, last_steady, out_until = tonumber(last_wall), tonumber(last_steady), tonumber(out_until)
  else
    last_wall, last_steady, server, out_until = wall, wall, '-', 0
  end
  local step = wall - last_wall
  local jumped = step < 0 or step > STEP_MAX_US
  if step < 0 then step = 0 elseif step > STEP_MAX_US then step = STEP_MAX_US end
  steady, passed = last_steady + step, step
  if jumped and out_until > last_steady then
    -- Permits or leases were out while time jumped: nobody knows how much of their window has passed.
    redis.call('HSET', ROOT .. 'hold', '*|clock', text(steady + JUMP_HOLD_US) .. ' the server clock jumped')
  end
end

-- `out_until`: the steady time until which any permit or lease is out.
local function keep_clock(new_out)
  if new_out and new_out > out_until then out_until = new_out end
  redis.call('SET', KEYS[1], text(wall) .. ' ' .. text(steady) .. ' ' .. server .. ' ' .. text(out_until))
end

-- An intent's state: one line of 19 words, the last one free text. `taken`: 0 at rest, 1 in a call that may
-- have been sent (the open flag), 2 claimed for a step that sends nothing.
local STATE = '^(%d+) (%d) (%a) (%d+) (%d+) (%d+) (%d+) (%a) (%d+) (%d+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%d+) (%d+) (.*)$'

local function parse(line)
  local s = {}
  s.fence, s.taken, s.stage, s.attempts, s.lookups, s.strikes, s.cap, s.priority, s.place, s.expires_ms,
    s.cancel_class, s.look_class, s.digest, s.orders, s.route, s.batch, s.size, s.taken_us, s.notes =
    string.match(line, STATE)
  s.fence = tonumber(s.fence)
  s.attempts = tonumber(s.attempts)
  s.strikes = tonumber(s.strikes)
  return s
end

local function pack(s)
  return string.format('%.0f %s %s %.0f %s %.0f %s %s %s %s %s %s %s %s %s %s %s %s %s',
    s.fence, s.taken, s.stage, s.attempts, s.lookups, s.strikes, s.cap, s.priority, s.place, s.expires_ms,
    s.cancel_class, s.look_class, s.digest, s.orders, s.route, s.batch, s.size, s.taken_us, s.notes)
end

-- A class' queue, and the small index of class heads beside it: one for each stage and priority.
local function lane_of(stage, priority) return stage .. ':' .. priority end

local function class_of(s)
  if s.stage == 'c' then return s.cancel_class end
  return s.look_class
end

local function enqueue(stage, priority, class, id, at)
  local where = lane_of(stage, priority)
  redis.call('ZADD', ROOT .. 'queue:' .. where .. ':' .. class, at, id)
  redis.call('ZADD', ROOT .. 'classes:' .. where, 'LT', at, class)
end

-- The same for many: gathered by queue, written at once by `queue_all`. 'local' is the queue of intents that
-- no call carries.
local function gather(lists, key, score, member)
  local list = lists[key]
  if not list then
    list = {}
    lists[key] = list
  end
  list[#list + 1] = score
  list[#list + 1] = member
end
local waiting = {}
local function queue_later(queue, id, at) gather(waiting, queue, at, id) end
local function queue_all()
  for queue, w in pairs(waiting) do
    redis.call('ZADD', ROOT .. 'queue:' .. queue, unpack(w))
    if queue ~= 'local' then
      local where, class = string.match(queue, '^(%a:%a):(.+)$')
      local least = w[1]
      for i = 3, #w, 2 do if tonumber(w[i]) < tonumber(least) then least = w[i] end end
      redis.call('ZADD', ROOT .. 'classes:' .. where, 'LT', least, class)
    end
  end
  waiting = {}
end

local function fix_head(where, class)
  local head = redis.call('ZRANGE', ROOT .. 'queue:' .. where .. ':' .. class, 0, 0, 'WITHSCORES')
  if head[1] then
    redis.call('ZADD', ROOT .. 'classes:' .. where, head[2], class)
  else
    redis.call('ZREM', ROOT .. 'classes:' .. where, class)
  end
end

-- Takes an intent out of whatever place it waits in.
local function unqueue(id, s)
  if s.cancel_class == 'local' then
    redis.call('ZREM', ROOT .. 'queue:local', id)
  else
    local where, class = lane_of(s.stage, s.priority), class_of(s)
    redis.call('ZREM', ROOT .. 'queue:' .. where .. ':' .. class, id)
    if s.stage == 'l' then redis.call('ZREM', ROOT .. 'sorted:' .. where .. ':' .. class, id) end
    fix_head(where, class)
  end
  redis.call('ZREM', ROOT .. 'timed', id)
  redis.call('ZREM', ROOT .. 'leases', id)
end

-- Puts an intent back where its state says, at its old place.
local function put_back(id, s)
  if s.cancel_class == 'local' then
    redis.call('ZADD', ROOT .. 'queue:local', s.place, id)
  else
    enqueue(s.stage, s.priority, class_of(s), id, s.place)
  end
end

-- The memory of settled ids: hashes `ids:<n>` of a few dozen ids each, small enough that the server keeps them packed,
-- which is half of what one large hash would take. An id's bucket follows from its key; whenever there are more than
-- so many ids a bucket, one bucket is split in two, in turn (linear hashing), so no change is ever larger than that.
-- `ids` tells how many ids, how many buckets, which bucket is looked through next for what is old, for how many hours
-- ids are kept (0: nobody has told yet) and how many were ever added. A value is 's' or 'n' (sent or not) with the
-- digest, a blank, and the hour since the epoch.
local IDS_A_BUCKET = 64
local ADDED_A_LOOK = 16 -- ids added for each bucket looked through: what is old stays an eighth longer than asked
local ids_now
local function ids_state()
  if not ids_now then
    local count, buckets, look, hours, added =
      string.match(redis.call('GET', ROOT .. 'ids') or '0 1 0 0 0', '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
    ids_now = {count = tonumber(count), buckets = tonumber(buckets), look = tonumber(look), hours = tonumber(hours),
      added = tonumber(added), hour = math.floor(wall / 3600000000),
      earlier = redis.call('ZREVRANGE', ROOT .. 'memory', 0, 200)} -- hours of the layout before this one
  end
  return ids_now
end
local function keep_ids(m)
  redis.call('SET', ROOT .. 'ids', string.format('%.0f %.0f %.0f %.0f %.0f', m.count, m.buckets, m.look, m.hours, m.added))
end

local function bucket_of(key, buckets)
  local a, b, c, d = string.byte(key, 9, 12)
  local n, size = ((a * 256 + b) * 256 + c) * 256 + d, 1
  while size < buckets do size = size * 2 end
  if n % size < buckets then return n % size end
  return n % (size / 2)
end

-- Whether an hour is past what is kept; an id is remembered an hour longer than asked, never less.
local function is_old(m, hour)
  return m.hours > 0 and hour < m.hour - m.hours - 1
end

-- What is known of a settled id, by its key: 's' or 'n' and the digest, or nil.
local function remembered(key)
  local m = ids_state()
  local kept = redis.call('HGET', ROOT .. 'ids:' .. text(bucket_of(key, m.buckets)), key)
  if kept then
    local value, hour = string.match(kept, '^(%S+) (%d+)$')
    if not is_old(m, tonumber(hour)) then return value end
  end
  for _, hour in ipairs(m.earlier) do
    kept = redis.call('HGET', ROOT .. 'memory:' .. hour, key)
    if kept then return kept end
  end
end

-- The bucket whose turn it is gives half of its ids to a new one. Written so that every prefix loses none.
local function split_ids(m)
  local size = 1
  while size * 2 <= m.buckets do size = size * 2 end
  local from, to = m.buckets - size, m.buckets
  local kept, moved, gone = redis.call('HGETALL', ROOT .. 'ids:' .. text(from)), {}, {}
  m.buckets = m.buckets + 1
  for i = 1, #kept, 2 do
    if bucket_of(kept[i], m.buckets) == to then
      moved[#moved + 1], moved[#moved + 2] = kept[i], kept[i + 1]
      gone[#gone + 1] = kept[i]
    end
  end
  if #moved > 0 then redis.call('HSET', ROOT .. 'ids:' .. text(to), unpack(moved)) end
  keep_ids(m)
  if #gone > 0 then redis.call('HDEL', ROOT .. 'ids:' .. text(from), unpack(gone)) end
end

-- Drops what is old from the next buckets; how many ids.
local function forget_ids(m, buckets)
  local dropped = 0
  for _ = 1, math.min(buckets, m.buckets) do
    m.look = m.look % m.buckets
    local key, gone = ROOT .. 'ids:' .. text(m.look), {}
    local kept = redis.call('HGETALL', key)
    for i = 1, #kept, 2 do
      if is_old(m, tonumber(string.match(kept[i + 1], '%d+$'))) then gone[#gone + 1] = kept[i] end
    end
    if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
    dropped, m.look = dropped + #gone, m.look + 1
  end
  m.count = math.max(0, m.count - dropped)
  return dropped
end

-- Remembers settled ids: {key, value, …}.
local function remember(pairs_)
  if #pairs_ == 0 then return end
  local m = ids_state()
  local before, stamp = m.added, ' ' .. text(m.hour)
  for i = 1, #pairs_, 2 do
    m.count = m.count + redis.call('HSET', ROOT .. 'ids:' .. text(bucket_of(pairs_[i], m.buckets)), pairs_[i],
      pairs_[i + 1] .. stamp)
    m.added = m.added + 1
  end
  if m.hours > 0 then
    forget_ids(m, math.floor(m.added / ADDED_A_LOOK) - math.floor(before / ADDED_A_LOOK))
  end
  while m.count > m.buckets * IDS_A_BUCKET do split_ids(m) end
  keep_ids(m)
end
