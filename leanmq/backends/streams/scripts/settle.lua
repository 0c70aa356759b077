-- settle: end (or renew) leases, after checking that the receipts are still worth something.
-- KEYS: stream, dead stream, due, due payloads, ids, dead ids, meta; and to requeue:
--   destination stream, ids, due, meta, due payloads, and dead stream, ids, due payloads
-- ARGV: verb, consumer ('' if only ids for life are known), times delivered, delay in ms, reason,
--   then the entries that the consumer was handed for that time, those of messages whose id for
--   life is another one as 'entry life'; without a consumer: ids for life
-- Reply: {lease in ms, one digit a message: 0 done, 1 gone, 2 lost, 3 refused,
--   4 done, and that made it a dead letter, though the verb was retry}
-- Invariants: a message that another consumer was handed is never touched (but deleted). One whose
-- lease ended but that nobody else was handed yet still belongs to its last consumer.
-- include: _shared

local stream, dead, due, payloads, ids, dead_ids, meta = unpack(KEYS, 1, 7)
local verb, consumer, times, delay, reason = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local FIRST = 6
local DONE, GONE, LOST, REFUSED, BURIED = '0', '1', '2', '3', '4'

local settings = redis.call('HMGET', meta, 'lease', 'max')
if not settings[1] then
  return redis.error_reply('NOQUEUE the queue does not exist')
end
local max = (stream ~= dead) and tonumber(settings[2]) or 0

local destination, destination_ids, destination_due, destination_meta = KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local destination_payloads = KEYS[12]
local its_dead, its_dead_ids, its_dead_payloads = KEYS[13], KEYS[14], KEYS[15]
local room = math.huge
if destination then
  local bound = redis.call('HGET', destination_meta, 'len')
  if not bound or redis.call('EXISTS', destination) == 0 then
    return redis.error_reply('NOQUEUE the destination does not exist')
  end
  if tonumber(bound) > 0 then
    room = tonumber(bound) - redis.call('XLEN', destination) - redis.call('ZCARD', destination_due) + 1
  end
end

-- What is acknowledged is only deleted; all else goes from key to key.
if verb == 'dead' or verb == 'retry' or verb == 'requeue' or delay > 0 then
  local damaged = damage(KEYS, 1, HOLDS)
    or destination and damage(KEYS, 8, {'stream', 'hash', 'zset', 'hash', 'hash', 'stream', 'hash', 'hash'})
  if damaged then return damaged end
end

