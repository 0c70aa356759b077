-- transact: add messages to queues and acknowledge deliveries, all or nothing.
-- KEYS: for each queue to send to: stream, due, due payloads, meta, dedup ids, their messages; then
--   for each acknowledgement: stream, ids, meta
-- ARGV: number of queues; for each: epoch, 'q' or 'd', number of arguments of its messages, these (see _adding);
--   then number of acknowledgements; for each: consumer, times delivered, number of entries,
--   these, each followed by its message's id for life
-- Reply: the ids of the new messages, in order; an error about one queue ends in 'queue' and its
--   place among those of KEYS
-- Invariants: every key's type, every queue's settings and bound, and every receipt, is checked
-- before the first write. Additions come first: a server over maxmemory refuses the first, and so all.
-- include: _adding

local queues = tonumber(ARGV[1])
local at, key = 2, 1
local sends, entries, freed = {}, {}, {}

local function refused(words, place)
  return redis.error_reply(words .. ' queue ' .. place)
end

for i = 1, queues do
  local damaged = damage(KEYS, key, ADDED)
  if damaged then return refused(damaged.err .. ', of', i) end
  local q, refusal = opened(key, ARGV[at], ARGV[at + 1])
  if not q then return refused(refusal.err, i) end
  local first = at + 3
  local last = first + tonumber(ARGV[at + 2]) - 1
  sends[i] = {q, first, last}
  at, key = last + 1, key + 6
end

local groups = tonumber(ARGV[at])
at = at + 1
for i = 1, groups do
  local stream, ids, meta = KEYS[key], KEYS[key + 1], KEYS[key + 2]
  local damaged = damage(KEYS, key, {'stream', 'hash', 'hash'})
  if damaged then return refused(damaged.err .. ', of', queues + i) end
  if redis.call('EXISTS', meta, stream) < 2 then
    return refused('NOQUEUE the queue does not exist:', queues + i)
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
  freed[stream] = (freed[stream] or 0) + count
  entries[i] = {stream, ids, lives}
  at, key = at + 3 + 2 * count, key + 3
end

-- Room counts what is acknowledged, too: a worker may pass a message on to its own full queue.
for i, send in ipairs(sends) do
  local q, first, last = unpack(send)
  local wanted, now, seen = 0, now_ms(), {}
  each(first, last, function(place, width, names)
    local dedup_id = width > 1 and field(pairs_at(place, width, names), '@u')
    if not dedup_id then
      wanted = wanted + 1
    elseif not seen[dedup_id] and not remembered(q, dedup_id, now) then
      wanted = wanted + 1
      seen[dedup_id] = true
    end
  end)
  q.room = q.room + (freed[q.stream] or 0)
  if wanted > q.room then
    return refused('FULL it has room for ' .. whole(math.max(q.room, 0)) .. ' more messages, not ' .. wanted, i)
  end
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
