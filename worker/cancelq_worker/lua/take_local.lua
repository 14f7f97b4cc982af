-- Part of take.lua: what has to be done before any call: leases that ended, revocations, what has expired, what is due.

-- 1. Leases that ended: whoever held them is gone or stalled. A cancel that may have been sent is looked for,
--    never sent again unseen. Each such end is a strike; but not that of a look in company by an intent that travels
--    alone otherwise: it is nobody's own (State.passed in state.py). It only goes alone again.
local SUSPECT_STRIKES = 2
local given_up = {} -- intents whose end is told from here
local function hex_bytes(hex)
  return (string.gsub(hex, '%x%x', function(two) return string.char(tonumber(two, 16)) end))
end
if first_of('leases') <= steady then
  local function end_lease(id)
    redis.call('ZREM', ROOT .. 'leases', id)
    local line = redis.call('HGET', ROOT .. 'state', id)
    if not line then return end
    local s = parse(line)
    local trusted = s.strikes == SUSPECT_STRIKES and s.taken == '1' and s.stage == 'l' and s.cap ~= '1'
    if s.taken == '1' and s.stage == 'c' then s.stage = 'l' end
    if not trusted then s.strikes = s.strikes + 1 end
    s.taken = '0' -- at its old place: it has waited long enough
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
      if not (readable and record.looks_back) then
        redis.call('XADD', RESULTS, '*', unpack(told))
        given_up[#given_up + 1] = id
      end
      if not readable or record.explicit == '1' then
        memory().add({hex_bytes(string.sub(redis.sha1hex(id), 1, 24)), (s.attempts > 0 and 's' or 'n') .. s.digest})
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
    if s.strikes >= SUSPECT_STRIKES then s.cap = '1' end
    if s.strikes > SUSPECT_STRIKES then
      lease_step('struck', id, s, pack(s))
      return
    end
    redis.call('HSET', ROOT .. 'state', id, pack(s))
    -- Of one that was only claimed its time may not have come yet.
    local record = s.attempts == 0 and redis.call('HGET', ROOT .. 'intents', id) or ''
    local due_ms = string.match(record, '"not_before_ms":"(%d+)"')
    if due_ms and tonumber(due_ms) > wall / 1000 then
      redis.call('ZADD', ROOT .. 'timed', due_ms, id)
    else
      put_back(id, s)
    end
    -- Whoever was to tell that it has expired may be the one that is gone.
    if s.expires_ms ~= '0' and s.attempts == 0 then redis.call('ZADD', ROOT .. 'expiry', s.expires_ms, id) end
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', ROOT .. 'leases', '-inf', text(steady), 'LIMIT', 0, 100)) do
    end_lease(id)
  end
  firsts = {}
end

-- What few lanes ever have is asked for at once: most takes read none of it.
local plain = redis.call('EXISTS', ROOT .. 'queue:local', ROOT .. 'expiry', ROOT .. 'timed', ROOT .. 'hold',
  ROOT .. 'sweeps') == 0
if plain then firsts.expiry, firsts.timed = math.huge, math.huge end

-- 2. Revocations: no call carries them, and they go before everything that could send their target.
local revocations = plain and {} or redis.call('ZRANGE', ROOT .. 'queue:local', 0, 49)
if #revocations > 0 then
  local function not_open(target, memory_hex)
    if memory_hex == '-' then -- an entry's own id: the inbox itself is the memory
      local found = redis.pcall('XRANGE', INBOX, target, target) -- an impossible id is an error: unknown
      if not found.err and #found > 0 then return 'revoke-ended' end
      return 'revoke-unknown'
    end
    local kept = memory().known(hex_bytes(memory_hex))
    if not kept then return 'revoke-unknown' end
    return string.sub(kept, 1, 1) == 's' and 'revoke-sent' or 'revoke-ended'
  end
  local claimed = {} -- by one of these
  local function revoke(id)
    redis.call('ZREM', ROOT .. 'queue:local', id)
    local line = redis.call('HGET', ROOT .. 'state', id)
    if not line then return end
    local s = parse(line)
    local target, why = s.look_class, nil
    local target_line = redis.call('HGET', ROOT .. 'state', target)
    local t = target_line and parse(target_line)
    if not t then
      why = not_open(target, s.orders)
    elseif t.cancel_class == 'local' or claimed[target] then
      why = 'revoke-ended'
    elseif t.taken ~= '0' or t.attempts > 0 then
      why = 'revoke-sent'
    end
    lease_step(why or 'revoke-claimed', id, s, line)
    if not why then
      claimed[target] = true
      unqueue(target, t)
      lease_step('target', target, t, target_line)
    end
  end
  for _, id in ipairs(revocations) do revoke(id) end
  firsts = {}
end

-- 3. What has expired before anything of it was sent.
if first_of('expiry') < wall / 1000 then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', ROOT .. 'expiry', '-inf', '(' .. text(wall / 1000), 'LIMIT', 0, 100)) do
    redis.call('ZREM', ROOT .. 'expiry', id)
    local line = redis.call('HGET', ROOT .. 'state', id)
    local s = line and parse(line)
    if s and s.taken == '0' and s.attempts == 0 and (s.stage == 'c' or s.lookups == '0') then
      unqueue(id, s)
      lease_step('expired', id, s, line)
    elseif s and (s.taken ~= '0' or s.attempts == 0) then
      -- In a call's hands, perhaps to be given back unsent (its attempt is counted until then): asked again later.
      redis.call('ZADD', ROOT .. 'expiry', text(math.max(tonumber(s.expires_ms), wall / 1000 + 500)), id)
    end
  end
  firsts = {}
end

-- 4. Timed intents that have become due, in order of their time.
if first_of('timed') <= wall / 1000 then
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
  firsts = {}
end
