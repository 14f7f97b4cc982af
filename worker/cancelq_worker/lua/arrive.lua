#!lua flags=allow-oom
-- ARRIVE: a worker that begins to watch a lane vouches for the time since the lane was touched last. Whoever watched it
-- before would have noticed that the server's clock went ahead meanwhile; if all of them are gone, nobody has.
--
-- KEYS[1]  the lane's clock
-- ARGV[1]  for how long this worker has known, without a break, how the server's clock goes (us)
-- Replies  the server's time (us)
--
-- Of the time that nobody vouches for, nothing is taken to have passed for what was out: it is free that much later.

--include prelude
--include free_later

local unvouched = passed - tonumber(ARGV[1])
if unvouched > 0 and out_until > steady - passed then
  out_until = out_until + unvouched
  free_later(unvouched, '(' .. text(steady - passed), '+inf', math.huge)
end
keep_clock()
return text(wall)
