-- receive: lease messages of queues to a consumer; and keep the queues in order on the way.
-- KEYS: of each queue: stream, dead stream, due, due payloads, ids, dead ids, meta
-- ARGV: consumer, ms between sweeps, '1' if the end of the look is asked for, '1' to recover first (of
--   one queue only), then of each queue: count (0: only look whether there is a message), '1' if the
--   consumer's process holds nothing else; then, to recover, the entries that the consumer does hold
-- Reply: of one queue {lease in ms, 1 if there is more to do at once, ms until something may come (-1:
--   unknown), 1 if suspects wait, ms for which a plain read will do, fresh entries as the server has
--   them, {id for life, times} of each that became a dead letter, the last entry handed out to anybody
--   (if asked for), how many plain reads will find at most (-1: others wait besides), 1 if there is
--   more to recover, {entry, times, fields, suspect} ...}; of many queues a list of these, nil for each
--   that is to be looked at alone: it failed, or those before it took long enough
-- Invariants: each step is bounded; what is over max_deliveries becomes a dead letter instead of
-- being handed out; a suspect is handed out alone; what has expired is deleted instead.
-- include: _shared

local consumer, sweep_every, watched, recover = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', ARGV[4] == '1'
local FIRST, HELD = 5, 7
local PAGE = 100      -- due messages promoted, entries looked at, a step
local SWEEPS = 8      -- pages of ended leases, a step
local HOUR = 3600000  -- consumers that are idle for so many ms, and hold nothing, are forgotten
local SWEEP = 10      -- what it costs to look for ended leases: as much as so many entries
local now = now_ms()
local entries = 0     -- how many were touched for upkeep

