-- record: read or replace a text in the registry, by compare and set.
-- KEYS: registry
-- ARGV: name, 'read', 'set' or 'forget', '1' if something is expected, what is, the new text
-- Reply: what is stored now, or false
-- Invariants: nothing changes unless what is stored is what was expected.

local registry = KEYS[1]
local name, verb, something, expected, value = unpack(ARGV)
local stored = redis.call('HGET', registry, name)
local as_expected = (stored == expected) or (not stored and something == '0')

if verb == 'set' and as_expected then
  redis.call('HSET', registry, name, value)
  return value
elseif verb == 'forget' and as_expected then
  redis.call('HDEL', registry, name)
  return false
end
return stored
