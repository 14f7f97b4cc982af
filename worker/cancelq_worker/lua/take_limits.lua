-- Part of take.lua: what may be sent now: holds, buckets, endpoints closed by equal errors, and the route that fits.

--include hold_end
-- 5. Holds: kept by reason, and all of them must have ended.
local held, paused = {}, ARGV[4] == '1'
do
  local kept = plain and {} or redis.call('HGETALL', ROOT .. 'hold')
  for i = 1, #kept, 2 do
    local scope, reason = string.match(kept[i], '^(.-)|(.+)$')
    local till = hold_end(reason, kept[i + 1])
    resting = false
    if till ~= -1 and till <= steady then
      redis.call('HDEL', ROOT .. 'hold', kept[i])
    elseif reason == 'paused' then
      paused = true
    elseif reason ~= 'unreachable' or ARGV[8] ~= '1' then -- else it is another's way that is broken
      if till == -1 then till = math.huge end
      if not held[scope] or held[scope] < till then held[scope] = till end
    end
  end
end
-- Held without an end: come back soon enough that an operator's `resume` works within a second.
local stopped = (held['*'] or 0) == math.huge
if paused or stopped then no_later(steady + 400000) end
local function hold_of(bucket)
  return math.max(held['*'] or 0, held[bucket] or 0)
end

-- Units of a bucket free for this priority now, and when the next one is. After a refusal one call goes alone, and
-- until it is answered the bucket is closed to all others.
local PROBE_POLL_US = 20000
-- How long a larger limit is believed that an answer told: the account may have lost it since, or be another one. The next
-- answer tells it again.
local TOLD_US = 60000000
local seen_buckets = {}
local function bucket_state(name)
  local b = seen_buckets[name]
  if not b then
    local key = ROOT .. 'permits:' .. name
    redis.call('ZREMRANGEBYSCORE', key, '-inf', text(steady))
    local units, window_us, reserve, fixed = plan_bucket(name)
    local stats = redis.call('HMGET', ROOT .. 'rtt:' .. name, 'units', 'probe', 'fast', 'last', 'told_us', 'told_wall',
      'shut', 'fast_at')
    local told, told_wall = tonumber(stats[1]), tonumber(stats[6] or 0)
    -- By both clocks: the steady one stands still while nobody is there.
    local lately = steady < tonumber(stats[5] or 0) + TOLD_US and wall >= told_wall and wall < told_wall + TOLD_US
    if told and (told < units or (lately and not fixed)) then units = told end
    -- A window after it was relied on last, no permit is free any more before the venue has forgotten its call.
    local relied = steady < tonumber(stats[8] or steady) + window_us
    b = {key = key, units = units, window_us = window_us, reserve = math.min(reserve, math.floor(units / 5)),
      used = redis.call('ZCARD', key), probe = stats[2], fastest = relied and stats[3] or '0',
      last = tonumber(stats[4] or 0), shut = tonumber(stats[7] or 0)}
    b.probing = b.probe and (tonumber(string.match(b.probe, '^(%d+) ')) or 0) > steady
    seen_buckets[name] = b
  end
  return b
end
-- While an urgent sweep is under way (`sweeping`: until when it surely is, and when that began), what is normal steps
-- aside: between two of its calls it would take every permit that becomes free, and the rounds' time. At first
-- altogether, as the seconds of a kill count; where sweeps go on and on, normal cancels leave them nine tenths of each
-- bucket, so that nothing waits for ever.
local YIELDED, ASIDE_US = 0.9, 12000000
local yielding, urgent_sweep, aside = false, false, false
local sweeping, streamed = unpack(redis.call('MGET', ROOT .. 'sweeping', ROOT .. 'stream'))
do
  local till, began = string.match(sweeping or '', '^(%d+) (%d+)$')
  urgent_sweep = till and tonumber(till) > steady
  aside = urgent_sweep and steady < tonumber(began) + ASIDE_US
  if aside then no_later(math.min(tonumber(till), tonumber(began) + ASIDE_US)) end
end
local function kept(b, urgent)
  if urgent then return 0 end
  if yielding then return math.max(b.reserve, math.floor(b.units * YIELDED)) end
  return b.reserve
end
local function free_units(name, urgent)
  local b = bucket_state(name)
  return b.units - kept(b, urgent) - b.used