-- Look at one queue.
local function look(keys, count, alone)
  local stream, dead, due, payloads, ids, dead_ids, meta = unpack(keys)
  local kind = (stream == dead) and 'd' or 'q'

  local settings = redis.call('HMGET', meta, 'lease', 'max', 'sweep_' .. kind, 'cursor_' .. kind, 'tidy_' .. kind, 'ttl', 'old_lease', 'old_until')
  if not settings[1] then
    return redis.error_reply('NOQUEUE the queue does not exist')
  end
  local lease = tonumber(settings[1])
  local max = (kind == 'q') and tonumber(settings[2]) or 0
  local sweep_at = tonumber(settings[3] or '0')
  local has_ttl = settings[6]
  local handed, buried, more, suspects, stranded = {}, {}, 0, 0, 0
  -- A lease that was made shorter counts for take-over only when the old one has run out once.
  local taken_over = lease
  if settings[7] and now < tonumber(settings[8]) then taken_over = math.max(lease, tonumber(settings[7])) end

  -- Note something in meta. A server over maxmemory refuses HSET while a script has written nothing;
  -- to take out what is not there counts as having written.
  local function note(...)
    redis.call('HDEL', meta, '~')
    redis.call('HSET', meta, ...)
  end

  -- Delete an entry whose time to live is over; returns whether it was.
  local function drop_expired(id, fields)
    if not (has_ttl and expired(fields, now)) then return false end
    erase(stream, ids, id, fields)
    return true
  end

  -- Handed out `times` times without being settled, and twice or for the last time but one: next
  -- to it, healthy messages would be counted as killers too.
  local function suspicious(times, fields)
    return kind == 'q' and (times >= 2 or (times == 1 and max > 0 and carried(fields) + times == max - 1))
  end

  -- 1. What this consumer was given, but never got to see.
  if recover then
    local held = {}
    for i = HELD, #ARGV do held[ARGV[i]] = true end
    local page = count + #ARGV - HELD + 2 -- with one that is left
    for _, row in ipairs(redis.call('XPENDING', stream, GROUP, '-', '+', page, consumer)) do
      local id, times = row[1], tonumber(row[4])
      if not held[id] and #handed == count then
        stranded = 1
      elseif not held[id] then
        local entry = redis.call('XCLAIM', stream, GROUP, consumer, 0, id, 'RETRYCOUNT', times)[1]
        if entry and not drop_expired(id, entry[2]) then
          handed[#handed + 1] = {id, times, entry[2], suspicious(times - 1, entry[2]) and 1 or 0}
        end
      end
    end
  end

  -- When the first of the delayed messages is due.
  local function next_due()
    local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
    return first[2] and tonumber(first[2]) or math.huge
  end

  -- 2. Delayed messages that are due.
  local at, ready = next_due(), {}
  if at <= now then
    ready = redis.call('ZRANGEBYSCORE', due, '-inf', whole(now), 'LIMIT', 0, PAGE)
    local damaged = damage(keys, 1, HOLDS)
    if damaged then return damaged end
  end
  for _, life in ipairs(ready) do
    local packed = redis.call('HGET', payloads, life)
    redis.call('ZREM', due, life)
    redis.call('HDEL', payloads, life)
    if packed then
      local fields = unpacked(packed)
      if not expired(fields, now) then add_known(stream, ids, fields) end
    end
  end
  entries = entries + #ready
  if #ready == PAGE then more = 1 end
  if #ready > 0 then at = next_due() end

  -- Mostly nothing is in flight, nor came free: then there is less to look for, and nothing to note.
  local pending = #redis.call('XPENDING', stream, GROUP, '-', '+', 1) > 0

  -- 3. Leases that ended: to FREE, uncounted. Looking costs time for each message in flight (0.1 us;
  -- XAUTOCLAIM would need 2), so do not look while no lease can end: nothing that is in flight has
  -- been held for long enough, and what is handed out from now on has its whole lease before it.
  local function quiet()
    for _, part in ipairs({2, 8}) do
      local span = math.floor(taken_over / part)
      if settings[7] then span = math.min(span, tonumber(settings[8]) - now) end
      if span > sweep_every and #redis.call('XPENDING', stream, GROUP, 'IDLE', taken_over - span, '-', '+', 1) == 0 then
        return span
      end
    end
    return sweep_every
  end

  if not pending then
    sweep_at = now + sweep_every
  elseif now >= sweep_at or sweep_at - now > taken_over then
    local cursor = settings[4] or '-'
    for _ = 1, SWEEPS do
      local rows = redis.call('XPENDING', stream, GROUP, 'IDLE', taken_over, cursor, '+', PAGE)
      local ended = {}
      for _, row in ipairs(rows) do
        cursor = '(' .. row[1]
        if row[2] ~= FREE and row[2] ~= ALONE then ended[#ended + 1] = row[1] end
      end
      if #ended > 0 then
        ended[#ended + 1] = 'JUSTID'
        redis.call('XCLAIM', stream, GROUP, FREE, taken_over, unpack(ended))
      end
      entries = entries + SWEEP + #rows
      if #rows < PAGE then
        cursor = '-'
        break
      end
    end
    if cursor == '-' then sweep_at = now + quiet() else more = 1 end
    note('sweep_' .. kind, whole(sweep_at), 'cursor_' .. kind, cursor)
  end

  -- Once an hour: every client brings consumer names of its own, and takes none away when it dies.
  -- One that holds something keeps its name: deleting a consumer deletes what it holds.
  if now >= tonumber(settings[5] or '0') then
    for _, row in ipairs(redis.call('XINFO', 'CONSUMERS', stream, GROUP)) do
      local name, pending, idle = row[2], tonumber(row[4]), tonumber(row[6])
      if pending == 0 and idle > HOUR and string.sub(name, 1, 1) ~= '~' then
        redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, name)
      end
    end
    note('tidy_' .. kind, whole(now + HOUR))
  end

  -- 4. Hand out what is free; what looks poisonous waits for a consumer that holds nothing.
  if pending and #handed < count then
    local free = redis.call('XPENDING', stream, GROUP, '-', '+', PAGE, FREE)
    entries = entries + #free
    if #free == PAGE then more = 1 end
    local damaged = #free > 0 and damage(keys, 1, HOLDS)
    if damaged then return damaged end
    for _, row in ipairs(free) do
      if #handed >= count then break end
      local id, times = row[1], tonumber(row[4])
      local entry = redis.call('XRANGE', stream, id, id)[1]
      if not entry then
        redis.call('XACK', stream, GROUP, id)
      elseif not drop_expired(id, entry[2]) then
        local before = carried(entry[2]) + times
        if max > 0 and before >= max then
          buried[#buried + 1] = {(identity(id, entry[2])), before}
          dead_letter(stream, ids, dead, dead_ids, id, entry[2], before, 'delivered ' .. before .. ' times of max_deliveries ' .. max .. ', never settled')
        elseif suspicious(times, entry[2]) then
          redis.call('XCLAIM', stream, GROUP, ALONE, 0, id, 'JUSTID')
        else
          redis.call('XCLAIM', stream, GROUP, consumer, 0, id, 'RETRYCOUNT', times + 1, 'JUSTID')
          handed[#handed + 1] = {id, times + 1, entry[2], 0}
        end
      end
    end
  end

  -- 5. A suspect, alone.
  if pending and kind == 'q' then
    local row = redis.call('XPENDING', stream, GROUP, '-', '+', 1, ALONE)[1]
    if row and alone and #handed < count and #handed == 0 then
      local times = tonumber(row[4]) + 1
      local entry = redis.call('XCLAIM', stream, GROUP, consumer, 0, row[1], 'RETRYCOUNT', times)[1]
      if entry and not drop_expired(row[1], entry[2]) then
        return {lease, 1, -1, 0, 0, {}, buried, '', -1, 0, {row[1], times, entry[2], 1}}
      end
      more = 1
    elseif row then
      suspects = 1
    end
  end

  -- 6. New messages.
  local fresh = {}
  if #handed < count then
    local streams = redis.call('XREADGROUP', 'GROUP', GROUP, consumer, 'COUNT', count - #handed, 'STREAMS', stream, '>')
    if streams then fresh = streams[1] and streams[1][2] or {} end
    if has_ttl and #fresh > 0 then
      local alive = {}
      for _, entry in ipairs(fresh) do
        if not drop_expired(entry[1], entry[2]) then alive[#alive + 1] = entry end
      end
      if #alive < #fresh then more = 1 end
      fresh = alive
    end
  end

  -- 7. Where this look ended, and what it left. What nobody was handed yet is no more than there are
  -- entries; if none is in flight, just as much.
  local none = #handed == 0 and #fresh == 0
  local mark, left = '', -1
  if none and (watched or (count == 0 and pending)) then
    mark = last_delivered(stream)
  end
  if count == 0 and pending and #redis.call('XPENDING', stream, GROUP, '-', '+', 1, FREE) > 0 then
    more = 1
  elseif more == 0 and #handed + #fresh < count then
    left = 0
  elseif more == 0 and (count == 0 or #handed < count) then
    left = redis.call('XLEN', stream) - #handed - #fresh
    if count == 0 and left > 0 then
      if pending and #redis.call('XRANGE', stream, '(' .. mark, '+', 'COUNT', 1) == 0 then
        left = 0
      else
        more = 1
      end
    end
  end

  -- 8. When to look again: at the next due time, or when a lease may have ended.
  local soon, calm = -1, 0
  if none then
    if at < math.huge then soon = math.max(at - now, 0) end
    local rows = pending and redis.call('XPENDING', stream, GROUP, '-', '+', 10) or {}
    local ends = (#rows == 10) and 0 or math.huge
    for _, row in ipairs(rows) do ends = math.min(ends, taken_over - tonumber(row[3])) end
    if ends < math.huge then
      ends = math.max(ends, sweep_at - now)
      soon = (soon < 0) and ends or math.min(soon, ends)
    end
  elseif more == 0 and #handed < count then
    calm = math.max(math.min(sweep_at, at, now + sweep_every) - now, 0)
  end

  return {lease, more, soon, suspects, calm, fresh, buried, mark, left, stranded, unpack(handed)}
end

local QUEUE = #HOLDS -- keys
if #KEYS == QUEUE then return look(KEYS, tonumber(ARGV[FIRST]), ARGV[FIRST + 1] == '1') end

-- What fails at one queue is no trouble for the others, of which messages were handed out already.
-- While a script runs, everybody else waits: all of its upkeep is bounded as that of one queue is.
local replies = {}
for number = 1, #KEYS / QUEUE do
  local last, at = number * QUEUE, FIRST + 2 * (number - 1)
  local ok, reply = false, nil
  if entries < PAGE then
    local keys = {unpack(KEYS, last - QUEUE + 1, last)}
    ok, reply = pcall(look, keys, tonumber(ARGV[at]), ARGV[at + 1] == '1')
  end
  replies[number] = ok and not reply.err and reply
end
return replies
