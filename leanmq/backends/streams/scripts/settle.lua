-- settle: end (or renew) leases, after checking that the receipts are still worth something.
-- KEYS: stream, dead stream, due, due payloads, meta
-- ARGV: verb, consumer ('' if only ids are known), times delivered, delay in ms, reason, then the
--   entries that the consumer was handed for that time
-- Reply: {lease in ms, one digit a message: 0 done, 1 gone, 2 lost}
-- Invariants: a message that another consumer was handed is never touched. One whose lease
-- ended but that nobody else was handed yet still belongs to its last consumer.
-- include: _shared

local stream, dead, due, payloads, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local verb, consumer, times, delay, reason = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local FIRST = 6
local DONE, GONE, LOST = '0', '1', '2'

local settings = redis.call('HMGET', meta, 'lease', 'max')
if not settings[1] then
  return redis.error_reply('NOQUEUE the queue does not exist')
end
local max = (stream ~= dead) and tonumber(settings[2]) or 0

-- The consumer's pending entries in the range asked about, in one call: mostly just those.
local wanted = #ARGV - FIRST + 1
local rows = {}
if consumer ~= '' and wanted > 1 then
  rows = redis.call('XPENDING', stream, GROUP, ARGV[FIRST], ARGV[#ARGV], wanted, consumer)
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

-- Times delivered if the receipt is good, else nil and the standing.
local function owned(id)
  if pending[id] == times then return times end
  local row = redis.call('XPENDING', stream, GROUP, id, id, 1)[1]
  if consumer == '' then
    -- An id for life, taken for that of an entry: is it this message's, or that of another one
    -- that was retried or died, and whose new entry happens to be called so?
    local entry = redis.call('XRANGE', stream, id, id)[1]
    if not entry or (field(entry[2], 'i') or id) ~= id then return nil, GONE end
    if not row then return 0 end
  elseif not row then
    return nil, GONE
  end
  local free = row[2] == FREE or row[2] == ALONE
  if consumer == '' then
    if free then return row[4] end
  elseif (row[2] == consumer or free) and row[4] == times then
    return times
  end
  return nil, LOST
end

local function retry(id, fields, handed)
  local count = carried(fields) + handed
  if max > 0 and count >= max then
    dead_letter(stream, dead, id, fields, count, 'delivered ' .. count .. ' times of max_deliveries ' .. max)
    return
  end
  local life, sent = identity(id, fields)
  local entry = with(fields, {i = life, t = sent, n = tostring(count)})
  remove(stream, {id})
  if delay > 0 then
    redis.call('HSET', payloads, life, pack(entry))
    redis.call('ZADD', due, string.format('%.0f', now_ms() + delay), life)
  else
    redis.call('XADD', stream, '*', unpack(entry))
  end
end

local standings, finished = {}, {}
for i = FIRST, #ARGV do
  local id = ARGV[i]
  local count, standing = owned(id)
  if count then
    standing = DONE
    if verb == 'ack' then
      finished[#finished + 1] = id
    elseif verb == 'release' then
      redis.call('XCLAIM', stream, GROUP, FREE, 0, id, 'RETRYCOUNT', math.max(count - 1, 0), 'JUSTID')
    elseif verb == 'extend' then
      redis.call('XCLAIM', stream, GROUP, consumer, 0, id, 'JUSTID')
    else
      local entry = redis.call('XRANGE', stream, id, id)[1]
      if not entry then
        redis.call('XACK', stream, GROUP, id)
        standing = GONE
      elseif verb == 'retry' then
        retry(id, entry[2], count)
      else
        dead_letter(stream, dead, id, entry[2], carried(entry[2]) + count, reason)
      end
    end
  end
  standings[#standings + 1] = standing
end
remove(stream, finished)
return {tonumber(settings[1]), table.concat(standings)}
