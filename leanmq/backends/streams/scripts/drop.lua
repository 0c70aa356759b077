-- drop: delete a queue, its dead letters and everything else of it.
-- KEYS: live stream, dead stream, due, due payloads, dead due, dead due payloads, meta
-- ARGV: '1' to delete dead letters too
-- Reply: {1 if it existed, number of dead letters that forbade it}

local existed = redis.call('EXISTS', KEYS[7])
if ARGV[1] ~= '1' and existed == 1 then
  local dead = redis.call('XLEN', KEYS[2]) + redis.call('ZCOUNT', KEYS[5], '-inf', '(+inf')
  if dead > 0 then return {1, dead} end
end
redis.call('DEL', unpack(KEYS))
return {existed, 0}