-- The consumer's pending entries in the range asked about, in one call: mostly just those.
local wanted = #ARGV - FIRST + 1
local rows = {}
if consumer ~= '' and wanted > 1 then
  local from, to = string.match(ARGV[FIRST], '^%S+'), string.match(ARGV[#ARGV], '^%S+')
  rows = redis.call('XPENDING', stream, GROUP, from, to, wanted, consumer)
end

-- The common case, without a table a message: all of them, in order, to be acknowledged.
if verb == 'ack' and #rows == wanted then
  local all = true
  for i = 1, wanted do
    local row = rows[i]
    if row[4] ~= times or row[1] ~= ARGV[FIRST + i - 1] then
      all = false
      break
    end
  end
  if all then
    for first = FIRST, #ARGV, CHUNK do
      local last = math.min(first + CHUNK - 1, #ARGV)
      redis.call('XACK', stream, GROUP, unpack(ARGV, first, last))
      redis.call('XDEL', stream, unpack(ARGV, first, last))
    end
    return {tonumber(settings[1]), string.rep(DONE, wanted)}
  end
end

local pending = {}
for _, row in ipairs(rows) do pending[row[1]] = row[4] end

-- Times delivered if a receipt is good, else nil and the standing.
local function owned(id)
  if pending[id] == times then return times end
  local row = redis.call('XPENDING', stream, GROUP, id, id, 1)[1]
  if not row then return nil, GONE end
  if (row[2] == consumer or row[2] == FREE or row[2] == ALONE) and row[4] == times then
    return times
  end
  return nil, LOST
end

-- The same for a message that is only known by its id for life: nobody may hold it.
local function unowned(id)
  local row = redis.call('XPENDING', stream, GROUP, id, id, 1)[1]
  if not row then return 0 end
  if row[2] == FREE or row[2] == ALONE or verb == 'delete' then
    -- A release takes the last delivery back; whoever releases by id was not handed it.
    return verb == 'release' and row[4] + 1 or row[4]
  end
  return nil, LOST
end

-- Whether another queue, where a message goes, has one of its id: ids are a queue's own.
local function taken(life)
  return destination_meta ~= meta
    and (locate(destination, destination_ids, destination_payloads, life)
      or locate(its_dead, its_dead_ids, its_dead_payloads, life))
end

-- Carry out the verb on a message that is no entry, or whose entry was just taken out; returns its
-- standing if it is not just done.
local function pass_on(life, sent, fields, count)
  if verb == 'dead' then
    bury(dead, dead_ids, life, sent, fields, count, reason)
  elseif verb == 'requeue' then
    local changes = {i = life, t = sent, n = false, e = false}
    changes.r = tostring(tonumber(field(fields, 'r') or '0') + 1)
    if field(fields, 'x') and destination_meta ~= meta then redis.call('HSET', destination_meta, 'ttl', '1') end
    if taken(life) then
      changes.i = false
      redis.call('XADD', destination, '*', unpack(with(fields, changes)))
    else
      add_known(destination, destination_ids, with(fields, changes))
    end
    room = room - 1
  elseif verb == 'retry' and max > 0 and count >= max then
    local why = 'delivered ' .. count .. ' times of max_deliveries ' .. max
    if reason ~= '' then
      fields = with(fields, {f = failures(fields, now_ms(), count, reason)})
      why = why .. ': ' .. reason
    end
    bury(dead, dead_ids, life, sent, fields, count, why)
    return BURIED
  elseif verb ~= 'ack' and verb ~= 'delete' then -- retry, or release with a delay
    local changes = {i = life, t = sent}
    if stream == dead then
      count = carried(fields) -- how often its queue had handed it out
    else
      changes.n = tostring(count)
    end
    if verb == 'retry' and reason ~= '' then
      changes.f = failures(fields, now_ms(), count, reason)
    end
    local entry = with(fields, changes)
    if delay > 0 then
      postpone(due, payloads, life, entry, now_ms() + delay)
    else
      add_known(stream, ids, entry)
    end
  end
end

-- A message that is not due yet.
local function settle_delayed(life, fields)
  if verb == 'requeue' and room <= 0 then return REFUSED end
  redis.call('ZREM', due, life)
  redis.call('HDEL', payloads, life)
  return pass_on(life, field(fields, 't'), fields, carried(fields)) or DONE
end

local function settle(id, life, count, fields)
  if verb == 'ack' or verb == 'delete' then
    remove(stream, {id})
    if life ~= id then redis.call('HDEL', ids, life) end
  elseif verb == 'extend' then
    if #redis.call('XCLAIM', stream, GROUP, consumer, 0, id, 'JUSTID') == 0 then return GONE end
  elseif verb == 'release' and delay == 0 then
    local claimed = redis.call('XCLAIM', stream, GROUP, FREE, 0, id, 'RETRYCOUNT', math.max(count - 1, 0), 'JUSTID')
    if #claimed == 0 and consumer ~= '' then return GONE end -- by id, it may be one that nobody had
  else
    if not fields then
      local entry = redis.call('XRANGE', stream, id, id)[1]
      if not entry then
        redis.call('XACK', stream, GROUP, id)
        return GONE
      end
      fields = entry[2]
    end
    if verb == 'requeue' and room <= 0 then return REFUSED end
    local known, sent = identity(id, fields)
    if verb == 'release' then count = math.max(count - 1, 0) end
    erase(stream, ids, id, fields)
    return pass_on(known, sent, fields, carried(fields) + count) or DONE
  end
  return DONE
end

local standings = {}
for i = FIRST, #ARGV do
  local standing
  if consumer == '' then
    local life = ARGV[i]
    local id, fields = locate(stream, ids, payloads, life)
    if not id then
      standing = GONE
    elseif id == 'due' then
      standing = settle_delayed(life, fields)
    else
      local count, other = unowned(id)
      standing = count and settle(id, life, count, fields) or other
    end
  else
    local id, life = string.match(ARGV[i], '^(%S+) ?(.*)$')
    local count, other = owned(id)
    standing = count and settle(id, life ~= '' and life or id, count) or other
  end
  standings[#standings + 1] = standing
end
return {tonumber(settings[1]), table.concat(standings)}
