#!lua flags=allow-oom
-- TAKE: a permit and the orders its call can carry, in one step; or how long until there is something to do.
--
-- KEYS[1]  the lane's clock
-- ARGV[1]  the lane's plan, in lines, read where a word of it is needed (as JSON, reading it was half of an idle take):
--            venue account lease_us gap_us poll_us window_us errors_us errors_most
--            B bucket units window_us reserve fixed                                              for each bucket
--            R queue:kind route most least bucket per_call per_order downwards by_class errors stage
--                                                                                    for each route and kind
--          reserve: units only urgent intents may take, at most a fifth of the bucket; fixed: 1 if the operator set
--          `units`: a size that the venue tells then counts only if it is smaller
--          queue: the stage it serves; stage: what its call is. They differ for a route that looks before it sends,
--          which is used for a class only while another route of that class is closed by equal errors.
-- ARGV[2]  stages the caller has a connection for: 'c', 'l', 'cl' or '' (then only local steps are returned)
-- ARGV[3]  id of the batch, new for every call of this script
-- ARGV[4]  '1' if this worker is suspended: as a pause, for this call only
-- ARGV[5]  routes the caller's address has no share for now, with a blank around each
-- ARGV[6]  routes for which it has a share that only urgent intents may take
-- Replies  {steady, wall, wait_us, local steps, batch, stopped, streamed}
--   streamed: 1 while the lane's private order stream is alive
--   stopped: 1 if the lane is held until an operator resumes it (the key was refused)
--   local steps: {why, id, state, record, …}: intents leased to the caller that end without a call
--       why: expired | struck | revoke-claimed (followed by its target's entry, why 'target') | revoke-sent |
--       revoke-ended | revoke-unknown
--   batch: {} or {route, stage, fastest_us, id, state, record, …}; fastest_us: the fleet's shortest round trip
--       lately, or 0; states are those before the take: the fence is one
--       higher now, and attempts (stage c) or look-ups (stage l) count one more.
-- Order: leases that ended, revocations, what has expired, what has become due, then the call that carries
-- most: urgent before normal, cancels before looks, oldest class first.

--include

local REST_US = 10000000 -- how often a lane with nothing to do is looked at, in case that nobody woke it

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

-- The routes that serve a class: {name, most, least, bucket, per_call, per_order, downwards, by_class, errors, stage}.
local function plan_routes(queue, class)
  local routes, head, at = {}, '\nR ' .. queue .. ':' .. string.match(class, '^[^:]+') .. ' ', 1
  while true do
    local _, last = string.find(PLAN, head, at, true)
    if not last then return routes end
    local r = {string.match(PLAN, '^(%S+) (%d+) (%d+) (%S+) (%d+) (%d+) (%d) (%d) (%d+) (%a)', last + 1)}
    for _, i in ipairs({2, 3, 5, 6, 9}) do r[i] = tonumber(r[i]) end
    r[7] = r[7] == '1'
    if r[8] == '1' then r[5] = tonumber(string.match(class, ':(%d+)$') or 1) end
    routes[#routes + 1] = r
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
  step(why, id, line, record or '{}')
end

local function hex_bytes(hex)
  return (string.gsub(hex, '%x%x', function(two) return string.char(tonumber(two, 16)) end))
end

-- 1. Leases that ended: whoever held them is gone or stalled. A cancel that may have been sent is looked for,
--    never sent again unseen; each such end is a strike.
local function end_lease(id)
  redis.call('ZREM', ROOT .. 'leases', id)
  local line = redis.call('HGET', ROOT .. 'state', id)
  if not line then return end
  local s = parse(line)
  if s.taken == '1' and s.stage == 'c' then s.stage = 'l' end
  s.taken, s.strikes, s.place = '0', s.strikes + 1, text(steady)
  if s.strikes >= 5 then
    -- Even ending it cannot be done by a worker: it is told from here, with what the script itself knows.
    local told = {'v', '1', 'id', id, 'venue', plan.venue, 'account', plan.account,
      'status', 'unresolved', 'final', '1', 'evidence', 'local', 'attempt', text(s.attempts),
      'detail', 'every worker that took this intent ended; a person must look', 'settled_us', text(wall)}
    local readable, record = pcall(cjson.decode, redis.call('HGET', ROOT .. 'intents', id) or '{}')
    if readable then
      for _, k in ipairs({'scope', 'symbol', 'order_id', 'client_order_id', 'strategy', 'reason', 'traceparent',
        'priority', 'origin', 'queued_us'}) do
        if record[k] then told[#told + 1] = k; told[#told + 1] = record[k] end
      end
      for k, v in pairs(record) do
        if string.sub(k, 1, 2) == 'x_' then told[#told + 1] = k; told[#told + 1] = v end
      end
    end
    -- A look back at an intent that ended long ago (reconcile.lua) has told its end already.
    if not (readable and record.looks_back) then redis.call('XADD', RESULTS, '*', unpack(told)) end
    if not readable or record.explicit == '1' then
      remember({hex_bytes(string.sub(redis.sha1hex(id), 1, 24)), (s.attempts > 0 and 's' or 'n') .. s.digest})
    end
    redis.call('HDEL', ROOT .. 'state', id)
    redis.call('HDEL', ROOT .. 'intents', id)
    redis.call('ZREM', ROOT .. 'expiry', id)
    if s.orders ~= '-' then
      for key in string.gmatch(s.orders, '[^,]+') do
        local rest = {}
        for other in string.gmatch(redis.call('HGET', ROOT .. 'orders', key) or '', '%S+') do
          if other ~= id then rest[#rest + 1] = other end
        end
        if #rest > 0 then
          redis.call('HSET', ROOT .. 'orders', key, table.concat(rest, ' '))
        else
          redis.call('HDEL', ROOT .. 'orders', key)
        end
      end
    end
    return
  end
  if s.strikes >= 2 then s.cap = '1' end
  if s.strikes >= 3 then
    lease_step('struck', id, s, pack(s))
    return
  end
  redis.call('HSET', ROOT .. 'state', id, pack(s))
  put_back(id, s)
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', ROOT .. 'leases', '-inf', text(steady), 'LIMIT', 0, 100)) do
  end_lease(id)
end

-- 2. Revocations: no call carries them, and they go before everything that could send their target.
local function not_open(target, memory_hex)
  if memory_hex == '-' then -- an entry's own id: the inbox itself is the memory
    local found = redis.pcall('XRANGE', INBOX, target, target) -- an impossible id is an error: unknown
    if not found.err and #found > 0 then return 'revoke-ended' end
    return 'revoke-unknown'
  end
  local kept = remembered(hex_bytes(memory_hex))
  if not kept then return 'revoke-unknown' end
  return string.sub(kept, 1, 1) == 's' and 'revoke-sent' or 'revoke-ended'
end
local function revoke(id)
  redis.call('ZREM', ROOT .. 'queue:local', id)
  local line = redis.call('HGET', ROOT .. 'state', id)
  if not line then return end
  local s = parse(line)
  local target, target_line = s.look_class, nil
  target_line = redis.call('HGET', ROOT .. 'state', target)
  local why = nil
  local t = target_line and parse(target_line)
  if not t then
    why = not_open(target, s.orders)
  elseif t.cancel_class == 'local' then
    why = 'revoke-ended'
  elseif t.taken ~= '0' or t.attempts > 0 then
    why = 'revoke-sent'
  end
  lease_step(why or 'revoke-claimed', id, s, line)
  if not why then
    unqueue(target, t)
    lease_step('target', target, t, target_line)
  end
end
for _, id in ipairs(redis.call('ZRANGE', ROOT .. 'queue:local', 0, 49)) do revoke(id) end

-- 3. What has expired before anything of it was sent.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', ROOT .. 'expiry', '-inf', '(' .. text(wall / 1000), 'LIMIT', 0, 100)) do
  redis.call('ZREM', ROOT .. 'expiry', id)
  local line = redis.call('HGET', ROOT .. 'state', id)
  local s = line and parse(line)
  if s and s.taken == '0' and s.attempts == 0 and (s.stage == 'c' or s.lookups == '0') then
    unqueue(id, s)
    lease_step('expired', id, s, line)
  elseif s and s.attempts == 0 then
    -- In a call's hands, perhaps to be given back unsent: asked again later.
    redis.call('ZADD', ROOT .. 'expiry', text(math.max(tonumber(s.expires_ms), wall / 1000 + 500)), id)
  end
end

-- 4. Timed intents that have become due, in order of their time.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', ROOT .. 'timed', '-inf', text(math.floor(wall / 1000)), 'LIMIT', 0, 200)) do
  redis.call('ZREM', ROOT .. 'timed', id)
  local line = redis.call('HGET', ROOT .. 'state', id)
  if line then
    local s = parse(line)
    s.place = text(steady)
    redis.call('HSET', ROOT .. 'state', id, pack(s))
    put_back(id, s)
  end
end

-- 5. Holds: kept by reason, and all of them must have ended.
local held, paused = {}, ARGV[4] == '1'
do
  local kept = redis.call('HGETALL', ROOT .. 'hold')
  for i = 1, #kept, 2 do
    local scope, reason = string.match(kept[i], '^(.-)|(.+)$')
    local till = tonumber(string.match(kept[i + 1], '^(%-?%d+)'))
    resting = false
    if till ~= -1 and till <= steady then
      redis.call('HDEL', ROOT .. 'hold', kept[i])
    elseif reason == 'paused' then
      paused = true
    else
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
local seen_buckets = {}
local function bucket_state(name)
  local b = seen_buckets[name]
  if not b then
    local key = ROOT .. 'permits:' .. name
    redis.call('ZREMRANGEBYSCORE', key, '-inf', text(steady))
    local units, window_us, reserve, fixed = plan_bucket(name)
    local stats = redis.call('HMGET', ROOT .. 'rtt:' .. name, 'units', 'probe', 'fast', 'last')
    local told = tonumber(stats[1])
    if told and (told < units or not fixed) then units = told end
    b = {key = key, units = units, window_us = window_us, reserve = math.min(reserve, math.floor(units / 5)),
      used = redis.call('ZCARD', key), probe = stats[2], fastest = stats[3] or '0',
      last = tonumber(stats[4] or 0)}
    b.probing = b.probe and (tonumber(string.match(b.probe, '^(%d+) ')) or 0) > steady
    seen_buckets[name] = b
  end
  return b
end
-- While an urgent sweep is under way normal cancels leave it nine tenths of each bucket: between two of its calls they
-- would take every permit that becomes free.
local YIELDED = 0.9
local urgent_sweep, yielding = tonumber(redis.call('GET', ROOT .. 'sweeping') or 0) > steady, false
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
  local till = hold_of(name)
  local b = bucket_state(name)
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

-- Venues lock an endpoint after so many equal errors: how many there were lately, at most of one code; how many
-- calls are under way that may end in one more; how many were never answered, and may have; and when the oldest is
-- forgotten.
local errors_seen = {}
local function errors_at(bucket)
  local seen = errors_seen[bucket]
  if not seen then
    local key = ROOT .. 'errors:' .. bucket
    redis.call('ZREMRANGEBYSCORE', key, '-inf', text(steady - plan.errors_us))
    local under_way, unanswered, most, of = 0, 0, 0, {}
    local kept = redis.call('ZRANGE', key, 0, 199, 'WITHSCORES')
    for i = 1, #kept, 2 do
      local code = string.match(kept[i], '^%S+')
      if code == '?' and tonumber(kept[i + 1]) > steady - plan.lease_us then
        under_way = under_way + 1
      elseif code == '?' then
        unanswered = unanswered + 1
      else
        of[code] = (of[code] or 0) + 1
        if of[code] > most then most = of[code] end
      end
    end
    local free = kept[2] and tonumber(kept[2]) + plan.errors_us or steady
    seen = {most = most, under_way = under_way, unanswered = unanswered, free = free}
    errors_seen[bucket] = seen
  end
  return seen
end
local function closed_by_errors(r)
  if r[9] == 0 then return false end
  local seen, doubted = errors_at(r[4]), 0
  -- What was seen open does not wait for calls that were never answered: after an outage that would be minutes.
  if r[9] < plan.errors_most then doubted = seen.unanswered end
  return seen.most >= r[9] or seen.most + seen.under_way + doubted >= plan.errors_most, seen.free
end

-- The routes that may carry a class now, apart from permits, and when there may be more. Where errors have closed a
-- route of the cancel queue, nothing of that class is sent unseen: only the route that looks first remains. A class
-- without such a route was seen already: its other routes go on.
local function usable_routes(queue, class, urgent)
  local routes, usable, at, unseen = plan_routes(queue, class), {}, math.huge, true
  local any_closed, looks_first = false, false
  for _, r in ipairs(routes) do
    local closed, free = closed_by_errors(r)
    if closed then
      at = math.min(at, math.max(free, steady + 100000))
      any_closed = true
    end
    r.closed = closed
    looks_first = looks_first or (queue == 'c' and r[10] == 'l')
  end
  if looks_first and any_closed then unseen = false end
  for _, r in ipairs(routes) do
    local name = ' ' .. r[1] .. ' '
    if string.find(ARGV[5], name, 1, true) or (not urgent and string.find(ARGV[6], name, 1, true)) then
      at = math.min(at, steady + 20000)
    elseif not r.closed and string.find(ARGV[2], r[10], 1, true) and (queue == 'l' or (r[10] == 'c') == unseen) then
      usable[#usable + 1] = r
    end
  end
  return usable, at
end

-- Until when a call that could carry more is kept back: once a third of a bucket is in use, such calls keep the distance
-- at which the rest lasts for the window. Else a steady flow would spend all permits on a few orders each, and what
-- comes next would wait out the window. `since`: when the order that waits longest began to: it waits no longer for it.
local function spaced(name, need, since)
  local b = bucket_state(name)
  if b.used * 3 < b.units then return 0 end
  return math.min(b.last, since) + need * b.window_us / b.units
end

-- The route that carries most of a class' visible orders among those with a permit; else when one will have one.
local function route_for(queue, class, visible, urgent, since)
  local best, best_carry, best_fits = nil, 0, false
  local routes, at = usable_routes(queue, class, urgent)
  local largest = 0
  for _, r in ipairs(routes) do largest = math.max(largest, r[2]) end
  local sparse = queue == 'c' and not urgent and visible < largest
  for _, r in ipairs(routes) do
    local most, least, bucket, per_call, per_order = r[2], r[3], r[4], r[5], r[6]
    local carry = math.min(visible, most)
    if per_order > 0 then
      carry = math.min(carry, math.max(1, math.floor((free_units(bucket, urgent) - per_call) / per_order)))
    end
    local need = per_call + per_order * carry
    local when = free_at(bucket, urgent, need)
    if sparse then when = math.max(when, spaced(bucket, need, since)) end
    if when <= steady then
      local fits = visible >= least
      if not best or (fits and not best_fits) or (fits == best_fits and (carry > best_carry or (carry == best_carry and most < best[2]))) then
        best, best_carry, best_fits = r, carry, fits
      end
    elseif when < at then
      at = when
    end
  end
  return best, best_carry, best_fits, at
end

-- Walks the few class heads that are visible; returns the first call that can be made and is worth it, else the
-- first that can be made.
local ORDER = {{'c', 'u'}, {'l', 'u'}, {'c', 'n'}, {'l', 'n'}}
local function choose()
  for _, o in ipairs(ORDER) do
    local stage, priority = o[1], o[2]
    local where = lane_of(stage, priority)
    -- Where equal errors may close routes, a look may serve the cancel queue.
    local allowed = string.find(ARGV[2], stage, 1, true) or (plan.errors_us > 0 and ARGV[2] ~= '')
    if paused and stage == 'c' and priority == 'n' then allowed = false end
    yielding = urgent_sweep and stage == 'c' and priority == 'n'
    local heads = redis.call('ZRANGE', ROOT .. 'classes:' .. where, 0, 127, 'WITHSCORES')
    if heads[1] then resting = false end
    local spare
    for i = 1, #heads, 2 do
      local class, at = heads[i], tonumber(heads[i + 1])
      if at > steady then
        if allowed then no_later(at) end
        break
      end
      if allowed then
        local visible = redis.call('ZCOUNT', ROOT .. 'queue:' .. where .. ':' .. class, '-inf', text(steady))
        if visible == 0 then
          fix_head(where, class)
        else
          local route, carry, fits, later = route_for(stage, class, visible, priority == 'u', at)
          if fits then return stage, priority, class, route, carry end
          if route then spare = spare or {class, route, carry} else no_later(later) end
        end
      end
    end
    if spare then return stage, priority, spare[1], spare[2], spare[3] end
  end
end

-- The words of a state line that a take reads or writes; the rest travels as it is.
local TAKE = '^(%d+) %d %a (%d+) (%d+) (%S+) (%d+) (%a %d+) (%d+) (%S+ %S+ %S+) (%S+) (%S+ %S+ %d+ %d+) (.*)$'

-- For a route that reads a page downwards from an order id: the intent that waits longest and those that wait
-- with the ids next below its own, so that one page reaches as many as it can. Nil where that is not known.
local function page_below(queue, where, class, carry)
  local oldest = redis.call('ZRANGEBYSCORE', queue, '-inf', text(steady), 'LIMIT', 0, 1)[1]
  local key = ROOT .. 'sorted:' .. where .. ':' .. class
  local top = oldest and redis.call('ZSCORE', key, oldest)
  if not top then return nil end
  local found = redis.call('ZREVRANGEBYSCORE', key, top, '-inf', 'LIMIT', 0, carry + 50)
  local times = redis.call('ZMSCORE', queue, unpack(found))
  local ids, gone = {oldest}, {}
  for i = 1, #found do
    if not times[i] then
      gone[#gone + 1] = found[i]
    elseif #ids < carry + 10 and tonumber(times[i]) <= steady and found[i] ~= oldest then
      ids[#ids + 1] = found[i]
    end
  end
  if #gone > 0 then redis.call('ZREM', key, unpack(gone)) end
  return ids
end

-- Until when orders may not be sent, by key; nil if none of them is in flight or was sent too lately.
local function busy_until(keys)
  if #keys == 0 then return nil end
  local busy
  local times = redis.call('ZMSCORE', ROOT .. 'sent', unpack(keys))
  for i = 1, #keys do
    if times[i] then
      busy = busy or {}
      busy[keys[i]] = tonumber(times[i])
    end
  end
  return busy
end

-- Sweeps (a pair, an account) that are under way, by kind of order and pair ('*': all): {place, priority, seen_at}.
-- `seen_at`: when the orders they were to cancel are worth a look. The entry outlives the sweep's last call by a lease.
local SEEN_AFTER_BULK_US, SEEN_AFTER_LIST_US = 500000, 2000000
local SWEEP_PAUSE_US = 1500000 -- the longest pause between two calls of a sweep that gets on
local under_way
local function sweeps_under_way()
  if under_way == nil then
    under_way = false
    local kept = redis.call('HGETALL', ROOT .. 'sweeps')
    for i = 1, #kept, 2 do
      local place, priority, seen_at, till = string.match(kept[i + 1], '^(%d+) (%a) (%d+) (%d+)$')
      if tonumber(till) > steady then
        under_way = under_way or {}
        under_way[kept[i]] = {tonumber(place), priority, tonumber(seen_at)}
      else
        redis.call('HDEL', ROOT .. 'sweeps', kept[i])
      end
    end
  end
  return under_way
end

-- A sweep of everything of its kind goes out, or looks what it left: it is under way for a lease more.
local function note_sweep(stage, w, record)
  local asked = record and cjson.decode(record)
  local priority, place = string.match(w[6], '^(%a) (%d+)$')
  if priority == 'u' then redis.call('SET', ROOT .. 'sweeping', text(steady + SWEEP_PAUSE_US)) end
  if not asked or asked.older_than_ms or asked.client_prefix then return end
  for kind in string.gmatch(asked.kinds or 'order', '[^,]+') do
    local field = kind .. ' ' .. (asked.symbol or '*')
    local kept = redis.call('HGET', ROOT .. 'sweeps', field)
    local seen_at = kept and string.match(kept, '^' .. place .. ' %a (%d+) ')
      or text(steady + (stage == 'c' and SEEN_AFTER_BULK_US or SEEN_AFTER_LIST_US))
    redis.call('HSET', ROOT .. 'sweeps', field, place .. ' ' .. priority .. ' ' .. seen_at .. ' ' .. lease_end)
  end
end

-- The sweep that cancels this order anyway: of the same urgency at least, queued after it and under way, when nothing
-- was done for this order yet.
local function sweep_of(w, record)
  if w[2] ~= '0' or w[3] ~= '0' or w[9] == '-' or not record then return nil end
  local asked = cjson.decode(record)
  if asked.only_if then return nil end
  local priority, place = string.match(w[6], '^(%a) (%d+)$')
  for _, symbol in ipairs({asked.symbol or '*', '*'}) do
    local sweep = under_way[asked.scope .. ' ' .. symbol]
    if sweep and tonumber(place) <= sweep[1] and (sweep[2] == 'u' or priority == 'n') then return sweep, asked end
  end
end

-- Its order is looked at instead of being named in a call of its own.
local function leave_to(sweep, asked, id, line)
  local s = parse(line)
  s.stage = 'l'
  redis.call('HSET', ROOT .. 'state', id, pack(s))
  enqueue('l', s.priority, s.look_class, id, text(math.max(steady, sweep[3])))
  local routes = plan_routes('l', s.look_class)
  if routes[1] and routes[1][7] and string.match(asked.order_id or '', '^%d+$') then
    redis.call('ZADD', ROOT .. 'sorted:' .. lane_of('l', s.priority) .. ':' .. s.look_class, asked.order_id, id)
  end
end

-- Adds some of a class' intents to a call. Skips what is in flight or was sent too lately; two intents of one
-- order travel as one item; an intent that may not travel in company closes the call at its size.
local function add(call, stage, queue, ids)
  local lines = redis.call('HMGET', ROOT .. 'state', unpack(ids))
  local words, keys = {}, {}
  for i = 1, #ids do
    if lines[i] and not call.has[ids[i]] then
      local w = {string.match(lines[i], TAKE)}
      words[i] = w
      if stage == 'c' and w[9] ~= '-' then
        if string.find(w[9], ',', 1, true) then
          for key in string.gmatch(w[9], '[^,]+') do keys[#keys + 1] = key end
        else
          keys[#keys + 1] = w[9]
        end
      end
    end
  end
  local busy, batch, orders_in, wall_ms = busy_until(keys), call.batch, call.orders, wall / 1000
  local records = stage == 'c' and sweeps_under_way() and redis.call('HMGET', ROOT .. 'intents', unpack(ids))
  for i = 1, #ids do
    local sweep, asked
    if records and words[i] then sweep, asked = sweep_of(words[i], records[i]) end
    local id, w = ids[i], words[i]
    if call.has[id] then
      -- seen before
    elseif not w then
      redis.call('ZREM', queue, id)
    elseif w[7] ~= '0' and w[2] == '0' and (stage == 'c' or w[3] == '0') and tonumber(w[7]) < wall_ms then
      redis.call('ZREM', queue, id)
      redis.call('ZREM', ROOT .. 'expiry', id)
      lease_step('expired', id, parse(lines[i]), lines[i])
    elseif sweep then
      redis.call('ZREM', queue, id)
      leave_to(sweep, asked, id, lines[i])
    else
      local orders = w[9]
      local many = string.find(orders, ',', 1, true)
      local rides, blocked = orders_in[orders], busy and busy[orders] or 0
      if many then
        for key in string.gmatch(orders, '[^,]+') do
          if orders_in[key] then rides = true end
          if busy and busy[key] and busy[key] > blocked then blocked = busy[key] end
        end
      end
      if blocked > steady then
        redis.call('ZADD', queue, text(blocked), id)
      else
        local fits = #batch < call.most
        if not rides then
          local cap, bound = tonumber(w[5]), call.limit
          if cap > 0 and cap < bound then bound = cap end
          fits = call.items < bound
          if fits then call.limit, call.items = bound, call.items + 1 end
        end
        if fits then
          batch[#batch + 1] = {id, lines[i], w}
          call.has[id] = true
          if many then
            for key in string.gmatch(orders, '[^,]+') do orders_in[key] = true end
          elseif orders ~= '-' then
            orders_in[orders] = true
          end
        elseif call.items >= call.limit then
          return
        end
      end
    end
  end
end

-- Fills a call from one class: at first with as many as it can carry and a few to ride along; with more only if
-- some of those had to stay.
local function fill(stage, priority, class, route, carry)
  local where = lane_of(stage, priority)
  local queue = ROOT .. 'queue:' .. where .. ':' .. class
  local call = {batch = {}, items = 0, limit = carry, most = 2 * carry + 10, has = {}, orders = {}}
  local ids = route[7] and page_below(queue, where, class, carry)
  if ids then
    add(call, stage, queue, ids)
  else
    for _, more in ipairs({4, carry + 50}) do
      ids = redis.call('ZRANGEBYSCORE', queue, '-inf', text(steady), 'LIMIT', 0, carry + more)
      if #ids > 0 then add(call, stage, queue, ids) end
      if call.items >= call.limit or #ids < carry + more then break end
    end
  end
  return call.batch, call.items, call.orders
end

-- The grant: everything a crash of the caller must not undo is written here, before anything is sent.
local function grant(queue, priority, class, route, batch, items, in_batch)
  local where, stage = lane_of(queue, priority), route[10]
  local ids, sets, leases = {}, {}, {}
  local call = route[1] .. ' ' .. batch_id .. ' ' .. text(items) .. ' ' .. text(wall)
  for i, b in ipairs(batch) do
    local w = b[3]
    local attempts, lookups, last = w[2], w[3], w[10]
    if stage == 'c' then
      attempts, last = text(attempts + 1), call
    else
      lookups = text(lookups + 1)
    end
    ids[i] = b[1]
    sets[2 * i - 1] = b[1]
    sets[2 * i] = text(w[1] + 1) .. ' 1 ' .. stage .. ' ' .. attempts .. ' ' .. lookups .. ' ' .. w[4] .. ' ' .. w[5]
      .. ' ' .. w[6] .. ' ' .. w[7] .. ' ' .. w[8] .. ' ' .. w[9] .. ' ' .. last .. ' ' .. w[11]
    leases[2 * i - 1] = lease_end
    leases[2 * i] = b[1]
  end
  redis.call('HSET', ROOT .. 'state', unpack(sets))
  redis.call('ZADD', ROOT .. 'leases', unpack(leases))
  redis.call('ZREM', ROOT .. 'queue:' .. where .. ':' .. class, unpack(ids))
  if route[7] then redis.call('ZREM', ROOT .. 'sorted:' .. where .. ':' .. class, unpack(ids)) end
  fix_head(where, class)
  if stage == 'c' then
    local sent, till = {}, text(steady + plan.lease_us + plan.gap_us)
    for key in pairs(in_batch) do
      sent[#sent + 1] = till
      sent[#sent + 1] = key
    end
    if #sent > 0 then redis.call('ZADD', ROOT .. 'sent', unpack(sent)) end
  end
  if route[9] > 0 then redis.call('ZADD', ROOT .. 'errors:' .. route[4], text(steady), '? ' .. batch_id) end
  errors_seen[route[4]] = nil
  local b = bucket_state(route[4])
  local units = route[5] + route[6] * items
  -- Until the caller reports, the permit counts as used for as long as its call could possibly live.
  local free = steady + plan.lease_us + b.window_us + 1000000
  for i = 1, units do redis.call('ZADD', b.key, text(free), batch_id .. ':' .. text(i)) end
  b.used, b.last = b.used + units, steady
  if stage == 'c' then redis.call('HSET', ROOT .. 'rtt:' .. route[4], 'last', text(steady)) end
  if b.probe then
    redis.call('HSET', ROOT .. 'rtt:' .. route[4], 'probe', lease_end .. ' ' .. batch_id)
    b.probing = true
  end
  local records = redis.call('HMGET', ROOT .. 'intents', unpack(ids))
  local reply = {route[1], stage, b.fastest}
  for i, x in ipairs(batch) do
    reply[3 * i + 1] = x[1]
    reply[3 * i + 2] = x[2]
    reply[3 * i + 3] = records[i] or '{}'
    if x[3][9] == '-' then note_sweep(stage, x[3], records[i]) end
  end
  return reply, free
end

-- Another server than before (restart, failover): permits it has forgotten and permits granted elsewhere
-- must not add up.
local function server_changed()
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or '-'
  if run == server then return false end
  local first = server == '-'
  server = run
  if first then return false end
  redis.call('HSET', ROOT .. 'hold', '*|restart',
    text(steady + plan.lease_us + plan.window_us) .. ' another server than before: waiting until every earlier permit is surely free')
  return true
end

redis.call('ZREMRANGEBYSCORE', ROOT .. 'sent', '-inf', text(steady))
local reply, out = {}, nil
for round = 1, 4 do
  local stage, priority, class, route, carry = choose()
  if not stage then break end
  if server_changed() then
    no_later(steady + 50000)
    break
  end
  local batch, items, in_batch = fill(stage, priority, class, route, carry)
  if #batch > 0 then
    reply, out = grant(stage, priority, class, route, batch, items, in_batch)
    if choose() then next_at = steady end
    break
  end
  -- Everything that was visible here is in flight, was sent too lately or left to a sweep: the next class, or call.
  fix_head(lane_of(stage, priority), class)
  if round == 4 then next_at = steady end
end

-- When to come back at the latest: a lease's end, a timed intent, an expiry.
local lease = redis.call('ZRANGE', ROOT .. 'leases', 0, 0, 'WITHSCORES')
if lease[2] then no_later(tonumber(lease[2])) end
local timed = redis.call('ZRANGE', ROOT .. 'timed', 0, 0, 'WITHSCORES')
if timed[2] then no_later(steady + math.max(0, tonumber(timed[2]) * 1000 - wall)) end
local expiry = redis.call('ZRANGE', ROOT .. 'expiry', 0, 0, 'WITHSCORES')
if expiry[2] then no_later(steady + math.max(0, (tonumber(expiry[2]) + 1) * 1000 - wall)) end

if #steps > 0 then out = math.max(out or 0, steady + plan.lease_us) end
keep_clock(out)
-- The steady clock follows TIME for a poll or two; while somebody relies on it, the lane must look that often. So it must
-- while a guard is armed: what that fires passes no inbox.
if resting and #reply == 0 and #steps == 0 and out_until <= steady
  and redis.call('EXISTS', ROOT .. 'guard', ROOT .. 'armed') == 0 then
  next_at = steady + REST_US
end
return {text(steady), text(wall), text(math.max(0, next_at - steady)), steps, reply, stopped and 1 or 0,
  redis.call('EXISTS', ROOT .. 'stream')}
