#!lua flags=allow-oom
-- EGRESS: a share of the limit a venue counts per address, for all lanes that leave from one address.
--
-- KEYS[1]  cancelq:{egress:NAME}:VENUE, a hash: second → units taken in it, and `hold` → until (ms) detail
-- ARGV     units per window, window_s, wanted units, units given back, second they were taken in, hold_ms, detail
-- Replies  {granted, second, hold left in ms}
--
-- Shares are taken ahead of their calls and live for two seconds, so a second counts until window + 8 s are
-- over: no call made from it can still fall into the venue's window then. Whose clock: Redis' TIME.

local t = redis.call('TIME')
local now, now_ms = tonumber(t[1]), t[1] * 1000 + math.floor(t[2] / 1000)
local units, window, wanted, back = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if back > 0 then redis.call('HINCRBY', KEYS[1], ARGV[5], -back) end
if tonumber(ARGV[6]) > 0 then
  redis.call('HSET', KEYS[1], 'hold', string.format('%.0f', now_ms + ARGV[6]) .. ' ' .. ARGV[7])
end

local used, held_ms = 0, 0
local kept = redis.call('HGETALL', KEYS[1])
for i = 1, #kept, 2 do
  if kept[i] == 'hold' then
    held_ms = tonumber(string.match(kept[i + 1], '^%d+')) - now_ms
    if held_ms <= 0 then
      redis.call('HDEL', KEYS[1], 'hold')
      held_ms = 0
    end
  elseif tonumber(kept[i]) <= now - window - 8 then
    redis.call('HDEL', KEYS[1], kept[i])
  else
    used = used + tonumber(kept[i + 1])
  end
end

local granted = 0
if held_ms == 0 then granted = math.max(0, math.min(wanted, units - used)) end
if granted > 0 then redis.call('HINCRBY', KEYS[1], string.format('%.0f', now), granted) end
redis.call('EXPIRE', KEYS[1], window + 3600)
return {granted, now, held_ms}
