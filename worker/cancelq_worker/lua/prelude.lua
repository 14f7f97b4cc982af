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
local passed, lost -- by how much `steady` grew since the last script, and TIME beyond that
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
  passed = math.min(math.max(step, 0), STEP_MAX_US)
  steady, lost = last_steady + passed, math.max(0, step - passed)
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

-- Puts a class' entry in the index right; when its head is due, nil if nothing waits there.
local function fix_head(where, class)
  local head = redis.call('ZRANGE', ROOT .. 'queue:' .. where .. ':' .. class, 0, 0, 'WITHSCORES')
  if head[1] then
    redis.call('ZADD', ROOT .. 'classes:' .. where, head[2], class)
  else
    redis.call('ZREM', ROOT .. 'classes:' .. where, class)
  end
  return tonumber(head[2])
end

-- What is to be sent later, as it tries again or its endpoint is locked, has waited while nobody served the lane, too. By a
-- clock that went ahead it comes early, and finds closed what is closed.
local WAITED_MOST = 1000 -- of a class
for _, where in ipairs(lost > 0 and {'c:u', 'c:n'} or {}) do
  for _, class in ipairs(redis.call('ZRANGE', ROOT .. 'classes:' .. where, 0, 99)) do
    local queue = ROOT .. 'queue:' .. where .. ':' .. class
    local later = redis.call('ZRANGEBYSCORE', queue, '(' .. text(steady), '+inf', 'WITHSCORES', 'LIMIT', 0, WAITED_MOST)
    local moved = {}
    for i = 1, #later, 2 do
      moved[i], moved[i + 1] = text(math.max(steady - #later + i, later[i + 1] - lost)), later[i]
    end
    if #moved > 0 then
      redis.call('ZADD', queue, unpack(moved))
      fix_head(where, class)
    end
  end
end

-- Pages of looks reach intents by their orders' ids: beside a look queue stand its intents in that order. The ids have 19
-- digits, a score holds 16: they are text of one length, and all scores are 0.
local function by_order(order_id, id) return string.rep('0', 20 - #order_id) .. order_id .. ' ' .. id end
local function among_orders(orders, id) -- the same by the keys of its orders; nil if none of them is an order id
  for key in string.gmatch(orders, '[^,]+') do
    local order_id = string.match(key, '^%a+:i:(%d+)$')
    if order_id then return by_order(order_id, id) end
  end
end

-- Takes an intent out of whatever place it waits in.
local function unqueue(id, s)
  if s.cancel_class == 'local' then
    redis.call('ZREM', ROOT .. 'queue:local', id)
  else
    local where, class = lane_of(s.stage, s.priority), class_of(s)
    redis.call('ZREM', ROOT .. 'queue:' .. where .. ':' .. class, id)
    local member = s.stage == 'l' and among_orders(s.orders, id)
    if member then redis.call('ZREM', ROOT .. 'sorted:' .. where .. ':' .. class, member) end
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
