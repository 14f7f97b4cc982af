#!lua flags=allow-oom
-- SETTLE: puts the permits right and, for every intent of a call, either ends it or moves it on.
--
-- KEYS[1]  the lane's clock
-- ARGV, in this order
--   permits_n, then for each: bucket window_us units member how ago_us rtt_us error told
--       how: 'a' answered `ago_us` ago after a round trip of `rtt_us`; 'n' no answer, the connection was closed
--       `ago_us` ago; 'r' as 'a', but the venue refused it for its limit; 'u' not used
--       error: '-' if equal errors of this bucket lock nothing, '' if the call was none, else the code it came to
--       told: the bucket's size as the answer told it, 0 if it did not
--   orders_n, then how ('s' the call was sent, 'u' not), free_us (until when no cancel, from now), order…
--   holds_n, then for each: scope reason for_us ('-1' without end; '0' after a refusal: the script knows) detail
--   shapes_n, then for each: fields_n own_n, field value …, place of a field of its own …
--       The events of one call differ in few fields. A shape is all fields of an event in their order, with the
--       values its events share; the own fields (by place, the first is 1) each event fills in itself.
--   works_n, then for each: id fence verb …
--     'f' memory_key memory_value known orders_n order… shape own value…        ends; known: 1 if the order's end is
--         known; shape: 0 for no event
--     'm' queue at sort state orders_n order… shape own value…                  moves; queue: 'l:u:any'; at: 'p' its
--         old place, else a delay in us; sort: the order id it is looked for by, or empty; orders: further orders
--         it is now known to name
-- Replies  {steady, applied, others, stale}   others: how many open intents still name an order whose end is now known;
--   stale: which of the intents, counted from 0, were another's by then
-- A fence that does not match, or an intent at rest, is stale: nothing of that intent changes.
-- An event is written before what it stands for is removed: every prefix of this script is safe.

--include prelude
--include memory

local pos = 1
local function take_arg() pos = pos + 1; return ARGV[pos - 1] end
local function take_number() return tonumber(take_arg()) end

-- The guard doubles with every refusal, and halves again with every ten minutes that saw none.
local GUARD_US, GUARD_MAX_US, CALM_US = 2000, 100000, 600000000
local FASTEST_MOST_US = 800000

