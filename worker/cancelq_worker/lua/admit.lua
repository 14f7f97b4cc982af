#!lua
-- ADMIT: moves the cursor over the inbox and makes intents of what it passed, once. Or, ahead of the cursor, makes
-- intents of some entries that are urgent, and remembers which: the cursor will pass them without a second look.
--
-- KEYS[1]  the lane's clock
-- ARGV     cursor the entries were read after (or 'ahead'), id of the first, id of the last, number, then for each entry
--   'i' id memory_key digest record head tail queue expires_ms due_ms orders_n order…    an intent to carry
--   'e' id memory_key digest fields_n field value …                                      an outcome known at once
--   memory_key: 12 raw bytes and the id of the entry, empty where the id is the entry's own; head, tail: the state line
--   around its place, which is written here; queue: 'c:n:by-id', or 'local' for an intent no call carries; due_ms:
--   not_before_ms or 0
--   then number, entry id…: ahead: of the entries, in their order; else: entries up to the last that the caller left
--   out, as they were admitted ahead
-- Replies  {1, cursor, admitted, duplicates, ended}   applied; ended: outcomes that were known at once, and are told
--          {0, cursor}                         another worker was first: read again after `cursor`
--          {2, cursor, entry id…}              nothing was done, as what was left out is not what was admitted ahead:
--                                              these are all that were, and no others (a server that has lost its last
--                                              writes knows of fewer than the caller does)
-- It has no allow-oom flag: a full memory closes the intake here and nowhere else.

--include prelude
--include memory

local at = redis.call('GET', ROOT .. 'cursor') or '0-0'
local function later(a, b)
  local a_ms, a_seq = string.match(a, '^(%d+)-?(%d*)$')
  local b_ms, b_seq = string.match(b, '^(%d+)-?(%d*)$')
  -- As text: ids of 20 digits would not fit a number.
  if #a_ms ~= #b_ms then return #a_ms > #b_ms end
  if a_ms ~= b_ms then return a_ms > b_ms end
  if #a_seq ~= #b_seq then return #a_seq > #b_seq end
  return a_seq > b_seq
end
local is_ahead = ARGV[1] == 'ahead'
-- The cursor alone is not trusted: entries read after an older one must not be admitted a second time.
if not is_ahead and (at ~= ARGV[1] or not later(ARGV[2], at)) then return {0, at} end

local entries, pos = {}, 5
local explicit = {}
for n = 1, tonumber(ARGV[4]) do
  local named = ARGV[pos + 2]
  local e = {kind = ARGV[pos], id = ARGV[pos + 1], memory = string.sub(named, 1, 12), entry = string.sub(named, 13),
    digest = ARGV[pos + 3]}
  if e.kind == 'i' then
    e.at = pos
    pos = pos + 11 + tonumber(ARGV[pos + 10])
  else
    local count = tonumber(ARGV[pos + 4])
    e.from, e.to = pos + 5, pos + 4 + 2 * count
    pos = e.to + 1
  end
  entries[n] = e
end

