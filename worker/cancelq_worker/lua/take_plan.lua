-- Part of take.lua: the lane's plan, as its header tells it, and what every part of a take gathers: when to come back, and
-- steps without a call.

local REST_US = 10000000 -- how often a lane is looked at that is woken once there is something to do, in case that nobody did

local PLAN = ARGV[1]
local plan = {}
plan.venue, plan.account, plan.lease_us, plan.gap_us, plan.poll_us, plan.window_us, plan.errors_us,
  plan.errors_most = string.match(PLAN, '^(%S+) (%S+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)\n')
for _, name in ipairs({'lease_us', 'gap_us', 'poll_us', 'window_us', 'errors_us', 'errors_most'}) do
  plan[name] = tonumber(plan[name])
end

local function plan_bucket(name)
  local _, at = string.find(PLAN, '\nB ' .. name .. ' ', 1, true)
  local units, window_us, reserve, fixed = string.match(PLAN, '^(%d+) (%d+) (%d+) (%d)', at + 1)
  return tonumber(units), tonumber(window_us), tonumber(reserve), fixed == '1'
end

-- The routes that serve a class.
local function plan_routes(queue, class)
  local routes, head, at = {}, '\nR ' .. queue .. ':' .. string.match(class, '^[^:]+') .. ' ', 1
  while true do
    local _, last = string.find(PLAN, head, at, true)
    if not last then return routes end
    local name, most, least, bucket, per_call, per_order, downwards, by_class, errors, stage, walk =
      string.match(PLAN, '^(%S+) (%d+) (%d+) (%S+) (%d+) (%d+) (%d) (%d) (%d+) (%a) (%S+)', last + 1)
    if by_class == '1' then per_call = string.match(class, ':(%d+)$') or 1 end
    routes[#routes + 1] = {
      name = name, most = tonumber(most), least = tonumber(least), bucket = bucket, per_call = tonumber(per_call),
      per_order = tonumber(per_order), downwards = downwards == '1', by_class = by_class == '1',
      errors = tonumber(errors), stage = stage, walk = walk ~= '-' and walk,
    }
    at = last
  end
end

local batch_id = ARGV[3]
local lease_end = text(steady + plan.lease_us)
local next_at = steady + plan.poll_us -- the earliest steady time at which something can happen
local resting = true -- nothing is due, held or out: whoever changes that wakes the lane
local function no_later(at)
  resting = false
  if at < next_at then next_at = at end
end

-- The first score of one of the lane's sorted sets, read once; `firsts` forgets it where a take has written there since.
local firsts = {}
local function first_of(set)
  if not firsts[set] then
    local found = redis.call('ZRANGE', ROOT .. set, 0, 0, 'WITHSCORES')
    firsts[set] = found[2] and tonumber(found[2]) or math.huge
  end
  return firsts[set]
end

local steps = {}
local function step(why, id, line, record)
  steps[#steps + 1] = why
  steps[#steps + 1] = id
  steps[#steps + 1] = line
  steps[#steps + 1] = record
end

-- Leases an intent for a step without a call. Its place in the queues is the caller's to clear.
local function lease_step(why, id, s, line)
  local record = redis.call('HGET', ROOT .. 'intents', id)
  s.fence, s.taken = s.fence + 1, '2'
  redis.call('HSET', ROOT .. 'state', id, pack(s))
  redis.call('ZADD', ROOT .. 'leases', lease_end, id)
  firsts.leases = nil
  step(why, id, line, record or '{}')
end
