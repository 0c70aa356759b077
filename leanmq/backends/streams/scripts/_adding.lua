-- Adding new messages to queues, for send and transact.
-- include: _shared

-- What the six keys hold that are given for a queue to add to.
local ADDED = {'stream', 'zset', 'hash', 'hash', 'zset', 'hash'}

-- A queue to add to, from six of KEYS: stream, due, due payloads, meta, dedup ids, their messages.
-- `kind` is 'q', or 'd' for dead letters, which have no bound. Returns it, or nil and an error.
-- `mixed` will tell whether ids are not all of entries that were added one after the other.
local function opened(first, epoch, kind)
  local q = {
    stream = KEYS[first], due = KEYS[first + 1], payloads = KEYS[first + 2], meta = KEYS[first + 3],
    dedup = KEYS[first + 4], known = KEYS[first + 5], kind = kind
  }
  local settings = redis.call('HMGET', q.meta, 'epoch', 'len', 'dedup', 'ttl')
  if not settings[1] or redis.call('EXISTS', q.stream) == 0 then
    return nil, redis.error_reply('NOQUEUE the queue does not exist')
  end
  if epoch ~= '0' and epoch ~= settings[1] then
    return nil, redis.error_reply('STALE the settings of the queue were changed')
  end
  local bound = tonumber(settings[2])
  q.room = math.huge
  if bound > 0 and kind == 'q' then
    q.room = bound - redis.call('XLEN', q.stream) - redis.call('ZCARD', q.due) + 1
  end
  q.window = tonumber(settings[3])
  q.has_ttl = settings[4]
  return q
end

-- How a dedup id is kept: dead letters share the keys with their queue, and '~' is a placeholder.
local function kept(q, dedup_id)
  return q.kind .. dedup_id
end

-- The id of the message that this dedup id was first sent with, if it is still remembered.
local function remembered(q, dedup_id, now)
  local ends = redis.call('ZSCORE', q.dedup, kept(q, dedup_id))
  return ends and tonumber(ends) > now and redis.call('HGET', q.known, kept(q, dedup_id))
end

-- Forget what is too old to be remembered: a little more than is added.
local function forget_old(q, now, added)
  local old = redis.call('ZRANGEBYSCORE', q.dedup, '-inf', whole(now), 'LIMIT', 0, 2 * added + 10)
  on_all('ZREM', q.dedup, nil, old)
  on_all('HDEL', q.known, nil, old)
end

-- Add one message of any kind: fields and values in pairs; `x` in ms from now; and of those that
-- are not stored '@d' a delay in ms, '@a' a moment in ms, '@u' a dedup id. Returns its id.
local function add(q, given, now)
  local fields, at, dedup_id = {}, 0, nil
  for i = 1, #given, 2 do
    local name, value = given[i], given[i + 1]
    if name == '@d' then
      at = now + tonumber(value)
    elseif name == '@a' then
      at = tonumber(value)
    elseif name == '@u' then
      dedup_id = value
    else
      if name == 'x' then
        value = whole(now + tonumber(value))
        if not q.has_ttl then
          redis.call('HSET', q.meta, 'ttl', '1')
          q.has_ttl = '1'
        end
      end
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  local id
  if at > now then
    -- With the time: dead letters change queues, and a queue that is made again counts anew. In
    -- the order of sending, also as text: that is how a sorted set orders what is due at once.
    id = string.format('d%.0f%06.0f', now, redis.call('HINCRBY', q.meta, 'delayed', 1) % 1000000)
    fields[#fields + 1] = 'i'
    fields[#fields + 1] = id
    fields[#fields + 1] = 't'
    fields[#fields + 1] = whole(now)
    postpone(q.due, q.payloads, id, fields, at)
    q.mixed = true
  else
    id = redis.call('XADD', q.stream, '*', unpack(fields))
  end
  if dedup_id then
    redis.call('ZADD', q.dedup, whole(now + q.window), kept(q, dedup_id))
    redis.call('HSET', q.known, kept(q, dedup_id), id)
  end
  q.room = q.room - 1
  return id
end

-- Visit the messages that stand in ARGV from `at` on, in runs that have the same fields, each:
-- number of fields, field names ..., number of messages, then the values, message by message.
-- Calls visit(first, width, names) with the places of a message's values and its run's names;
-- ends early if that returns false.
local function each(at, last, visit)
  while at <= last do
    local width = tonumber(ARGV[at])
    local names = at
    local messages = tonumber(ARGV[at + width + 1])
    at = at + width + 2
    for i = at, at + (messages - 1) * width, width do
      if visit(i, width, names) == false then return end
    end
    at = at + messages * width
  end
end

local function pairs_at(first, width, names)
  local given = {}
  for j = 1, width do
    given[2 * j - 1] = ARGV[names + j]
    given[2 * j] = ARGV[first + j - 1]
  end
  return given
end

-- Add the messages that stand in ARGV from `at` to `last`; appends their ids to `ids`. Stops at
-- the first that there is no room for.
local function add_all(q, at, last, ids)
  local call, stream = redis.call, q.stream
  local now, dedups
  each(at, last, function(first, width, names)
    if width <= 2 and q.room == math.huge then  -- bodies, with keys or without: most of all
      if width == 1 then
        ids[#ids + 1] = call('XADD', stream, '*', ARGV[names + 1], ARGV[first])
        return
      elseif ARGV[names + 2] == 'k' then
        ids[#ids + 1] = call('XADD', stream, '*', ARGV[names + 1], ARGV[first], 'k', ARGV[first + 1])
        return
      end
    end
    now = now or now_ms()
    local given = pairs_at(first, width, names)
    local dedup_id = field(given, '@u')
    local known
    if dedup_id then
      if not dedups then
        dedups = true
        forget_old(q, now, CHUNK)
      end
      known = remembered(q, dedup_id, now)
    end
    if known then
      ids[#ids + 1] = known
      q.mixed = true
    elseif q.room <= 0 then
      return false
    else
      ids[#ids + 1] = add(q, given, now)
    end
  end)
end
