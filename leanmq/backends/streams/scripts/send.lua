-- send: add messages at the end of a queue.
-- KEYS: stream, meta
-- ARGV: runs of messages that have the same fields, each run:
--   number of fields, field names ..., number of messages, then the values, message by message
-- Reply: entry ids, in order
-- Invariants: nothing is added unless the queue exists.

local stream, meta = KEYS[1], KEYS[2]
if redis.call('EXISTS', meta) == 0 then
  return redis.error_reply('NOQUEUE the queue does not exist')
end

local ids = {}
local at = 1
while at <= #ARGV do
  local width = tonumber(ARGV[at])
  local names = at
  local messages = tonumber(ARGV[at + width + 1])
  at = at + width + 2
  if width == 1 then
    local name = ARGV[names + 1]
    for i = at, at + messages - 1 do
      ids[#ids + 1] = redis.call('XADD', stream, 'NOMKSTREAM', '*', name, ARGV[i])
    end
  else
    local entry = {}
    for i = at, at + (messages - 1) * width, width do
      for j = 1, width do
        entry[2 * j - 1] = ARGV[names + j]
        entry[2 * j] = ARGV[i + j - 1]
      end
      ids[#ids + 1] = redis.call('XADD', stream, 'NOMKSTREAM', '*', unpack(entry, 1, 2 * width))
    end
  end
  at = at + messages * width
end
if not ids[1] then
  return redis.error_reply('NOQUEUE the stream of the queue does not exist')
end
return ids
