#!lua flags=allow-oom
-- SETTLE: puts the permits right and, for every intent of a call, either ends it or moves it on.
--
-- KEYS[1]  the lane's clock
-- ARGV, in this order
--   permits_n, then for each: bucket window_us units member how ago_us rtt_us
--       how: 'a' answered `ago_us` ago after a round trip of `rtt_us`; 'n' no answer, the connection was closed
--       `ago_us` ago; 'r' as 'a', but the venue refused it for its limit; 'u' not used
--   orders_n, then how ('s' the call was sent, 'u' not), free_us (until when no cancel, from now), order…
--   holds_n, then for each: scope reason for_us ('-1' without end) detail
--   works_n, then for each: id fence verb …
--     'f' memory_key memory_value orders_n order… known fields_n field value …   ends; known: 1 if the order's end is known
--     'm' queue at sort state orders_n order… fields_n field value …                  moves; queue: 'l:u:any'; at: 'p' its old
--         place, else a delay in us; sort: the order id it is looked for by, or empty; orders: further orders it is now known to name; fields may be none
-- Replies  {steady, applied, {other id, …}}   the others are open intents that name an order whose end is now known
-- A fence that does not match, or an intent at rest, is stale: nothing of that intent changes.
-- An event is written before what it stands for is removed: every prefix of this script is safe.

--include

local pos = 1
local function take_arg() pos = pos + 1; return ARGV[pos - 1] end
local function take_number() return tonumber(take_arg()) end

-- How early a permit may be free again: the fleet's fastest round trip in this bucket over the last minute,
-- less a margin that shrinks as samples come in; 0 until there are enough of them.
local function fastest_us(bucket, rtt)
  local key, slot = ROOT .. 'rtt:' .. bucket, math.floor(steady / 10000000)
  local kept = redis.call('HGETALL', key)
  local least, sum, count, current = nil, 0, 0, nil
  for i = 1, #kept, 2 do
    local n = tonumber(kept[i])
    if n == nil then
      -- 'guard' and 'fast' live here too
    elseif n <= slot - 6 then
      redis.call('HDEL', key, kept[i])
    else
      local a, b, c = string.match(kept[i + 1], '^(%d+) (%d+) (%d+)$')
      a, b, c = tonumber(a), tonumber(b), tonumber(c)
      if n == slot then current = {a, b, c} end
      if least == nil or a < least then least = a end
      sum, count = sum + b, count + c
    end
  end
  if rtt then
    current = current or {rtt, 0, 0}
    if rtt < current[1] then current[1] = rtt end
    current[2], current[3] = current[2] + rtt, current[3] + 1
    redis.call('HSET', key, text(slot), text(current[1]) .. ' ' .. text(current[2]) .. ' ' .. text(current[3]))
    if least == nil or rtt < least then least = rtt end
    sum, count = sum + rtt, count + 1
  end
  local trust = 0
  if count >= 20 then trust = math.max(0, least - (sum / count - least) / math.sqrt(count)) end
  redis.call('HSET', key, 'fast', text(trust))
  return trust
end

local GUARD_US, GUARD_MAX_US = 2000, 100000

local new_out = 0
for _ = 1, take_number() do
  local bucket, window, units = take_arg(), take_number(), take_number()
  local member, how, ago, rtt = take_arg(), take_arg(), take_number(), take_number()
  local permits, stats = ROOT .. 'permits:' .. bucket, ROOT .. 'rtt:' .. bucket
  local free
  if how ~= 'u' then
    local guard = tonumber(redis.call('HGET', stats, 'guard') or GUARD_US)
    if how == 'r' then
      guard = math.min(guard * 2, GUARD_MAX_US)
      redis.call('HSET', stats, 'guard', text(guard))
    end
    if how == 'n' then
      free = steady - ago + window + 1000000
    else
      free = steady - ago + window - fastest_us(bucket, how == 'a' and rtt or nil) + guard
    end
    if free > new_out then new_out = free end
  end
  for i = 1, units do
    if how == 'u' then
      redis.call('ZREM', permits, member .. ':' .. text(i))
    else
      -- A permit that was dropped meanwhile (its lease was long over) comes back: the call was made.
      redis.call('ZADD', permits, text(free), member .. ':' .. text(i))
    end
  end
end

