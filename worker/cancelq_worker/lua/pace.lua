#!lua flags=no-writes,allow-stale
-- PACE: how many entries came into a stream in the last hour, about.
--
-- KEYS[1]  the stream
-- Replies  {entries there are, entries of the last hour}
-- Up to EXACT entries are counted. Of more, a few are read at both ends of the hour, and what lies between is a gap
-- with a density at each end. The gap that may hold most is cut, and a few are read to both sides of the cut, and so
-- on: some hundreds of entries are read, about a thousand at most, however many there are.
-- A density is measured from one millisecond with entries to another, as a batch has many in one. It counts for all
-- of a gap if it lasts so long, or if the gap is short beside the stillness next to it and so one burst; else for a
-- share: for what it lasts of itself and the stillness. A burst within an even flow is not seen if no cut meets it.

local HOUR_MS, EXACT, PAGE, CUTS = 3600000, 200, 8, 24
local GOLDEN = 0.618034 -- where a gap is cut: in the middle of it bursts at even distances often stand
local SMALL, STILL, SHORT, STRIDES = 0.02, 4, 4, 12
local BACK = {XRANGE = 'XREVRANGE', XREVRANGE = 'XRANGE'}
local STEP = {XRANGE = 1, XREVRANGE = -1}

local function text(n) return string.format('%.0f', n) end
local function time_of(entry) return tonumber(string.match(entry[1], '^%d+')) end
local function number_of(entry) return tonumber(string.match(entry[1], '%d+$')) end

-- Reads on from `at`, to the end of a millisecond. `count` entries, the first at `met` (nil: none); if there are more,
-- `on` is where they go on, `density` how many a millisecond has, `span` how long it took to come by them.
local function read(command, at, limit, most)
  local found = redis.call(command, KEYS[1], text(at), text(limit), 'COUNT', most)
  local page = {count = #found, met = found[1] and time_of(found[1])}
  if #found < most then return page end
  local last = time_of(found[most])
  local outmost = redis.call(BACK[command], KEYS[1], text(last), text(last), 'COUNT', 1)[1]
  page.count = most + math.abs(number_of(outmost) - number_of(found[most]))
  local after = redis.call(command, KEYS[1], text(last + STEP[command]), text(limit), 'COUNT', 1)[1]
  if after then
    page.on = time_of(after)
    page.span = math.abs(page.on - page.met)
    page.density = page.count / page.span
  end
  return page
end

local seconds = redis.call('TIME')
local now = seconds[1] * 1000 + math.floor(seconds[2] / 1000)
local begin = now - HOUR_MS + 1
local count, gaps = 0, {}

local function most_of(gap) return (gap.to - gap.from + 1) * (gap.left.density + gap.right.density) / 2 end

local function share_of(side, length)
  if 2 * side.lasts >= length or length * SHORT <= side.still then return 1 end
  if side.still == 0 then return 2 * side.lasts / length end
  return side.lasts / (side.lasts + side.still)
end

local function about(gap)
  local length = gap.to - gap.from + 1
  local left, right = gap.left, gap.right
  return length * (left.density * share_of(left, length) + right.density * share_of(right, length)) / 2
end

-- The stillness between two pages that were read away from each other; 0 where it is no longer than the flow has them.
local function stillness(from, to, ...)
  local usual = 0
  for _, page in ipairs({...}) do usual = math.max(usual, page.span or 0) end
  return to - from > STILL * usual and to - from or 0
end

-- For how long it goes on from where `page` begins as it does there, about: each stride goes four times as far.
local function lasting(command, page, limit)
  local far = page.span
  for _ = 1, STRIDES do
    local at = page.met + 4 * far * STEP[command]
    if (limit - at) * STEP[command] < 0 then break end
    local met = redis.call(command, KEYS[1], text(at), text(limit), 'COUNT', 1)[1]
    if not met or math.abs(time_of(met) - at) > STILL * page.span then break end
    far = 4 * far
  end
  return 2 * far
end

-- One end of a gap: what was read there away from a stillness (0: none), up to `limit`.
local function end_of(command, page, still, limit)
  return {density = page.density, still = still, lasts = lasting(command, page, limit)}
end

local function cut(gap)
  local middle = gap.from + math.floor((gap.to - gap.from) * GOLDEN)
  local older = read('XREVRANGE', middle, gap.from, PAGE)
  local newer = read('XRANGE', middle + 1, gap.to, PAGE)
  local still = stillness(older.met or gap.from, newer.met or gap.to, older, newer)
  count = count + older.count + newer.count
  if older.on then
    local right = end_of('XREVRANGE', older, still, gap.from)
    table.insert(gaps, {from = gap.from, to = older.on, left = gap.left, right = right})
  end
  if newer.on then
    local left = end_of('XRANGE', newer, still, gap.to)
    table.insert(gaps, {from = newer.on, to = gap.to, left = left, right = gap.right})
  end
end

-- The place of the gap that may hold most, unless that is little of all there is.
local function largest()
  local place, most, all = nil, 0, count
  for n, gap in ipairs(gaps) do
    all = all + about(gap)
    if most_of(gap) > most then place, most = n, most_of(gap) end
  end
  if most >= SMALL * all then return place end
end

local first = read('XRANGE', begin, now, EXACT)
count = first.count
if first.on then
  local last = read('XREVRANGE', now, first.on, PAGE)
  count = count + last.count
  if last.on then
    local left = end_of('XRANGE', first, stillness(begin, first.met, first), last.on)
    local right = end_of('XREVRANGE', last, stillness(last.met, now, last), first.on)
    gaps[1] = {from = first.on, to = last.on, left = left, right = right}
  end
end
for _ = 1, CUTS do
  local place = largest()
  if not place then break end
  cut(table.remove(gaps, place))
end
for _, gap in ipairs(gaps) do count = count + about(gap) end

local there = redis.call('XLEN', KEYS[1])
return {there, math.min(there, math.floor(count + 0.5))}
