#!lua flags=allow-oom
-- TAKE: a permit and the orders its call can carry, in one step; or how long until there is something to do.
--
-- KEYS[1]  the lane's clock
-- ARGV[1]  the lane's plan, in lines, read where a word of it is needed (as JSON, reading it was half of an idle take):
--            venue account lease_us gap_us poll_us window_us errors_us errors_most
--            B bucket units window_us reserve fixed                                              for each bucket
--            R queue:kind route most least bucket per_call per_order downwards by_class errors stage walk
--                                                                                    for each route and kind
--          reserve: units only urgent intents may take, at most a fifth of the bucket; fixed: 1 if the operator set
--          `units`: a size that the venue tells then counts only if it is smaller
--          queue: the stage it serves; stage: what its call is. They differ for a route that looks before it sends,
--          which is used for a class only while another route of that class is closed by equal errors.
--          walk: the kind whose classes are the further pages of the walk that such a class begins, else -
-- ARGV[2]  stages the caller has a connection for: 'c', 'l', 'cl' or '' (then only local steps are returned)
-- ARGV[3]  id of the batch, new for every call of this script
-- ARGV[4]  '1' if this worker is suspended: as a pause, for this call only
-- ARGV[5]  routes the caller's address has no share for now, with a blank around each
-- ARGV[6]  routes for which it has a share that only urgent intents may take
-- ARGV[7]  '1' if the caller's process may carry an intent that two workers ended with (suspects.py)
-- ARGV[8]  '1' if the venue answered the caller's process last: that another could not reach it does not hold this one
-- ARGV[9]  '1' if the caller was granted something here lately: then a lane that knows no server has lost its data
-- Replies  {steady, wall, wait_us, local steps, batch, stopped, streamed, suspects, starved, more, given up}
--   given up: ids of intents that were told as unresolved by this script, as every worker that took them ended
--   streamed: 1 while the lane's private order stream is alive
--   suspects: 1 if such an intent was left for lack of that right
--   starved: 1 if one was left for lack of the address' share, 2 if that is urgent: the caller is to come again when it
--   has some
--   more: how many calls what is left could fill, if another one can be made at once; else 0
--   stopped: 1 if the lane is held until an operator resumes it (the key was refused)
--   local steps: {why, id, state, record, …}: intents leased to the caller that end without a call
--       why: expired | struck | revoke-claimed (followed by its target's entry, why 'target') | revoke-sent |
--       revoke-ended | revoke-unknown
--   batch: {} or {route, stage, fastest_us, opens_at, units, id, state, record, …}; fastest_us: the fleet's shortest round
--       trip lately, or 0; opens_at: of a look ahead of a cancel whose routes are all locked, when the first of them opens,
--       else 0; units: what was granted of the route's bucket; states are those before the take: the fence is one
--       higher now, and attempts (stage c) or look-ups (stage l) count one more.
-- Order: leases that ended, revocations, what has expired, what has become due, then the call that carries
-- most: urgent before normal, cancels before looks, oldest class first.

--include prelude
--include memory
--include take_plan
--include take_local
--include take_limits

local OVERDUE_US = 1000000
local ORDER = {{'c', 'u'}, {'l', 'u'}, {'c', 'n'}, {'l', 'n'}}
-- Class heads are read by pages. So many are looked at at most; those of a kind that has no permit are only passed by.
local HEADS_PAGE, HEADS, HEADS_PASSED = 128, {c = 128, l = 1024}, 2048
local short_until -- when the first permit comes that something waits for

-- The classes of a stage and priority with the times of their heads, so many of them from a place on. The first page is
-- read once, and again where this take has changed it.
local seen_heads = {}
local function class_heads(where, from, most)
  local seen = from == 0 and seen_heads[where]
  if seen then return seen end
  local heads = redis.call('ZRANGE', ROOT .. 'classes:' .. where, from, from + most - 1, 'WITHSCORES')
  if from == 0 then seen_heads[where] = heads end
  return heads
end
local function head_changed(where, class)
  local at = fix_head(where, class)
  local alone = seen_heads[where] and #seen_heads[where] == 2
  seen_heads[where] = alone and (at and {class, at} or {}) or nil
  return at
end

-- Whether what is due later in a class waits for the caller's address alone then, too: it is in line for that already,
-- which wakes it.
local in_lines = {}
local function in_line(stage, class, kind, urgent)
  if starved == 0 then return false end
  local key = stage .. kind .. (urgent and 'u' or 'n')
  if in_lines[key] == nil then
    local usable, opens_at, short = usable_routes(stage, class, urgent)
    in_lines[key] = short and #usable == 0 and opens_at == math.huge
  end
  return in_lines[key]
end

-- Walks the class heads of a queue that are visible; returns the first call that can be made and is worth it, or is
-- overdue, else the first that can be made: where calls that are worth it come in all the time, the others would wait for
-- ever. Where nothing of a kind has a permit, the others of that kind are passed by: hundreds of pairs may wait for one
-- endpoint while another has permits. A call: the stage and priority of its queue (and both, as `where`), its class, its
-- route, how many it can carry, and how many wait there.
local function choose_of(stage, priority, where)
  local spare, shut, looked, from = nil, {}, 0, 0
  while true do
    local heads, moved = class_heads(where, from, HEADS_PAGE), 0
    for i = 1, #heads, 2 do
      local class, at = heads[i], tonumber(heads[i + 1])
      local kind = string.match(class, '^[^:]*')
      if at > steady then
        if i + 1 == 2 * HEADS_PAGE or not in_line(stage, class, kind, priority == 'u') then
          no_later(at)
          return spare
        end
      elseif not shut[kind] then
        looked = looked + 1
        local visible = redis.call('ZCOUNT', ROOT .. 'queue:' .. where .. ':' .. class, '-inf', text(steady))
        if visible == 0 then
          moved = moved + 1
          no_later(head_changed(where, class) or math.huge)
        else
          local route, carry, fits, later, short, none = route_for(stage, class, visible, priority == 'u', at)
          shut[kind] = none
          if route then
            local call = {stage = stage, priority = priority, where = where, class = class, route = route, carry = carry,
              visible = visible}
            if fits or at <= steady - OVERDUE_US then return call end
            spare = spare or call
          elseif not short or later < math.huge then -- else it waits for its address alone, which wakes the lane
            short_until = math.min(short_until or later, later)
            no_later(later)
          end
        end
      end
    end
    from = from + HEADS_PAGE - moved
    if #heads < 2 * HEADS_PAGE or looked >= HEADS[stage] or from >= HEADS_PASSED then return spare end
  end
end

-- The call to make now: urgent before normal, cancels before looks.
local function choose()
  short_until = nil
  for _, o in ipairs(ORDER) do
    local stage, priority = o[1], o[2]
    local where = lane_of(stage, priority)
    -- Where equal errors may close routes, a look may serve the cancel queue.
    local allowed = string.find(ARGV[2], stage, 1, true) or (plan.errors_us > 0 and ARGV[2] ~= '')
    if paused and stage == 'c' and priority == 'n' then allowed = false end
    if aside and priority == 'n' then allowed = false end
    yielding = urgent_sweep and stage == 'c' and priority == 'n'
    if allowed then
      local call = choose_of(stage, priority, where)
      if call then return call end
    elseif class_heads(where, 0, 1)[1] then
      no_later(math.huge)
    end
  end
end

-- The words of a state line by their places here, without the two that a take always writes anew. PLACE is the priority
-- and the place, CLASSES both classes and the digest, CALL the last call's route, batch, size and time; then come notes.
local FENCE, ATTEMPTS, LOOKUPS, STRIKES, CAP, PLACE, EXPIRES_MS, CLASSES, ORDERS, CALL = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
local TAKE = '^(%d+) %d %a (%d+) (%d+) (%S+) (%d+) (%a %d+) (%d+) (%S+ %S+ %S+) (%S+) (%S+ %S+ %d+ %d+) (.*)$'

-- For a route that reads a page downwards from an order id: the intent that waits longest and those that wait with the
-- ids next above its own, so that one page reaches as many as it can. Who waits longest mostly has the lowest id: below
-- it nothing waits. A page that is full of other orders does not reach down to it: of those that follow, one in four
-- begins with it. Nil where that is not known.
local OLDEST_FIRST = 4
local function page_above(queue, where, class, carry)
  local oldest = redis.call('ZRANGEBYSCORE', queue, '-inf', text(steady), 'LIMIT', 0, 1)[1]
  local line = oldest and redis.call('HGET', ROOT .. 'state', oldest)
  if not line then return nil end
  local fence, attempts, lookups, _, _, _, _, _, orders = string.match(line, TAKE)
  local key, first = ROOT .. 'sorted:' .. where .. ':' .. class, among_orders(orders, oldest)
  if not first then return nil end
  local passed_by = fence - attempts - lookups > 0 -- taken, and not counted as a look
  local found
  if passed_by and math.floor(steady / 1000) % OLDEST_FIRST == 0 then
    found = redis.call('ZRANGE', key, '[' .. first, '-', 'BYLEX', 'REV', 'LIMIT', 0, carry + 10)
  else
    found = redis.call('ZRANGE', key, '[' .. first, '+', 'BYLEX', 'LIMIT', 0, carry + 10)
  end
  if found[1] ~= first then return nil end
  local neighbours, ids, gone = {}, {}, {}
  for i = 1, #found do neighbours[i] = string.match(found[i], '^%d+ (.+)$') or found[i] end -- as versions before noted it
  local times = redis.call('ZMSCORE', queue, unpack(neighbours))
  for i = 1, #found do
    if not times[i] then
      gone[#gone + 1] = found[i]
    elseif tonumber(times[i]) <= steady then
      ids[#ids + 1] = neighbours[i]
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

--include take_sweeps

-- Adds some of a class' intents to a call. Skips what is in flight or was sent too lately; two intents of one
-- order travel as one item; an intent that may not travel in company closes the call at its size.
local SUSPECT, SUSPECT_WAIT_US = text(SUSPECT_STRIKES), 20000
local suspects = false
local function add(call, queue, ids)
  local stage = call.stage
  local lines = redis.call('HMGET', ROOT .. 'state', unpack(ids))
  local words, keys = {}, {}
  for i = 1, #ids do
    if lines[i] and not call.has[ids[i]] then
      local w = {string.match(lines[i], TAKE)}
      words[i] = w
      if stage == 'c' and w[ORDERS] ~= '-' then
        if string.find(w[ORDERS], ',', 1, true) then
          for key in string.gmatch(w[ORDERS], '[^,]+') do keys[#keys + 1] = key end
        else
          keys[#keys + 1] = w[ORDERS]
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
    elseif w[EXPIRES_MS] ~= '0' and w[ATTEMPTS] == '0' and (stage == 'c' or w[LOOKUPS] == '0') and tonumber(w[EXPIRES_MS]) < wall_ms then
      redis.call('ZREM', queue, id)
      redis.call('ZREM', ROOT .. 'expiry', id)
      firsts.expiry = nil
      lease_step('expired', id, parse(lines[i]), lines[i])
    elseif sweep then
      redis.call('ZREM', queue, id)
      leave_to(sweep, asked, id, lines[i])
    else
      local orders = w[ORDERS]
      local many = string.find(orders, ',', 1, true)
      local alone = w[STRIKES] == SUSPECT and (call.route.stage == 'c' or w[CAP] == '1') -- State.suspect in state.py
      local rides, blocked = orders_in[orders], busy and busy[orders] or 0
      if many then
        for key in string.gmatch(orders, '[^,]+') do
          if orders_in[key] then rides = true end
          if busy and busy[key] and busy[key] > blocked then blocked = busy[key] end
        end
      end
      if blocked > steady then
        redis.call('ZADD', queue, text(blocked), id)
      elseif alone and ARGV[7] == '0' then
        suspects = true
        redis.call('ZADD', queue, text(steady + SUSPECT_WAIT_US), id)
      else
        local fits = #batch < call.most
        if not rides then
          local cap, bound = alone and 1 or tonumber(w[CAP]), call.limit
          if cap > 0 and cap < bound then bound = cap end
          fits = call.items < bound
          if fits then call.limit, call.items = bound, call.items + 1 end
        end
        if fits then
          batch[#batch + 1] = {id = id, line = lines[i], words = w}
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
local function fill(call)
  local queue, carry = ROOT .. 'queue:' .. call.where .. ':' .. call.class, call.carry
  call.batch, call.items, call.limit, call.most, call.has, call.orders = {}, 0, carry, 2 * carry + 10, {}, {}
  local ids = call.route.downwards and page_above(queue, call.where, call.class, carry)
  if ids then
    add(call, queue, ids)
  else
    for _, more in ipairs({4, carry + 50}) do
      ids = redis.call('ZRANGEBYSCORE', queue, '-inf', text(steady), 'LIMIT', 0, carry + more)
      if #ids > 0 then add(call, queue, ids) end
      if call.items >= call.limit or #ids < carry + more then break end
    end
  end
end

-- The grant: everything a crash of the caller must not undo is written here, before anything is sent.
local function grant(call)
  local where, class, route, stage = call.where, call.class, call.route, call.route.stage
  local ids, sets, leases, looked_for = {}, {}, {}, {}
  local told = route.name .. ' ' .. batch_id .. ' ' .. text(call.items) .. ' ' .. text(wall)
  for i, b in ipairs(call.batch) do
    local id, w = b.id, b.words
    if stage == 'c' then
      w[ATTEMPTS], w[CALL] = text(w[ATTEMPTS] + 1), told
    else
      w[LOOKUPS] = text(w[LOOKUPS] + 1)
    end
    ids[i] = id
    sets[2 * i - 1] = id
    sets[2 * i] = text(w[FENCE] + 1) .. ' 1 ' .. stage .. ' ' .. table.concat(w, ' ', ATTEMPTS)
    leases[2 * i - 1] = lease_end
    leases[2 * i] = id
    if call.stage == 'l' then looked_for[#looked_for + 1] = among_orders(w[ORDERS], id) end
  end
  redis.call('HSET', ROOT .. 'state', unpack(sets))
  redis.call('ZADD', ROOT .. 'leases', unpack(leases))
  firsts.leases = math.min(first_of('leases'), steady + plan.lease_us)
  redis.call('ZREM', ROOT .. 'queue:' .. where .. ':' .. class, unpack(ids))
  if #looked_for > 0 then redis.call('ZREM', ROOT .. 'sorted:' .. where .. ':' .. class, unpack(looked_for)) end
  head_changed(where, class)
  if stage == 'c' then
    local sent, till = {}, text(steady + plan.lease_us + plan.gap_us)
    for key in pairs(call.orders) do
      sent[#sent + 1] = till
      sent[#sent + 1] = key
    end
    if #sent > 0 then redis.call('ZADD', ROOT .. 'sent', unpack(sent)) end
  end
  if route.errors > 0 then redis.call('ZADD', ROOT .. 'errors:' .. route.bucket .. ':asked', text(steady), batch_id) end
  errors_seen[route.bucket] = nil
  local bucket = bucket_state(route.bucket)
  local units = route.per_call + route.per_order * call.items
  -- Until the caller reports, the permit counts as used for as long as its call could possibly live.
  local free = steady + plan.lease_us + bucket.window_us + 1000000
  local permits = {}
  for i = 1, units do permits[2 * i - 1], permits[2 * i] = text(free), batch_id .. ':' .. text(i) end
  if units > 0 then redis.call('ZADD', bucket.key, unpack(permits)) end
  bucket.used, bucket.last = bucket.used + units, steady
  if stage == 'c' then redis.call('HSET', ROOT .. 'rtt:' .. route.bucket, 'last', text(steady)) end
  if bucket.probe then
    redis.call('HSET', ROOT .. 'rtt:' .. route.bucket, 'probe', lease_end .. ' ' .. batch_id)
    bucket.probing = true
  end
  local records = redis.call('HMGET', ROOT .. 'intents', unpack(ids))
  local reply = {route.name, stage, bucket.fastest, text(call.stage ~= stage and opens[class] or 0), text(units)}
  for i, b in ipairs(call.batch) do
    reply[3 * i + 3] = b.id
    reply[3 * i + 4] = b.line
    reply[3 * i + 5] = records[i] or '{}'
    if b.words[ORDERS] == '-' then note_sweep(stage, b.words, records[i]) end
  end
  return reply, free
end

-- Until when a permit is out, or an order may not be sent; where nothing is leased, nothing else relies on the clock.
local function still_out()
  local last = steady
  local function look(set)
    local found = redis.call('ZRANGE', ROOT .. set, -1, -1, 'WITHSCORES')
    if found[2] then last = math.max(last, tonumber(found[2])) end
  end
  look('sent')
  for bucket in string.gmatch(PLAN, '\nB (%S+)') do look('permits:' .. bucket) end
  return last
end

-- Another server than before (restart, failover): permits it has forgotten and permits granted elsewhere
-- must not add up.
local function server_changed()
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or '-'
  if run == server then return false end
  local first = server == '-'
  server = run
  if first and ARGV[9] ~= '1' then return false end
  redis.call('HSET', ROOT .. 'hold', '*|restart',
    text(steady + plan.lease_us + plan.window_us) .. ' another server than before: waiting until every earlier permit is surely free')
  return true
end

redis.call('ZREMRANGEBYSCORE', ROOT .. 'sent', '-inf', text(steady))
local SHORT_US = 250000 -- asking which server this is costs as much as an idle take: not for each wait of a busy lane
local reply, out, more = {}, nil, 0
for round = 1, 4 do
  local call = choose()
  -- Noticed as soon as something waits for a permit: the hold begins with this, and permits on record may be as old.
  if (call or (short_until and short_until > steady + SHORT_US)) and server_changed() then
    no_later(steady + 50000)
    break
  end
  if not call then break end
  fill(call)
  if #call.batch > 0 then
    reply, out = grant(call)
    local next_call = choose()
    if next_call then next_at, more = steady, math.ceil(next_call.visible / next_call.carry) end
    break
  end
  -- Everything that was visible here is in flight, was sent too lately or left to a sweep: the next class, or call.
  head_changed(call.where, call.class)
  if round == 4 then next_at = steady end
end

-- When to come back at the latest: a lease's end, a timed intent, an expiry.
local lease, timed, expiry = first_of('leases'), first_of('timed'), first_of('expiry')
if lease < math.huge then no_later(lease) end
if timed < math.huge then no_later(steady + math.max(0, timed * 1000 - wall)) end
if expiry < math.huge then no_later(steady + math.max(0, (expiry + 1) * 1000 - wall)) end

if #steps > 0 then out = math.max(out or 0, steady + plan.lease_us) end
-- The steady clock follows TIME for a poll or two; while somebody relies on it, the lane must look that often. So it must
-- while a guard is armed: what that fires passes no inbox. What was granted counts as out for as long as its call could
-- live; once nothing else keeps the lane awake, by what its settlement has left.
if resting and #reply == 0 and #steps == 0 then
  if out_until > steady then out_until = still_out() end
  if out_until <= steady and redis.call('EXISTS', ROOT .. 'guard', ROOT .. 'armed') == 0 then
    next_at = steady + REST_US
  end
end
keep_clock(out)
return {text(steady), text(wall), text(math.max(0, next_at - steady)), steps, reply, stopped and 1 or 0,
  streamed and 1 or 0, suspects and 1 or 0, starved, more, given_up}