-- How early a permit may be free again: the fleet's fastest round trip in this bucket over the last minute,
-- less a margin that shrinks as samples come in; 0 until there are enough of them. What counts is the shortest way
-- there plus the shortest way back, and these seldom meet in one call: with three times the spread over the root of
-- the number, 500 simulated minutes of independent ways saw no window overdrawn by more than half the guard. It is limited,
-- as a worker that is not among them has to wait as long before it sends (carrier.py). `fast_at`: when it was relied on.
local function fastest_us(permits, stats, kept, rtt)
  local slot = math.floor(steady / 10000000)
  local least, sum, count, current, trusted = nil, 0, 0, nil, tonumber(kept.fast or 0)
  for name, value in pairs(kept) do
    local n = tonumber(name) -- what else is known of the bucket lives here too, by name
    if n and n <= slot - 6 then
      redis.call('HDEL', stats, name)
    elseif n then
      local a, b, c = string.match(value, '^(%d+) (%d+) (%d+)$')
      a, b, c = tonumber(a), tonumber(b), tonumber(c)
      if n == slot then current = {a, b, c} end
      if least == nil or a < least then least = a end
      sum, count = sum + b, count + c
    end
  end
  local changed = {}
  if rtt then
    current = current or {rtt, 0, 0}
    if rtt < current[1] then current[1] = rtt end
    current[2], current[3] = current[2] + rtt, current[3] + 1
    changed = {text(slot), text(current[1]) .. ' ' .. text(current[2]) .. ' ' .. text(current[3])}
    if least == nil or rtt < least then least = rtt end
    sum, count = sum + rtt, count + 1
  end
  local trust = 0
  if count >= 20 then trust = math.max(0, least - 3 * (sum / count - least) / math.sqrt(count)) end
  trust = math.min(trust, FASTEST_MOST_US)
  changed[#changed + 1], changed[#changed + 2] = 'fast', text(trust)
  changed[#changed + 1], changed[#changed + 2] = 'fast_at', text(steady)
  if rtt and trusted > 0 and rtt < trusted - GUARD_US then
    -- The way to the venue became shorter than was relied on: what is out was to be free too early by that much, and what
    -- became free a moment ago was. So nothing is granted for as long.
    local early = trusted - trust
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', permits, text(steady), '+inf', 'LIMIT', 0, 1000)) do
      redis.call('ZINCRBY', permits, text(early), member)
    end
    changed[#changed + 1], changed[#changed + 2] = 'shut', text(steady + early)
  end
  redis.call('HSET', stats, unpack(changed))
  return trust
end

-- How long a permit is kept beyond what the clock says it must be. A refusal means that somebody else uses the key, or
-- that the venue counts otherwise than we do: what is kept of it is for `status`, too. A settlement may come twice, as
-- when its reply was lost; `refused`: by which call's refusal, that it counts once.
local function guard_us(stats, kept, refused)
  local guard = tonumber(kept.guard or GUARD_US)
  if kept.refused_ms then
    guard = math.max(GUARD_US, guard / 2 ^ math.floor(math.max(0, wall - kept.refused_ms * 1000) / CALM_US))
  end
  if refused and refused ~= kept.refused then
    guard = math.min(guard * 2, GUARD_MAX_US)
    redis.call('HSET', stats, 'guard', text(guard), 'refused_ms', text(math.floor(wall / 1000)), 'refused', refused)
    redis.call('HINCRBY', stats, 'refusals', 1)
  end
  return guard
end

-- After a refusal one call goes alone (`take.lua` lets it): what it comes to opens the bucket, or leaves it as it was.
-- `back_off`: for how long a refused bucket is closed where the venue does not say, twice as long with every call that
-- went alone and was refused.
local BACK_OFF_US, BACK_OFF_MAX_US = 1000000, 300000000
local back_off = BACK_OFF_US
local function probed(stats, kept, member, how)
  local probe = kept.probe
  local alone = probe and string.match(probe, ' (.+)$') == member
  if how == 'r' then
    local streak = alone and redis.call('HINCRBY', stats, 'streak', 1) or tonumber(kept.streak or 0)
    back_off = math.min(BACK_OFF_MAX_US, BACK_OFF_US * 2 ^ math.min(streak, 20))
    if alone or not probe then redis.call('HSET', stats, 'probe', '1') end
  elseif alone and how == 'a' then
    redis.call('HDEL', stats, 'probe', 'streak')
  elseif alone then
    redis.call('HSET', stats, 'probe', '1')
  end
end

-- What is known of a bucket: how its calls went lately, by ten seconds, and the rest by name.
local function known_of(stats)
  local flat, kept = redis.call('HGETALL', stats), {}
  for i = 1, #flat, 2 do kept[flat[i]] = flat[i + 1] end
  return kept
end

local new_out = 0
for _ = 1, take_number() do
  local bucket, window, units = take_arg(), take_number(), take_number()
  local member, how, ago, rtt, error = take_arg(), take_arg(), take_number(), take_number(), take_arg()
  local told = take_number()
  if error ~= '-' and how ~= 'n' then -- without an answer it stays on record as one that may have been an error
    redis.call('ZREM', ROOT .. 'errors:' .. bucket .. ':asked', member)
    if error ~= '' then
      redis.call('ZADD', ROOT .. 'errors:' .. bucket, text(steady - ago), error .. ' ' .. member)
    end
  end
  local permits, stats = ROOT .. 'permits:' .. bucket, ROOT .. 'rtt:' .. bucket
  local free
  local kept = known_of(stats)
  probed(stats, kept, member, how)
  if told > 0 then
    redis.call('HSET', stats, 'units', text(told), 'told_us', text(steady), 'told_wall', text(wall))
    redis.call('HSET', ROOT .. 'limits', bucket, text(told)) -- for `status`
  end
  if how ~= 'u' then
    local guard = guard_us(stats, kept, how == 'r' and member)
    if how == 'n' then
      free = steady - ago + window + 1000000
    else
      free = steady - ago + window - fastest_us(permits, stats, kept, how == 'a' and rtt or nil) + guard
    end
    if free > new_out then new_out = free end
  end
  local members = {}
  for i = 1, units do
    if how ~= 'u' then members[#members + 1] = text(free) end
    members[#members + 1] = member .. ':' .. text(i)
  end
  -- A permit that was dropped meanwhile (its lease was long over) comes back: the call was made.
  if units > 0 then redis.call(how == 'u' and 'ZREM' or 'ZADD', permits, unpack(members)) end
end

local on_their_way, orders_n = {}, take_number()
local sent, sent_till = take_arg() == 's', text(steady + take_number())
for i = 1, orders_n do on_their_way[i] = take_arg() end

--include hold_end
--include free_later
-- The clock went ahead by `span`: whoever came by in the meantime took permits for free that were not. The lane waits for
-- as long, and what is still out is free that much later; at the latest a window from now.
local function went_ahead(span)
  local latest = steady + JUMP_HOLD_US
  if out_until > steady then out_until = out_until + span end
  free_later(span, text(steady), text(latest), latest)
end

for _ = 1, take_number() do
  local scope, reason, span, detail = take_arg(), take_arg(), take_number(), take_arg()
  if reason == 'leap' then went_ahead(span) end
  local field, till = scope .. '|' .. reason, -1
  if reason == 'rate' and span == 0 then span = back_off end
  if span >= 0 then
    till = steady + span
    local kept = redis.call('HGET', ROOT .. 'hold', field)
    local old = kept and hold_end(reason, kept) or 0
    if old == -1 then till = -1 elseif old > till then till = old end
  end
  if reason == 'rate' and till >= 0 then detail = detail .. ' @' .. text(wall + till - steady) end
  redis.call('HSET', ROOT .. 'hold', field, text(till) .. ' ' .. detail)
end

-- Each shape is a whole XADD, kept ready; `slots` are its arguments that differ from event to event.
local shapes = {}
for n = 1, take_number() do
  local fields, own = take_number(), take_number()
  local command = {'XADD', RESULTS, '*', 'settled_us', text(wall), unpack(ARGV, pos, pos + 2 * fields - 1)}
  pos = pos + 2 * fields
  local slots = {}
  for i = 1, own do slots[i] = 5 + 2 * take_number() end
  shapes[n] = {command = command, slots = slots, own = own}
end

-- `at`: where the words of the intent begin; `last`: the last of its orders, before its shape.
local works, ids, keys = {}, {}, {}
for n = 1, take_number() do
  local at, ends = pos, ARGV[pos + 2] == 'f'
  local first = pos + (ends and 7 or 8)
  local last = first - 1 + tonumber(ARGV[first - 1])
  local shape = shapes[tonumber(ARGV[last + 1])]
  for i = first, last do keys[#keys + 1] = ARGV[i] end
  works[n], ids[n] = {at = at, ends = ends, first = first, last = last, shape = shape}, ARGV[at]
  pos = last + 2 + (shape and shape.own or 0)
end

local function tell(w)
  local shape = w.shape
  if not shape then return end
  local command, slots, from = shape.command, shape.slots, w.last + 1
  for i = 1, shape.own do command[slots[i]] = ARGV[from + i] end
  redis.call(unpack(command))
end

local applied, others, stale, learnt = 0, {}, {}, {}
if #works > 0 then
  local states = redis.call('HMGET', ROOT .. 'state', unpack(ids))
  local lists = {}
  if #keys > 0 then
    local kept = redis.call('HMGET', ROOT .. 'orders', unpack(keys))
    for i, key in ipairs(keys) do lists[key] = kept[i] or '' end
  end
  local changed, ended, unleased, set, settled, sorted = {}, {}, {}, {}, {}, {}
  local any_sweep, seen = false, {}

  local function leave_order(key, id, known)
    changed[key] = true
    if lists[key] == id then
      lists[key] = ''
      return
    end
    local rest = {}
    for other in string.gmatch(lists[key], '%S+') do
      if other ~= id then
        rest[#rest + 1] = other
        if known then others[other] = true end
      end
    end
    lists[key] = table.concat(rest, ' ')
  end

  for i, w in ipairs(works) do
    local id, at = ids[i], w.at
    local fence, taken = string.match(not seen[id] and states[i] or '', '^(%d+) (%d)')
    if fence == ARGV[at + 1] and taken ~= '0' then
      applied = applied + 1
      unleased[applied] = id
      seen[id] = true -- the same id twice in one settlement: the second is stale
      tell(w)
      if w.ends then
        ended[#ended + 1] = id
        any_sweep = any_sweep or w.first > w.last
        if ARGV[at + 3] ~= '' then
          settled[#settled + 1] = ARGV[at + 3]
          settled[#settled + 1] = ARGV[at + 4]
        end
        for n = w.first, w.last do leave_order(ARGV[n], id, ARGV[at + 5] == '1') end
      else
        for n = w.first, w.last do
          local key = ARGV[n]
          if lists[key] == '' then
            lists[key] = id
          elseif #lists[key] < 4000 and not string.find(' ' .. lists[key] .. ' ', ' ' .. id .. ' ', 1, true) then
            lists[key] = lists[key] .. ' ' .. id
          end
          changed[key] = true
          learnt[#learnt + 1] = key
        end
        local queue, due, sort, state = ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
        set[#set + 1] = id
        set[#set + 1] = state
        if due == 'p' then
          due = string.match(state, '^%d+ %d %a %d+ %d+ %d+ %d+ %a (%d+)')
        else
          due = text(steady + tonumber(due) - #works + i) -- in their order in the call
        end
        queue_later(queue, id, due)
        if sort ~= '' then gather(sorted, queue, '0', by_order(sort, id)) end
      end
    else
      stale[#stale + 1] = i - 1
    end
  end

  queue_all()
  for queue, by_id in pairs(sorted) do redis.call('ZADD', ROOT .. 'sorted:' .. queue, unpack(by_id)) end
  if #settled > 0 then memory().add(settled) end
  if #set > 0 then redis.call('HSET', ROOT .. 'state', unpack(set)) end
  if #unleased > 0 then redis.call('ZREM', ROOT .. 'leases', unpack(unleased)) end
  if #ended > 0 then
    redis.call('HDEL', ROOT .. 'state', unpack(ended))
    redis.call('HDEL', ROOT .. 'intents', unpack(ended))
    redis.call('ZREM', ROOT .. 'expiry', unpack(ended))
    -- What steps aside for an urgent sweep goes on; if another one is under way, its next call says so.
    local began = any_sweep and string.match(redis.call('GET', ROOT .. 'sweeping') or '', ' %d+$')
    if began then redis.call('SET', ROOT .. 'sweeping', '0' .. began) end
  end
  local put, drop = {}, {}
  for key in pairs(changed) do
    if lists[key] == '' then drop[#drop + 1] = key else put[#put + 1] = key; put[#put + 1] = lists[key] end
  end
  if #put > 0 then redis.call('HSET', ROOT .. 'orders', unpack(put)) end
  if #drop > 0 then redis.call('HDEL', ROOT .. 'orders', unpack(drop)) end
  for _, id in ipairs(ended) do others[id] = nil end
end

-- Until when these orders may not be sent. A settlement may come twice, as when its reply was lost: where all intents
-- are stale, the orders may be on their way in another call by now, and are closed for as long as that one has them. So
-- may be those that an answer told another id of.
local function close_orders(orders, shorten)
  local command = {'ZADD', ROOT .. 'sent', not shorten and 'GT' or nil}
  for _, order in ipairs(orders) do
    command[#command + 1] = sent_till
    command[#command + 1] = order
  end
  redis.call(unpack(command))
end
if orders_n > 0 and sent then
  close_orders(on_their_way, applied > 0)
  if #learnt > 0 then close_orders(learnt, false) end
elseif orders_n > 0 and applied > 0 then
  redis.call('ZREM', ROOT .. 'sent', unpack(on_their_way))
end

keep_clock(new_out)
local left = 0
for _ in pairs(others) do left = left + 1 end
return {text(steady), applied, left, stale}
