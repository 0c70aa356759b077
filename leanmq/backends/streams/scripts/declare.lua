-- declare: make a queue and its dead letters, or complete what is missing of them.
-- KEYS: live stream, dead stream, then sorted sets and hashes in turn (due and payloads, the same
--   of dead letters, dedup ids and their messages), ids, dead ids, meta
-- ARGV: schema, then name and value of each setting
-- Reply: {1 if anything was made, created_at in ms, epoch, name and value of each stored setting ...}
-- Invariants: stored settings stay; groups start at 0, so nothing that waits is skipped; every
-- key exists afterwards (a script that names a missing key cannot run while its slot moves); what is
-- complete is not written to: whoever starts beside a full server must be able to consume.
-- include: _shared

local live, dead, meta = KEYS[1], KEYS[2], KEYS[11]
local schema = ARGV[1]
local made = 0
local now = now_us()
local ms, rest = math.floor(now / 1000), now % 1000

local stored = redis.call('HGET', meta, 'v')
if stored and tonumber(stored) > tonumber(schema) then
  return redis.error_reply('SCHEMA queue has data layout ' .. stored .. ', this version knows ' .. schema)
end

for _, stream in ipairs({live, dead}) do
  local has = false
  if redis.call('EXISTS', stream) == 0 then
    -- A queue may be deleted and made again in one millisecond: its ids begin behind any before.
    redis.call('XDEL', stream, redis.call('XADD', stream, whole(ms) .. '-' .. whole((rest + 1) * 1000000), '~', ''))
  else
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      if group[2] == GROUP then has = true end
    end
  end
  if not has then
    redis.call('XGROUP', 'CREATE', stream, GROUP, '0')
    made = 1
  end
end

-- Placeholders keep empty collections alive.
for i = 3, 7, 2 do
  if not redis.call('ZSCORE', KEYS[i], '~') then redis.call('ZADD', KEYS[i], '+inf', '~') end
end
for _, i in ipairs({4, 6, 8, 9, 10}) do
  if not redis.call('HGET', KEYS[i], '~') then redis.call('HSET', KEYS[i], '~', '') end
end

-- A queue that is made again has another epoch than any before it.
if not stored then
  redis.call('HSET', meta, 'v', schema, 'created', whole(ms), 'epoch', whole(now), 'delayed', whole(rest * 100))
  made = 1
end
local reply = {made, redis.call('HGET', meta, 'created'), tonumber(redis.call('HGET', meta, 'epoch'))}
for i = 2, #ARGV, 2 do
  local value = redis.call('HGET', meta, ARGV[i])
  if not value then
    value = ARGV[i + 1]
    redis.call('HSET', meta, ARGV[i], value)
  end
  reply[#reply + 1] = ARGV[i]
  reply[#reply + 1] = value
end
return reply
