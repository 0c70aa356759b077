-- purge: delete messages, a page a call.
-- KEYS: stream, due, due payloads, ids, meta
-- ARGV: 'all' or 'expired', the entry to begin at, the last entry ('' in the first call), delayed
--   messages to delete at most ('' in the first call)
-- Reply: {deleted, entry to begin at next ('' if there is none), last entry, delayed messages left to delete}
-- Invariants: what was added after the first call stays; what has expired but is held stays, too.
-- include: _shared

local stream, due, payloads, ids, meta = unpack(KEYS)
local all, from, last, left = ARGV[1] == 'all', ARGV[2], ARGV[3], ARGV[4]
local PAGE = 500

local known = redis.call('HMGET', meta, 'v', 'ttl')
if not known[1] then
  return redis.error_reply('NOQUEUE the queue does not exist')
end
if not all and not known[2] then return {0, '', '', 0} end
if last == '' then
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  last = newest and newest[1] or '0-0'
  left = redis.call('ZCARD', due) - 1
end
left = tonumber(left)
local now = now_ms()
local gone, lives, count = {}, {}, 0

local entries = redis.call('XRANGE', stream, from, last, 'COUNT', PAGE)
for _, entry in ipairs(entries) do
  local id, fields = entry[1], entry[2]
  local doomed = all
  if not all and expired(fields, now) then
    local row = redis.call('XPENDING', stream, GROUP, id, id, 1)[1]
    doomed = not row or row[2] == FREE or row[2] == ALONE
  end
  if doomed then
    gone[#gone + 1] = id
    lives[#lives + 1] = field(fields, 'i')
  end
end
remove(stream, gone)
on_all('HDEL', ids, nil, lives)
count = #gone

if all and left > 0 then
  local members = redis.call('ZRANGEBYSCORE', due, '-inf', '(+inf', 'LIMIT', 0, math.min(PAGE, left))
  on_all('ZREM', due, nil, members)
  on_all('HDEL', payloads, nil, members)
  count = count + #members
  left = (#members < math.min(PAGE, left)) and 0 or left - #members
end

if not all and left > 0 then -- from the last to the first: what is deleted moves none to come
  local old = {}
  for _, life in ipairs(redis.call('ZRANGE', due, math.max(left - PAGE, 0), left - 1)) do
    local packed = redis.call('HGET', payloads, life)
    if packed and expired(unpacked(packed), now) then old[#old + 1] = life end
  end
  on_all('ZREM', due, nil, old)
  on_all('HDEL', payloads, nil, old)
  count = count + #old
  left = math.max(left - PAGE, 0)
end

local next_entry = (#entries == PAGE) and '(' .. entries[PAGE][1] or ''
if next_entry == '' and left > 0 then next_entry = '(' .. last end
return {count, next_entry, last, left}
