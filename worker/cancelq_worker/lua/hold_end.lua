-- Until when a hold lasts, by the steady clock; -1: without an end. That clock stands still while nobody serves the lane
-- or the server is away. The venue does not wait for us: the end of what it has closed (`rate`) is kept by TIME as well,
-- as ` @us` behind the words, and the earlier one counts. Where TIME went ahead one call goes in vain, and alone.
local function hold_end(reason, kept)
  local till, at = tonumber(string.match(kept, '^%-?%d+')), reason == 'rate' and string.match(kept, ' @(%d+)$')
  return at and math.min(till, steady + math.max(0, at - wall)) or till
end
