-- send: add messages to a queue, now or when they are due.
-- KEYS: stream, due, due payloads, meta, dedup ids, their messages
-- ARGV: epoch of the settings that the sender knows (0: any), 'q' or 'd' (dead letters), producer ('':
--   none) and number of its batch, then the messages: see _adding
-- Reply: their ids, in order; fewer if the queue is full: the rest was refused
-- Invariants: nothing is added unless the queue exists; never one message over its bound; a
-- producer's batch is added once, and none after a later one.
-- include: _sequences

local epoch, kind, producer, sequence, width, name, count = unpack(ARGV, 1, 7)
local FIRST = 8

local q, refusal = opened(1, epoch, kind)
if not q then return refusal end
local ids, now = {}, nil

if producer ~= '' then
  now = now_ms()
  local before = stored_before(q, producer, sequence, now)
  if before then return before end
end

if width == '1' and q.room == math.huge and tonumber(count) == #ARGV - FIRST + 1 then
  -- The common case, without a call a message: plain bodies, no bound.
  local call, stream = redis.call, q.stream
  for i = FIRST, #ARGV do ids[i - FIRST + 1] = call('XADD', stream, '*', name, ARGV[i]) end
else
  -- With keys, and nothing else, they are written to the stream alone, too.
  local keyed = width == '2' and ARGV[7] == 'k' and #ARGV == 8 + 2 * tonumber(ARGV[8])
  local damaged = not keyed and damage(KEYS, 1, ADDED)
  if damaged then return damaged end
  add_all(q, 5, #ARGV, ids)
end

if producer ~= '' then remember(q, producer, sequence, ids, now) end
return ids