local overtook = redis.call('SMEMBERS', ROOT .. 'ahead')
do
  local named, has = {}, {}
  for i = pos + 1, pos + tonumber(ARGV[pos]) do named[#named + 1] = ARGV[i] end
  if is_ahead then
    for _, id in ipairs(overtook) do has[id] = true end
    local fresh = {}
    for i, id in ipairs(named) do
      if later(id, at) and not has[id] then
        fresh[#fresh + 1] = entries[i]
        redis.call('SADD', ROOT .. 'ahead', id)
      end
    end
    entries = fresh
  else
    local passed, agreed = {}, true
    for _, id in ipairs(named) do has[id] = later(id, at) end
    for _, id in ipairs(overtook) do
      if not later(id, ARGV[3]) then
        passed[#passed + 1] = id
        agreed = agreed and has[id] ~= nil
        has[id] = false
      end
    end
    for _, unknown in pairs(has) do agreed = agreed and not unknown end
    if not agreed then return {2, at, unpack(overtook)} end
    overtook = passed
  end
end
for _, e in ipairs(entries) do
  if e.memory ~= '' then explicit[#explicit + 1] = e end
end

-- What is already known of the ids that producers chose themselves.
if #explicit > 0 then
  local ids = {}
  for i, e in ipairs(explicit) do ids[i] = e.id end
  local states = redis.call('HMGET', ROOT .. 'state', unpack(ids))
  for i, e in ipairs(explicit) do
    if states[i] then e.known, e.known_digest = 'queued', parse(states[i]).digest end
  end
  for _, e in ipairs(explicit) do
    local kept = not e.known and memory().known(e.memory)
    if kept then e.known, e.known_digest = 'settled', string.sub(kept, 2) end
  end
end

local results = RESULTS
local settled_us = text(wall)

local LABELS = {'scope', 'symbol', 'order_id', 'client_order_id', 'strategy', 'reason', 'traceparent', 'priority', 'origin'}

local function tell_duplicate(e, known, digest)
  local fields = {}
  local function add(k, v) fields[#fields + 1] = k; fields[#fields + 1] = v end
  local kept = {}
  if e.kind == 'i' then
    kept = cjson.decode(ARGV[e.at + 4])
  else
    for i = e.from, e.to, 2 do kept[ARGV[i]] = ARGV[i + 1] end
  end
  local venue, account = string.match(ROOT, '{([^:}]+):([^}]+)}')
  add('v', '1'); add('id', e.id); add('venue', venue); add('account', account)
  add('status', 'duplicate'); add('final', '0')
  for _, k in ipairs(LABELS) do if kept[k] then add(k, kept[k]) end end
  for k, v in pairs(kept) do if string.sub(k, 1, 2) == 'x_' then add(k, v) end end
  local detail = 'this id is already ' .. known
  if digest == e.digest then
    detail = detail .. ', with the same content'
  else
    detail = detail .. ', and the content differs from the first: nothing of this entry was done; send it under a new id'
    add('differs', '1')
  end
  add('entry', e.entry)
  add('detail', detail); add('evidence', 'local'); add('attempt', '0')
  add('queued_us', kept.queued_us); add('settled_us', settled_us)
  redis.call('XADD', results, '*', unpack(fields))
end

local new, sets, records = {}, {}, {}
local duplicates, admitted, ended = 0, 0, 0
local settled, orders_changed = {}, {}
local first_place = steady - #entries -- in the order in which they were asked for, and none later than now

-- The open intents of each order that is named here, by its key: '' where there is none.
local lists = {}
do
  local keys = {}
  for _, e in ipairs(entries) do
    if e.kind == 'i' then
      for n = e.at + 11, e.at + 10 + tonumber(ARGV[e.at + 10]) do keys[#keys + 1] = ARGV[n] end
    end
  end
  local kept = #keys > 0 and redis.call('HMGET', ROOT .. 'orders', unpack(keys))
  for i, key in ipairs(keys) do lists[key] = kept[i] or '' end
end

local function index_order(key, id)
  local list = lists[key]
  if list == '' then
    list = id
  elseif #list < 4000 then -- a bound: further intents for one order look for themselves
    list = list .. ' ' .. id
  end
  lists[key], orders_changed[key] = list, list
end

for n, e in ipairs(entries) do
  local place = text(first_place + n)
  local known, digest = e.known, e.known_digest
  if not known and e.memory ~= '' and new[e.id] then known, digest = new[e.id].how, new[e.id].digest end
  if known then
    duplicates = duplicates + 1
    tell_duplicate(e, known, digest)
  else
    if e.memory ~= '' then new[e.id] = {digest = e.digest, how = e.kind == 'i' and 'queued' or 'settled'} end
    if e.kind == 'i' then
      local i = e.at
      records[#records + 1] = e.id
      records[#records + 1] = ARGV[i + 4]
      sets[#sets + 1] = e.id
      sets[#sets + 1] = ARGV[i + 5] .. place .. ARGV[i + 6]
      local queue, expires_ms, due_ms = ARGV[i + 7], ARGV[i + 8], ARGV[i + 9]
      for at = i + 11, i + 10 + tonumber(ARGV[i + 10]) do index_order(ARGV[at], e.id) end
      if due_ms ~= '0' and tonumber(due_ms) > wall / 1000 then
        redis.call('ZADD', ROOT .. 'timed', due_ms, e.id)
      else
        queue_later(queue, e.id, place)
      end
      if expires_ms ~= '0' then redis.call('ZADD', ROOT .. 'expiry', expires_ms, e.id) end
      admitted = admitted + 1
    else
      redis.call('XADD', results, '*', 'settled_us', settled_us, unpack(ARGV, e.from, e.to))
      ended = ended + 1
      if e.memory ~= '' then
        settled[#settled + 1] = e.memory
        settled[#settled + 1] = 'n' .. e.digest
      end
    end
  end
end

if #settled > 0 then memory().add(settled) end
queue_all()
if #records > 0 then
  redis.call('HSET', ROOT .. 'intents', unpack(records))
  redis.call('HSET', ROOT .. 'state', unpack(sets))
end
local flat = {}
for key, list in pairs(orders_changed) do flat[#flat + 1] = key; flat[#flat + 1] = list end
if #flat > 0 then redis.call('HSET', ROOT .. 'orders', unpack(flat)) end
if not is_ahead then
  at = ARGV[3]
  redis.call('SET', ROOT .. 'cursor', at)
  if #overtook > 0 then redis.call('SREM', ROOT .. 'ahead', unpack(overtook)) end
end
keep_clock()
return {1, at, admitted, duplicates, ended}
