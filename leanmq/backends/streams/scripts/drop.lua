-- drop: delete a queue, its dead letters and everything else of it.
-- KEYS: as declare has them
-- ARGV: '1' to delete dead letters too
-- Reply: {1 if it existed, number of dead letters that forbade it}

local dead, dead_due, meta = KEYS[2], KEYS[5], KEYS[11]
local dead_letters_too = ARGV[1] == '1'

local existed = redis.call('EXISTS', meta)
if existed == 1 and not dead_letters_too then
  local left = redis.call('XLEN', dead) + redis.call('ZCOUNT', dead_due, '-inf', '(+inf')
  if left > 0 then return {1, left} end
end
redis.call('UNLINK', unpack(KEYS))
return {existed, 0}
