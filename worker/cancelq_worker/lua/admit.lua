#!lua
-- ADMIT: moves the cursor over the inbox and makes intents of what it passed, once.
--
-- KEYS[1]  the lane's clock
-- ARGV     cursor the entries were read after, cursor after them, number of entries, then for each entry
--   'i' id memory_key digest record state orders_n order… due_ms local    an intent to carry
--   'e' id memory_key digest fields_n field value …                       an outcome known at once (rejected)
--   memory_key: 12 raw bytes, empty where the id is the entry's own; state: words 8 and 10 to 19 are set, `place`
--   is written here; due_ms: not_before_ms or 0; local: 1 for an intent no call carries.
-- Replies  {1, cursor, admitted, duplicates}   applied
--          {0, cursor}                         another worker was first: read again after `cursor`
-- It has no allow-oom flag: a full memory closes the intake here and nowhere else.

--include

local at = redis.call('GET', ROOT .. 'cursor') or '0-0'
if at ~= ARGV[1] then return {0, at} end

local entries, pos = {}, 4
local explicit = {}
for n = 1, tonumber(ARGV[3]) do
  local e = {kind = ARGV[pos], id = ARGV[pos + 1], memory = ARGV[pos + 2], digest = ARGV[pos + 3]}
  if e.kind == 'i' then
    e.record, e.state = ARGV[pos + 4], ARGV[pos + 5]
    local count = tonumber(ARGV[pos + 6])
    e.orders = {}
    for i = 1, count do e.orders[i] = ARGV[pos + 6 + i] end
    pos = pos + 7 + count
    e.due_ms, e.is_local = tonumber(ARGV[pos]), ARGV[pos + 1] == '1'
    pos = pos + 2
  else
    local count = tonumber(ARGV[pos + 4])
    e.from, e.to = pos + 5, pos + 4 + 2 * count
    pos = e.to + 1
  end
  if e.memory ~= '' then explicit[#explicit + 1] = e end
  entries[n] = e
end

-- What is already known of the ids that producers chose themselves.
if #explicit > 0 then
  local ids, keys = {}, {}
  for i, e in ipairs(explicit) do ids[i], keys[i] = e.id, e.memory end
  local states = redis.call('HMGET', ROOT .. 'state', unpack(ids))
  for i, e in ipairs(explicit) do
    if states[i] then e.known, e.known_digest = 'queued', parse(states[i]).digest end
  end
  for _, hour in ipairs(memory_hours()) do
    local kept = redis.call('HMGET', ROOT .. 'memory:' .. hour, unpack(keys))
    for i, e in ipairs(explicit) do
      if kept[i] and not e.known then e.known, e.known_digest = 'settled', string.sub(kept[i], 2) end
    end
  end
end

local results = ROOT .. 'results'
local settled_us = text(wall)

local LABELS = {'scope', 'symbol', 'order_id', 'client_order_id', 'strategy', 'reason', 'traceparent', 'priority'}

local function tell_duplicate(e, known, digest)
  local fields = {}
  local function add(k, v) fields[#fields + 1] = k; fields[#fields + 1] = v end
  local kept = {}
  if e.record then
    kept = cjson.decode(e.record)
  else
    for i = e.from, e.to, 2 do kept[ARGV[i]] = ARGV[i + 1] end
  end
  add('v', '1'); add('id', e.id); add('venue', kept.venue); add('account', kept.account)
  add('status', 'duplicate'); add('final', '0')
  for _, k in ipairs(LABELS) do if kept[k] then add(k, kept[k]) end end
  for k, v in pairs(kept) do if string.sub(k, 1, 2) == 'x_' then add(k, v) end end
  local detail = 'this id is already ' .. known
  if digest == e.digest then
    detail = detail .. ', with the same content'
  else
    detail = detail .. ', and the content differs from the first: nothing of this entry was done; send it under a new id'
  end
  add('detail', detail); add('evidence', 'local'); add('attempt', '0')
  add('queued_us', kept.queued_us); add('settled_us', settled_us)
  redis.call('XADD', results, '*', unpack(fields))
end

local new, sets, records = {}, {}, {}
local duplicates, admitted = 0, 0
local hour = text(math.floor(wall / 3600000000))
local orders_changed = {}

local function index_order(key, id)
  local list = orders_changed[key]
  if list == nil then list = redis.call('HGET', ROOT .. 'orders', key) or '' end
  if list == '' then
    list = id
  elseif #list < 4000 then -- a bound: further intents for one order look for themselves
    list = list .. ' ' .. id
  end
  orders_changed[key] = list
end

for _, e in ipairs(entries) do
  local known, digest = e.known, e.known_digest
  if not known and e.memory ~= '' and new[e.id] then known, digest = new[e.id].how, new[e.id].digest end
  if known then
    duplicates = duplicates + 1
    tell_duplicate(e, known, digest)
  else
    if e.memory ~= '' then new[e.id] = {digest = e.digest, how = e.kind == 'i' and 'queued' or 'settled'} end
    if e.kind == 'i' then
      local s = parse(e.state)
      s.place = text(steady)
      records[#records + 1] = e.id
      records[#records + 1] = e.record
      sets[#sets + 1] = e.id
      sets[#sets + 1] = pack(s)
      for _, key in ipairs(e.orders) do index_order(key, e.id) end
      if e.is_local then
        redis.call('ZADD', ROOT .. 'queue:local', s.place, e.id)
      elseif e.due_ms > wall / 1000 then
        redis.call('ZADD', ROOT .. 'timed', e.due_ms, e.id)
      else
        enqueue(s.stage, s.priority, class_of(s), e.id, s.place)
      end
      if s.expires_ms ~= '0' then redis.call('ZADD', ROOT .. 'expiry', s.expires_ms, e.id) end
      admitted = admitted + 1
    else
      local fields = {}
      for i = e.from, e.to do fields[#fields + 1] = ARGV[i] end
      fields[#fields + 1] = 'settled_us'
      fields[#fields + 1] = settled_us
      redis.call('XADD', results, '*', unpack(fields))
      if e.memory ~= '' then
        redis.call('HSET', ROOT .. 'memory:' .. hour, e.memory, 'n' .. e.digest)
        redis.call('ZADD', ROOT .. 'memory', hour, hour)
      end
    end
  end
end

if #records > 0 then
  redis.call('HSET', ROOT .. 'intents', unpack(records))
  redis.call('HSET', ROOT .. 'state', unpack(sets))
end
local flat = {}
for key, list in pairs(orders_changed) do flat[#flat + 1] = key; flat[#flat + 1] = list end
if #flat > 0 then redis.call('HSET', ROOT .. 'orders', unpack(flat)) end
redis.call('SET', ROOT .. 'cursor', ARGV[2])
keep_clock()
return {1, ARGV[2], admitted, duplicates}
