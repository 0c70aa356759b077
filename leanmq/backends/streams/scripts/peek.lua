-- peek: look at messages without touching them.
-- KEYS: stream, due, due payloads, ids, meta
-- ARGV: 'ready', 'flight' or 'delayed', and how many; or 'ids', and ids for life
-- Reply: {lease in ms, {entry ('' if delayed), fields, times delivered, state, ms until due or lease's end, consumer} ...}
-- Invariants: writes nothing. Expired messages are not shown.
-- include: _shared

local stream, due, payloads, ids, meta = unpack(KEYS)
local what = ARGV[1]
local READY, FLIGHT, DELAYED = 0, 1, 2
local LOOKS = 10000

local lease = redis.call('HGET', meta, 'lease')
if not lease then
  return redis.error_reply('NOQUEUE the queue does not exist')
end
lease = tonumber(lease)
local now = now_ms()
local found = {lease}

local function show(row, entry)
  if not entry or expired(entry[2], now) then return end
  if not row then
    found[#found + 1] = {entry[1], entry[2], 0, READY, 0, ''}
  elseif row[2] == FREE or row[2] == ALONE then
    found[#found + 1] = {entry[1], entry[2], row[4], READY, 0, ''}
  else
    found[#found + 1] = {entry[1], entry[2], row[4], FLIGHT, lease - tonumber(row[3]), row[2]}
  end
end

local function show_delayed(life, fields)
  if expired(fields, now) then return end
  local at = redis.call('ZSCORE', due, life)
  found[#found + 1] = {'', fields, 0, DELAYED, math.floor(tonumber(at or now) - now), ''}
end

local function entry_of(id)
  return redis.call('XRANGE', stream, id, id)[1]
end

if what == 'ids' then
  for i = 2, #ARGV do
    local id, fields = locate(stream, ids, payloads, ARGV[i])
    if id == 'due' then
      show_delayed(ARGV[i], fields)
    elseif id then
      show(redis.call('XPENDING', stream, GROUP, id, id, 1)[1], {id, fields})
    end
  end
  return found
end

local count = tonumber(ARGV[2])
if what == 'delayed' then
  for _, life in ipairs(redis.call('ZRANGE', due, 0, count - 1)) do
    local packed = life ~= '~' and redis.call('HGET', payloads, life)
    if packed then show_delayed(life, unpacked(packed)) end
  end
  return found
end

-- Page by page, since not all that a page holds is shown: what has expired, what others hold.
-- Looks at LOOKS messages at most, so that nobody waits for long.
local page, looks = math.max(count, 100), LOOKS
local function pages(first, read, visit)
  local from = first
  while #found <= count and looks > 0 do
    local rows = read(from)
    for _, row in ipairs(rows) do
      if #found <= count then visit(row) end
    end
    if #rows < page then return end
    looks = looks - #rows
    from = '(' .. rows[#rows][1]
  end
end

if what == 'flight' then
  pages('-', function(from) return redis.call('XPENDING', stream, GROUP, from, '+', page) end,
    function(row)
      if row[2] ~= FREE and row[2] ~= ALONE then show(row, entry_of(row[1])) end
    end)
  return found
end

for _, reserved in ipairs({FREE, ALONE}) do
  pages('-', function(from) return redis.call('XPENDING', stream, GROUP, from, '+', page, reserved) end,
    function(row) show(row, entry_of(row[1])) end)
end
pages('(' .. last_delivered(stream), function(from) return redis.call('XRANGE', stream, from, '+', 'COUNT', page) end,
  function(entry) show(nil, entry) end)
return found
