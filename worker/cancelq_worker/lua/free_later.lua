-- Permits of the lane that were to be free between two steady times (as ZRANGEBYSCORE takes them) are free `by` later,
-- but not after `latest`.
local function free_later(by, first, last, latest)
  local limits = redis.call('HGETALL', ROOT .. 'limits')
  for n = 1, #limits, 2 do
    local permits, moved = ROOT .. 'permits:' .. limits[n], {}
    local out = redis.call('ZRANGEBYSCORE', permits, first, last, 'WITHSCORES', 'LIMIT', 0, 1000)
    for i = 1, #out, 2 do moved[i], moved[i + 1] = text(math.min(out[i + 1] + by, latest)), out[i] end
    if #moved > 0 then redis.call('ZADD', permits, unpack(moved)) end
  end
end
