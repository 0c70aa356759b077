-- transact: add messages to queues and acknowledge deliveries, all or nothing.
-- KEYS: for each queue to send to: stream, due, due payloads, meta, dedup ids, their messages; then
--   for each acknowledgement: stream, ids, meta
-- ARGV: number of queues; for each: epoch, 'q' or 'd', number of arguments of its messages, these (see _adding);
--   then number of acknowledgements; for each: consumer, times delivered, number of entries,
--   these, each followed by its message's id for life
-- Reply: the ids of the new messages, in order
-- Invariants: every queue's type, settings and bound, and every receipt, is checked before the
-- first write. Additions come first: a server over maxmemory refuses the first, and so all.
-- include: _adding

local queues = tonumber(ARGV[1])
local at, key = 2, 1
local sends, entries = {}, {}

for i = 1, queues do
  local q, refusal = opened(key, ARGV[at], ARGV[at + 1])
  if not q then return refusal end
  local first = at + 3
  local last = first + tonumber(ARGV[at + 2]) - 1
  local wanted, now = 0, now_ms()
  each(first, last, function(place, width, names)
    local dedup_id = width > 1 and field(pairs_at(place, width, names), '@u')
    if not (dedup_id and remembered(q, dedup_id, now)) then wanted = wanted + 1 end
  end)
  if redis.call('TYPE', q.stream).ok ~= 'stream' or redis.call('TYPE', q.due).ok ~= 'zset' then
    return redis.error_reply('WRONGTYPE a key of the queue holds something else')
  end
  if wanted > q.room then
    return redis.error_reply('FULL ' .. i .. ' has room for ' .. whole(math.max(q.room, 0)) .. ' more messages, not ' .. wanted)
  end
  sends[i] = {q, first, last}
  at, key = last + 1, key + 6
end

local groups = tonumber(ARGV[at])
at = at + 1
for i = 1, groups do
  local stream, ids, meta = KEYS[key], KEYS[key + 1], KEYS[key + 2]
  if redis.call('EXISTS', meta, stream) < 2 then
    return redis.error_reply('NOQUEUE the queue does not exist')
  end
  local consumer, times, count = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local lives = {}
  for j = at + 3, at + 2 + 2 * count, 2 do
    local row = redis.call('XPENDING', stream, GROUP, ARGV[j], ARGV[j], 1)[1]
    local ours = row and (row[2] == consumer or row[2] == FREE or row[2] == ALONE) and row[4] == times
    if not ours then
      return redis.error_reply('LOST ' .. ARGV[j + 1])
    end
    lives[#lives + 1] = {ARGV[j], ARGV[j + 1]}
  end
  entries[i] = {stream, ids, lives}
  at, key = at + 3 + 2 * count, key + 3
end

local added = {}
for _, send in ipairs(sends) do add_all(send[1], send[2], send[3], added) end
for _, group in ipairs(entries) do
  for _, pair in ipairs(group[3]) do
    remove(group[1], {pair[1]})
    if pair[1] ~= pair[2] then redis.call('HDEL', group[2], pair[2]) end
  end
end
return added
