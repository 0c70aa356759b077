-- send: add messages at the end of a queue.
-- KEYS: stream, meta
-- ARGV: runs of messages that have the same fields, each run:
--   number of fields, field names ..., number of messages, then the values, message by message
-- Reply: entry ids, in order
-- Invariants: nothing is added unless the queue exists.

local stream, meta = KEYS[1], KEYS[2]
if redis.call('EXISTS', meta, stream) < 2 then
  return redis.error_reply('NOQUEUE the queue does not exist')
end

local call = redis.call
local ids, sent = {}, 0
local at = 1
while at <= #ARGV do
  local width = tonumber(ARGV[at])
  local names = at
  local messages = tonumber(ARGV[at + width + 1])
  at = at + width + 2
  if width == 1 then
    local name = ARGV[names + 1]
    for i = at, at + messages - 1 do
      sent = sent + 1
      ids[sent] = call('XADD', stream, '*', name, ARGV[i])
    end
  else
    local entry = {}
    for i = at, at + (messages - 1) * width, width do
      for j = 1, width do
        entry[2 * j - 1] = ARGV[names + j]
        entry[2 * j] = ARGV[i + j - 1]
      end
      sent = sent + 1
      ids[sent] = call('XADD', stream, '*', unpack(entry, 1, 2 * width))
    end
  end
  at = at + messages * width
end
return ids
