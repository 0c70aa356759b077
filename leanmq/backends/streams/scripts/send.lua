-- send: add messages to a queue, now or when they are due.
-- KEYS: stream, due, due payloads, meta, dedup ids, their messages
-- ARGV: epoch of the settings that the sender knows (0: any), 'q' or 'd' (dead letters), then the
--   messages: see _adding
-- Reply: their ids, in order; fewer if the queue is full: the rest was refused
-- Invariants: nothing is added unless the queue exists; never one message over its bound.
-- include: _adding

local epoch, kind, width, name, count = unpack(ARGV, 1, 5)
local FIRST = 6

local q, refusal = opened(1, epoch, kind)
if not q then return refusal end
local ids = {}

-- The common case, without a call a message: plain bodies, no bound.
if width == '1' and q.room == math.huge and tonumber(count) == #ARGV - FIRST + 1 then
  local call, stream = redis.call, q.stream
  for i = FIRST, #ARGV do ids[i - FIRST + 1] = call('XADD', stream, '*', name, ARGV[i]) end
  return ids
end

add_all(q, 3, #ARGV, ids)
return ids
