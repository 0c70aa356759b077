-- Shared by the scripts that say "include: _shared"; put before them by scripts.py.
-- Only local names: one leaked global would break an in-memory server for good.

local GROUP = 'leanmq'
-- Reserved consumers. What they hold is held by nobody: FREE waits for any consumer, ALONE for
-- one whose process holds nothing else (suspects).
local FREE, ALONE = '~free', '~alone'
-- Lua's unpack overflows near 8,000 values.
local CHUNK = 1000
-- How many failures a message carries along.
local FAILURES = 5

local function now_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function now_ms()
  return math.floor(now_us() / 1000)
end

-- A whole number as Redis writes it; Lua would write 1e+15.
local function whole(number)
  return string.format('%.0f', number)
end

-- Field `name` of an entry's flat list of fields and values, or nil.
local function field(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
  return nil
end

-- The fields with some of them set anew (false: taken out).
local function with(fields, changes)
  local result = {}
  for i = 1, #fields, 2 do
    if changes[fields[i]] == nil then
      result[#result + 1] = fields[i]
      result[#result + 1] = fields[i + 1]
    end
  end
  for name, value in pairs(changes) do
    if value then
      result[#result + 1] = name
      result[#result + 1] = value
    end
  end
  return result
end

-- How often the message was handed out before this entry of it was made.
local function carried(fields)
  return tonumber(field(fields, 'n') or '0')
end

local function expired(fields, now)
  local at = field(fields, 'x')
  return at and tonumber(at) <= now
end

-- What keys hold, as the scripts of a queue's messages are given them.
local HOLDS = {'stream', 'stream', 'zset', 'hash', 'hash', 'hash', 'hash'}

-- An error if one of the keys from `first` on holds something else than it should; those that are
-- missing will be made. To be asked before the first write: Redis undoes nothing.
local function damage(keys, first, types)
  for i, wanted in ipairs(types) do
    local found = redis.call('TYPE', keys[first + i - 1]).ok
    if found ~= wanted and found ~= 'none' then
      return redis.error_reply('WRONGTYPE key ' .. keys[first + i - 1] .. ' holds a ' .. found .. ', not a ' .. wanted)
    end
  end
  return nil
end

-- The last entry that was handed out to anybody. Others may have groups of their own.
local function last_delivered(stream)
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    if field(group, 'name') == GROUP then return field(group, 'last-delivered-id') end
  end
  return '0-0'
end

-- Call a variadic command on any number of ids.
local function on_all(command, key, group, ids)
  for first = 1, #ids, CHUNK do
    local last = math.min(first + CHUNK - 1, #ids)
    if group then
      redis.call(command, key, group, unpack(ids, first, last))
    else
      redis.call(command, key, unpack(ids, first, last))
    end
  end
end

local function remove(stream, ids)
  on_all('XACK', stream, GROUP, ids)
  on_all('XDEL', stream, nil, ids)
end

-- What every new entry of a known message must carry: its id for life and when it was sent.
local function identity(id, fields)
  return field(fields, 'i') or id, field(fields, 't') or string.match(id, '^%d+')
end

-- Remove the entry of a message that is known by the name `life` from now on no more.
local function erase(stream, ids, id, fields)
  remove(stream, {id})
  local life = field(fields, 'i')
  if life then redis.call('HDEL', ids, life) end
end

-- Add an entry for a message that has an id for life already; `ids` finds the one by the other.
local function add_known(stream, ids, fields)
  redis.call('HSET', ids, field(fields, 'i'), redis.call('XADD', stream, '*', unpack(fields)))
end

-- Move an entry to the dead letters. Acknowledge first, add last: a server over maxmemory
-- refuses a script only while it has written nothing. Dead letters do not expire.
local function bury(dead, dead_ids, life, sent, fields, count, reason)
  add_known(dead, dead_ids, with(fields, {i = life, t = sent, n = tostring(count), e = reason, x = false}))
end

local function dead_letter(stream, ids, dead, dead_ids, id, fields, count, reason)
  local life, sent = identity(id, fields)
  erase(stream, ids, id, fields)
  bury(dead, dead_ids, life, sent, fields, count, reason)
end

-- Fields as one string of counted parts, and back. (cmsgpack is not everywhere, cjson differs.)
local function pack(fields)
  local parts = {}
  for i = 1, #fields do
    parts[#parts + 1] = #fields[i] .. ':' .. fields[i]
  end
  return table.concat(parts)
end

local function unpacked(text)
  local fields, at = {}, 1
  while at <= #text do
    local colon = string.find(text, ':', at, true)
    local length = tonumber(string.sub(text, at, colon - 1))
    fields[#fields + 1] = string.sub(text, colon + 1, colon + length)
    at = colon + length + 1
  end
  return fields
end

-- The failures of a message and one more: moments, counts and reasons, the last ones.
local function failures(fields, now, count, reason)
  local list = unpacked(field(fields, 'f') or '')
  list[#list + 1] = whole(now)
  list[#list + 1] = tostring(count)
  list[#list + 1] = reason
  while #list > 3 * FAILURES do table.remove(list, 1) end
  return pack(list)
end

-- Keep a message back until `at`, under its id for life.
local function postpone(due, payloads, life, fields, at)
  redis.call('HSET', payloads, life, pack(fields))
  redis.call('ZADD', due, whole(at), life)
end

-- Where the message with this id for life is: its entry and fields; or 'due' and its fields; or nil.
-- An entry may be called like the id for life of another message, which was retried or moved.
local function locate(stream, ids, payloads, life)
  local entry
  if string.match(life, '^%d+%-%d+$') then
    entry = redis.call('XRANGE', stream, life, life)[1]
    if entry and (field(entry[2], 'i') or life) ~= life then entry = nil end
  end
  if not entry then
    local moved = redis.call('HGET', ids, life)
    if moved and moved ~= '' then entry = redis.call('XRANGE', stream, moved, moved)[1] end
  end
  if entry then return entry[1], entry[2] end
  local packed = life ~= '~' and redis.call('HGET', payloads, life)
  if packed then return 'due', unpacked(packed) end
  return nil
end
