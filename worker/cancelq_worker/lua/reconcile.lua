#!lua
-- RECONCILE: leaves looks back in the lane: intents that only look for the order of an intent which ended as
-- `unresolved`. Their record names it (`looks_back`); they have no inbox entry, no final event and no memory, begin in the
-- look stage and never leave it (verdict.py).
--
-- KEYS[1]  the lane's clock
-- ARGV     for each: id record head tail queue orders_n order…    as in admit.lua
-- Replies  {added, already there}
-- It has no allow-oom flag: it can wait.

--include prelude

local place, pos, added, there = text(steady), 1, 0, 0
while pos <= #ARGV do
  local id, record, head, tail, queue, orders = ARGV[pos], ARGV[pos + 1], ARGV[pos + 2], ARGV[pos + 3], ARGV[pos + 4],
    tonumber(ARGV[pos + 5])
  if redis.call('HEXISTS', ROOT .. 'state', id) == 1 then
    there = there + 1
  else
    for n = pos + 6, pos + 5 + orders do
      local list = redis.call('HGET', ROOT .. 'orders', ARGV[n])
      if not list or #list < 4000 then -- a bound, as in admit.lua
        redis.call('HSET', ROOT .. 'orders', ARGV[n], list and list .. ' ' .. id or id)
      end
    end
    redis.call('HSET', ROOT .. 'intents', id, record)
    redis.call('HSET', ROOT .. 'state', id, head .. place .. tail)
    queue_later(queue, id, place)
    added = added + 1
  end
  pos = pos + 6 + orders
end
queue_all()
-- The clock is not kept: nobody vouches for it here (arrive.lua).
return {added, there}
