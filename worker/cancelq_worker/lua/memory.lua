-- Part of the scripts that ask for remembered ids, after the prelude: the memory of settled ids, made when it is first
-- asked for, as most runs ask for none.
--
-- Hashes `ids:<n>` of a few dozen ids each, small enough that the server keeps them packed, which is half of what one
-- large hash would take. An id's bucket follows from its key; whenever there are more than so many ids a bucket, one
-- bucket is split in two, in turn (linear hashing), so no change is ever larger than that. `ids` tells how many ids, how
-- many buckets, which bucket is looked through next for what is old, for how many hours ids are kept (0: nobody has told
-- yet) and how many were ever added. A value is 's' or 'n' (sent or not) with the digest, a blank, and the hour since
-- the epoch.
local made_memory
local function memory()
  if made_memory then return made_memory end
  local IDS_A_BUCKET = 32
  local ADDED_A_LOOK = 8 -- ids added for each bucket looked through: what is old stays an eighth longer than asked
  local now_hour = math.floor(wall / 3600000000)
  local m = {}
  m.count, m.buckets, m.look, m.hours, m.added =
    string.match(redis.call('GET', ROOT .. 'ids') or '0 1 0 0 0', '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  for name, kept in pairs(m) do m[name] = tonumber(kept) end

  function m.keep()
    redis.call('SET', ROOT .. 'ids', string.format('%.0f %.0f %.0f %.0f %.0f', m.count, m.buckets, m.look, m.hours, m.added))
  end

  local function bucket_of(key)
    local a, b, c, d = string.byte(key, 9, 12)
    local n, size = ((a * 256 + b) * 256 + c) * 256 + d, 1
    while size < m.buckets do size = size * 2 end
    if n % size < m.buckets then return n % size end
    return n % (size / 2)
  end

  -- Whether an hour is past what is kept; an id is remembered an hour longer than asked, never less.
  local function is_old(hour)
    return m.hours > 0 and hour < now_hour - m.hours - 1
  end

  -- What is known of a settled id, by its key: 's' or 'n' and the digest, or nil.
  local earlier -- hours of the layout before this one
  function m.known(key)
    local kept = redis.call('HGET', ROOT .. 'ids:' .. text(bucket_of(key)), key)
    if kept then
      local value, hour = string.match(kept, '^(%S+) (%d+)$')
      if not is_old(tonumber(hour)) then return value end
    end
    earlier = earlier or redis.call('ZREVRANGE', ROOT .. 'memory', 0, 200)
    for _, hour in ipairs(earlier) do
      kept = redis.call('HGET', ROOT .. 'memory:' .. hour, key)
      if kept then return kept end
    end
  end

  -- The bucket whose turn it is gives half of its ids to a new one. Written so that every prefix loses none.
  local function split()
    local size = 1
    while size * 2 <= m.buckets do size = size * 2 end
    local from, to = m.buckets - size, m.buckets
    local kept, moved, gone = redis.call('HGETALL', ROOT .. 'ids:' .. text(from)), {}, {}
    m.buckets = m.buckets + 1
    for i = 1, #kept, 2 do
      if bucket_of(kept[i]) == to then
        moved[#moved + 1], moved[#moved + 2] = kept[i], kept[i + 1]
        gone[#gone + 1] = kept[i]
      end
    end
    if #moved > 0 then redis.call('HSET', ROOT .. 'ids:' .. text(to), unpack(moved)) end
    m.keep()
    if #gone > 0 then redis.call('HDEL', ROOT .. 'ids:' .. text(from), unpack(gone)) end
  end

  -- Drops what is old from the next buckets; how many ids.
  function m.forget(buckets)
    local dropped = 0
    for _ = 1, math.min(buckets, m.buckets) do
      m.look = m.look % m.buckets
      local key, gone = ROOT .. 'ids:' .. text(m.look), {}
      local kept = redis.call('HGETALL', key)
      for i = 1, #kept, 2 do
        if is_old(tonumber(string.match(kept[i + 1], '%d+$'))) then gone[#gone + 1] = kept[i] end
      end
      if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
      dropped, m.look = dropped + #gone, m.look + 1
    end
    m.count = math.max(0, m.count - dropped)
    return dropped
  end

  -- Remembers settled ids: {key, value, …}.
  function m.add(settled)
    local before, stamp = m.added, ' ' .. text(now_hour)
    for i = 1, #settled, 2 do
      m.count = m.count + redis.call('HSET', ROOT .. 'ids:' .. text(bucket_of(settled[i])), settled[i], settled[i + 1] .. stamp)
      m.added = m.added + 1
    end
    if m.hours > 0 then m.forget(math.floor(m.added / ADDED_A_LOOK) - math.floor(before / ADDED_A_LOOK)) end
    -- No more than ids were added: a memory that was made for fuller buckets is split little by little.
    for _ = 1, #settled / 2 do
      if m.count > m.buckets * IDS_A_BUCKET then split() end
    end
    m.keep()
  end

  made_memory = m
  return m
end