end
local function free_at(name, urgent, need)
  local b = bucket_state(name)
  local till = math.max(hold_of(name), b.shut)
  if b.probing then return math.max(till, steady + PROBE_POLL_US) end
  -- A call that costs more than there ever is goes when all of it is free: the venue may have made the bucket smaller.
  local missing = math.min(need, b.units - kept(b, urgent)) - free_units(name, urgent)
  if missing > 0 then
    local nth = redis.call('ZRANGE', b.key, missing - 1, missing - 1, 'WITHSCORES')
    if nth[2] and tonumber(nth[2]) > till then till = tonumber(nth[2]) end
    if not nth[2] then return math.huge end
  end
  return till
end

-- Venues lock an endpoint after so many equal errors: when there were such lately, by code, the newest first; how many
-- calls are under way that may end in one more; and how many were never answered, and may have.
local errors_seen = {}
local function errors_at(bucket)
  local seen = errors_seen[bucket]
  if not seen then
    local key = ROOT .. 'errors:' .. bucket
    local asked, forgotten = key .. ':asked', text(steady - plan.errors_us)
    redis.call('ZREMRANGEBYSCORE', key, '-inf', forgotten)
    redis.call('ZREMRANGEBYSCORE', asked, '-inf', forgotten)
    local under_way = redis.call('ZCOUNT', asked, '(' .. text(steady - plan.lease_us), '+inf')
    seen = {times = {}, most = 0, under_way = under_way, unanswered = redis.call('ZCARD', asked) - under_way}
    local kept = redis.call('ZREVRANGE', key, 0, 399, 'WITHSCORES')
    for i = 1, #kept, 2 do
      local code = string.match(kept[i], '^%S+')
      if code == '?' then -- as versions before 0.2 noted a call
        local lately = tonumber(kept[i + 1]) > steady - plan.lease_us
        local where = lately and 'under_way' or 'unanswered'
        seen[where] = seen[where] + 1
      else
        local times = seen.times[code] or {}
        seen.times[code] = times
        times[#times + 1] = tonumber(kept[i + 1])
        if #times > seen.most then seen.most = #times end
      end
    end
    errors_seen[bucket] = seen
  end
  return seen
end
-- Until when a route is closed by errors that were told; nil if it is not.
local function locked_until(r)
  local seen = errors_at(r.bucket)
  if seen.most < r.errors then return nil end
  local till = 0
  for _, times in pairs(seen.times) do
    if times[r.errors] and times[r.errors] > till then till = times[r.errors] end
  end
  return till + plan.errors_us
end
-- Whether calls that may yet end in an error, or may have, keep a route closed.
local function in_doubt(r)
  local seen, doubted = errors_at(r.bucket), 0
  -- What was seen open does not wait for calls that were never answered: after an outage that would be minutes.
  if r.errors < plan.errors_most then doubted = seen.unanswered end
  return seen.most + seen.under_way + doubted >= plan.errors_most
end

-- Whether a walk through the pages of a list is under way where this class would begin one: visible in its queue, or in
-- somebody's hands. Walks that stand on different pages never meet, and each reads the whole list; so whoever comes
-- meanwhile waits, and all of them begin together. Who waits before trying again, or is in hands alone, keeps nobody
-- waiting. Where another route may carry the class, it does not wait.
local WALK, PAGES, LEASED = '^%a+:(.+):(%d+)$', 100, 1000
local function under_way(queue, class, urgent, kind)
  local from, page = string.match(class, WALK)
  if page ~= '1' then return false end
  local where, further = lane_of(queue, urgent and 'u' or 'n'), {}
  for n = 2, PAGES do further[n - 1] = kind .. ':' .. from .. ':' .. text(n) end
  local heads = redis.call('ZMSCORE', ROOT .. 'classes:' .. where, unpack(further))
  for i = 1, #further do
    if heads[i] and tonumber(heads[i]) <= steady then return true end
  end
  local ids = redis.call('ZRANGE', ROOT .. 'leases', 0, LEASED - 1)
  local lines = #ids > 0 and redis.call('HMGET', ROOT .. 'state', unpack(ids)) or {}
  for i = 1, #ids do
    local s = lines[i] and parse(lines[i])
    if s and s.taken == '1' and s.cap ~= '1' and lane_of(s.stage, s.priority) == where
      and string.match(s.look_class, WALK) == from then
      return true
    end
  end
  return false
end

-- The routes that may carry a class now, apart from permits, and when there may be more. Where errors have closed a
-- route of orders that nobody saw, nothing of that class is sent unseen: only the route that looks first remains. Of
-- a class that was seen already the other routes go on. When all of them are locked for a while, by errors or by the
-- venue itself, it is looked at again: who waits for minutes may have ended meanwhile, and would be the next error.
-- `opens` keeps when the first of them opens again, by class.
local LOOK_AGAIN_US = 5000000
local opens = {}
local starved = 0 -- 1 if something waits for the share of the caller's address, 2 if that is urgent
local function usable_routes(queue, class, urgent)
  local routes, usable, at, closed = plan_routes(queue, class), {}, math.huge, {}
  local looks, unsafe, open_at = false, false, math.huge
  for i, r in ipairs(routes) do
    local till = r.errors > 0 and locked_until(r)
    closed[i] = till or (r.errors > 0 and in_doubt(r))
    if closed[i] then
      at = math.min(at, math.max(till or 0, steady + 100000))
      unsafe = unsafe or r.errors < plan.errors_most
    end
    if r.stage == 'c' then open_at = math.min(open_at, math.max(till or 0, r.errors > 0 and held[r.bucket] or 0)) end
    looks = looks or (queue == 'c' and r.stage == 'l')
  end
  for _, r in ipairs(routes) do
    -- A batch that names more than there ever is names as many as that: the venue may have made the bucket smaller.
    if r.by_class then r.per_call = math.max(1, math.min(r.per_call, bucket_state(r.bucket).units)) end
  end
  local stage, short, walked = queue, false, false
  if looks and (unsafe or open_at > steady + LOOK_AGAIN_US) then stage = 'l' end
  if stage ~= queue and open_at < math.huge then opens[class] = open_at end
  for i, r in ipairs(routes) do
    local name = ' ' .. r.name .. ' '
    if string.find(ARGV[5], name, 1, true) or (not urgent and string.find(ARGV[6], name, 1, true)) then
      short = true
    elseif not closed[i] and string.find(ARGV[2], r.stage, 1, true) and r.stage == stage then
      if r.walk and #usable == 0 and under_way(queue, class, urgent, r.walk) then
        walked, at = true, math.min(at, steady + 100000)
      else
        usable[#usable + 1] = r
      end
    end
  end
  if short then starved = math.max(starved, urgent and 2 or 1) end
  return usable, at, short, walked
end

-- Until when a call that could carry more is kept back: once a third of a bucket is in use, such calls keep the distance
-- at which the rest lasts for the window. Else a steady flow would spend all permits on a few orders each, and what
-- comes next would wait out the window. `since`: when the order that waits longest began to: it waits no longer for it.
local function spaced(name, need, since)
  local b = bucket_state(name)
  if b.used * 3 < b.units then return 0 end
  return math.min(b.last, since) + need * b.window_us / b.units
end

-- The route that carries most of a class' visible orders among those with a permit, the smallest of those; else when one
-- will have one, and whether one waits for the caller's address. And whether no class of its kind has any: how many wait
-- there, since when, and what a call of this one costs made no difference.
local function route_for(queue, class, visible, urgent, since)
  local best, best_carry, best_fits = nil, 0, false
  local routes, at, short, walked = usable_routes(queue, class, urgent)
  local largest, none = 0, not walked
  for _, r in ipairs(routes) do largest = math.max(largest, r.most) end
  local sparse = queue == 'c' and not urgent and visible < largest
  for i, r in ipairs(routes) do
    local most, least, bucket, per_call, per_order = r.most, r.least, r.bucket, r.per_call, r.per_order
    local carry = math.min(visible, most)
    if per_order > 0 then
      carry = math.min(carry, math.max(1, math.floor((free_units(bucket, urgent) - per_call) / per_order)))
    end
    local need = per_call + per_order * carry
    local when = free_at(bucket, urgent, need)
    none = none and when > steady and not r.by_class
    if sparse then when = math.max(when, spaced(bucket, need, since)) end
    if when <= steady then
      local fits = visible >= least
      if not best or (fits and not best_fits) or (fits == best_fits and (carry > best_carry or (carry == best_carry and most < best.most))) then
        best, best_carry, best_fits = r, carry, fits
      end
      -- What carries all of them in company enough is beaten by a smaller one only.
      if best_fits and best_carry == visible then
        local smaller = false
        for n = i + 1, #routes do smaller = smaller or routes[n].most < best.most end
        if not smaller then break end
      end
    elseif when < at then
      at = when
    end
  end
  return best, best_carry, best_fits, at, short, none
end