do
  local count, how, free_us = take_number(), take_arg(), take_number()
  local flat = {}
  for i = 1, count do
    if how == 's' then
      flat[#flat + 1] = text(steady + free_us)
    end
    flat[#flat + 1] = take_arg()
  end
  if count > 0 then redis.call(how == 's' and 'ZADD' or 'ZREM', ROOT .. 'sent', unpack(flat)) end
end

for _ = 1, take_number() do
  local scope, reason, span, detail = take_arg(), take_arg(), take_number(), take_arg()
  local field, till = scope .. '|' .. reason, -1
  if span >= 0 then
    till = steady + span
    local kept = redis.call('HGET', ROOT .. 'hold', field)
    local old = kept and tonumber(string.match(kept, '^(%-?%d+)')) or 0
    if old == -1 then till = -1 elseif old > till then till = old end
  end
  redis.call('HSET', ROOT .. 'hold', field, text(till) .. ' ' .. detail)
end

local works, ids, keys = {}, {}, {}
for n = 1, take_number() do
  local w = {id = take_arg(), fence = take_arg(), verb = take_arg(), orders = {}}
  if w.verb == 'f' then
    w.memory, w.value = take_arg(), take_arg()
  else
    w.queue, w.at, w.sort, w.state = take_arg(), take_arg(), take_arg(), take_arg()
  end
  for i = 1, take_number() do
    w.orders[i] = take_arg()
    keys[#keys + 1] = w.orders[i]
  end
  if w.verb == 'f' then w.known = take_arg() == '1' end
  local fields = take_number()
  w.from, w.to = pos, pos + 2 * fields - 1
  pos = w.to + 1
  works[n], ids[n] = w, w.id
end

local results, settled_us, applied, others = ROOT .. 'results', text(wall), 0, {}
if #works > 0 then
  local states = redis.call('HMGET', ROOT .. 'state', unpack(ids))
  local lists = {}
  if #keys > 0 then
    local kept = redis.call('HMGET', ROOT .. 'orders', unpack(keys))
    for i, key in ipairs(keys) do lists[key] = kept[i] or '' end
  end
  local changed, ended, unleased, set, remembered, sorted = {}, {}, {}, {}, {}, {}
  local hour = text(math.floor(wall / 3600000000))

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
    local fence, taken = string.match(states[i] or '', '^(%d+) (%d)')
    if fence == w.fence and taken ~= '0' then
      applied = applied + 1
      unleased[#unleased + 1] = w.id
      states[i] = false -- the same id twice in one call: the second is stale
      if w.to >= w.from then
        redis.call('XADD', results, '*', 'settled_us', settled_us, unpack(ARGV, w.from, w.to))
      end
      if w.verb == 'f' then
        ended[#ended + 1] = w.id
        if w.memory ~= '' then
          remembered[#remembered + 1] = w.memory
          remembered[#remembered + 1] = w.value
        end
        for _, key in ipairs(w.orders) do leave_order(key, w.id, w.known) end
      else
        for _, key in ipairs(w.orders) do
          if lists[key] == '' then
            lists[key] = w.id
          elseif #lists[key] < 4000 and not string.find(' ' .. lists[key] .. ' ', ' ' .. w.id .. ' ', 1, true) then
            lists[key] = lists[key] .. ' ' .. w.id
          end
          changed[key] = true
        end
        set[#set + 1] = w.id
        set[#set + 1] = w.state
        local at
        if w.at == 'p' then
          at = string.match(w.state, '^%d+ %d %a %d+ %d+ %d+ %d+ %a (%d+)')
        else
          at = text(steady + tonumber(w.at))
        end
        queue_later(w.queue, w.id, at)
        if w.sort ~= '' then
          local by_id = sorted[w.queue]
          if not by_id then
            by_id = {}
            sorted[w.queue] = by_id
          end
          by_id[#by_id + 1] = w.sort
          by_id[#by_id + 1] = w.id
        end
      end
    end
  end

  queue_all()
  for queue, by_id in pairs(sorted) do redis.call('ZADD', ROOT .. 'sorted:' .. queue, unpack(by_id)) end
  if #remembered > 0 then
    redis.call('HSET', ROOT .. 'memory:' .. hour, unpack(remembered))
    redis.call('ZADD', ROOT .. 'memory', hour, hour)
  end
  if #set > 0 then redis.call('HSET', ROOT .. 'state', unpack(set)) end
  if #unleased > 0 then redis.call('ZREM', ROOT .. 'leases', unpack(unleased)) end
  if #ended > 0 then
    redis.call('HDEL', ROOT .. 'state', unpack(ended))
    redis.call('HDEL', ROOT .. 'intents', unpack(ended))
    redis.call('ZREM', ROOT .. 'expiry', unpack(ended))
  end
  local put, drop = {}, {}
  for key in pairs(changed) do
    if lists[key] == '' then drop[#drop + 1] = key else put[#put + 1] = key; put[#put + 1] = lists[key] end
  end
  if #put > 0 then redis.call('HSET', ROOT .. 'orders', unpack(put)) end
  if #drop > 0 then redis.call('HDEL', ROOT .. 'orders', unpack(drop)) end
  for _, id in ipairs(ended) do others[id] = nil end
end

keep_clock(new_out)
local list = {}
for id in pairs(others) do list[#list + 1] = id end
return {text(steady), applied, list}
