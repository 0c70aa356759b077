-- alter: change settings of a queue.
-- KEYS: meta
-- ARGV: name and value of each setting to change
-- Reply: {0, created_at in ms, epoch, name and value of each stored setting ...}, as declare
-- Invariants: the epoch grows with every change, and with nothing else.
-- include: _shared

local meta = KEYS[1]
local ALL = {'lease', 'max', 'len', 'over', 'size', 'dedup'}

local old_lease = redis.call('HGET', meta, 'lease')
if not old_lease then
  return redis.error_reply('NOQUEUE the queue does not exist')
end

local changed = false
for i = 1, #ARGV, 2 do
  if redis.call('HGET', meta, ARGV[i]) ~= ARGV[i + 1] then
    changed = true
    redis.call('HSET', meta, ARGV[i], ARGV[i + 1])
    if ARGV[i] == 'lease' and tonumber(ARGV[i + 1]) < tonumber(old_lease) then
      -- What is in flight was promised the longer one.
      local before = redis.call('HMGET', meta, 'old_lease', 'old_until')
      local now, old = now_ms(), tonumber(old_lease)
      if before[1] and now < tonumber(before[2]) then old = math.max(old, tonumber(before[1])) end
      redis.call('HSET', meta, 'old_lease', whole(old), 'old_until', whole(now + old))
      redis.call('HDEL', meta, 'sweep_q', 'sweep_d') -- leases may end sooner than was known
    end
  end
end
if changed then redis.call('HINCRBY', meta, 'epoch', 1) end

local stored = redis.call('HMGET', meta, 'created', 'epoch', unpack(ALL))
local reply = {0, stored[1], tonumber(stored[2])}
for i, name in ipairs(ALL) do
  reply[#reply + 1] = name
  reply[#reply + 1] = stored[i + 2]
end
return reply
