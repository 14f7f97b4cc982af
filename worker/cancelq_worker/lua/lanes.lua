#!lua flags=allow-oom
-- LANES: what a worker tells of the lanes that it has settings for (lane_lists.py).
--
-- KEYS[1]  cancelq:workers:lanes, a hash: worker → digest of its list; or cancelq:workers:lanes:DIGEST, the list
-- ARGV     'of' worker digest: that list is the worker's; or 'list' lanes kept_s: the list itself
-- It has allow-oom: a worker that starts while memory is full would count as one that has every lane.

if ARGV[1] == 'of' then
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
else
  redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
end
return 1
