-- Moves the first orders of the backlog to those that are in a worker's hands; before them, what a worker has held for
-- too long, because it may be dead.
-- KEYS 1 the backlog, 2 the orders in hand, both sorted sets. ARGV 1 most orders, 2 how long one may be held, in µs.
-- Replies the order ids.
local now = redis.call('TIME')
local now_us = now[1] * 1000000 + now[2]
local most = tonumber(ARGV[1])
local ids = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_us - tonumber(ARGV[2]), 'LIMIT', 0, most)
if #ids < most then
    local first = redis.call('ZPOPMIN', KEYS[1], most - #ids)
    for at = 1, #first, 2 do
        ids[#ids + 1] = first[at]
    end
end
for _, id in ipairs(ids) do
    redis.call('ZADD', KEYS[2], now_us, id)
end
return ids
