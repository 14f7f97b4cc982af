-- Part of take.lua: orders that a sweep cancels anyway are looked at instead of being named in a call of their own.

-- Sweeps (a pair, an account) that are under way, by kind of order and pair ('*': all). `queued`: when it was asked for;
-- its place does not tell that, as what is urgent is admitted ahead of what was asked for before it. `seen_at`: when the
-- orders they were to cancel are worth a look. The entry outlives the sweep's last call by a lease.
local SEEN_AFTER_BULK_US, SEEN_AFTER_LIST_US = 500000, 2000000
local SWEEP_PAUSE_US = 1500000 -- the longest pause between two calls of a sweep that gets on
local SWEEP_ANEW_US = 2 * ASIDE_US -- how long after the last beginning there may be another
local under_way
local function sweeps_under_way()
  if under_way == nil then
    under_way = false
    local kept = plain and {} or redis.call('HGETALL', ROOT .. 'sweeps')
    for i = 1, #kept, 2 do
      local queued, priority, seen_at, till = string.match(kept[i + 1], '^(%d+) (%a) (%d+) (%d+)$')
      if tonumber(till) > steady then
        under_way = under_way or {}
        under_way[kept[i]] = {queued = tonumber(queued), priority = priority, seen_at = tonumber(seen_at)}
      else
        redis.call('HDEL', ROOT .. 'sweeps', kept[i])
      end
    end
  end
  return under_way
end

local function note_urgent_sweep()
  local began = tonumber(string.match(redis.call('GET', ROOT .. 'sweeping') or '', ' (%d+)$'))
  if not began or began + SWEEP_ANEW_US < steady then began = steady end
  redis.call('SET', ROOT .. 'sweeping', text(steady + SWEEP_PAUSE_US) .. ' ' .. text(began))
end

-- A sweep of everything of its kind goes out, or looks what it left: it is under way for a lease more.
local function note_sweep(stage, w, record)
  local asked = record and cjson.decode(record)
  local priority = string.match(w[PLACE], '^%a')
  if priority == 'u' then note_urgent_sweep() end
  -- A look back cancels nothing.
  if not asked or asked.looks_back or asked.older_than_ms or asked.client_prefix then return end
  for kind in string.gmatch(asked.kinds or 'order', '[^,]+') do
    local field = kind .. ' ' .. (asked.symbol or '*')
    local kept = redis.call('HGET', ROOT .. 'sweeps', field)
    local seen_at = kept and string.match(kept, '^' .. asked.queued_us .. ' %a (%d+) ')
      or text(steady + (stage == 'c' and SEEN_AFTER_BULK_US or SEEN_AFTER_LIST_US))
    redis.call('HSET', ROOT .. 'sweeps', field, asked.queued_us .. ' ' .. priority .. ' ' .. seen_at .. ' ' .. lease_end)
  end
end

-- The sweep that cancels this order anyway: of the same urgency at least, queued after it and under way, when nothing
-- was sent for this order yet. Once that sweep has had its time, who is seen open goes by itself: many go faster than one
-- sweep that does not get on.
local function sweep_of(w, record)
  if w[ATTEMPTS] ~= '0' or w[ORDERS] == '-' or not record then return nil end
  local asked = cjson.decode(record)
  if asked.only_if then return nil end
  local priority, queued = string.match(w[PLACE], '^%a'), tonumber(asked.queued_us)
  for _, symbol in ipairs({asked.symbol or '*', '*'}) do
    local sweep = under_way[asked.scope .. ' ' .. symbol]
    local covers = sweep and queued <= sweep.queued and (sweep.priority == 'u' or priority == 'n')
    if covers and (w[LOOKUPS] == '0' or sweep.seen_at > steady) then return sweep, asked end
  end
end

-- Its order is looked at instead of being named in a call of its own.
local function leave_to(sweep, asked, id, line)
  local s = parse(line)
  s.stage = 'l'
  redis.call('HSET', ROOT .. 'state', id, pack(s))
  enqueue('l', s.priority, s.look_class, id, text(math.max(steady, sweep.seen_at)))
  seen_heads[lane_of('l', s.priority)] = nil
  local routes = plan_routes('l', s.look_class)
  if routes[1] and routes[1].downwards and string.match(asked.order_id or '', '^%d+$') then
    redis.call('ZADD', ROOT .. 'sorted:' .. lane_of('l', s.priority) .. ':' .. s.look_class, '0', by_order(asked.order_id, id))
  end
end
