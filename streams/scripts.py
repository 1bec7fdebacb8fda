"""What happens atomically on the server, in Lua. Only `streams.transport` runs these.

A script has no roll-back, so each checks everything first and writes after. It answers with a list
whose first word is ``OK`` or the reason of its refusal. All take the keys ``checkpoint``, ``lease``
and ``events`` first; all but `ACQUIRE` and `LAG` take the lease's epoch and owner as the first two
arguments.

Fields of the checkpoint hash
-----------------------------
epoch, owner
    The fencing token: counts up with every acquired lease. Only who holds both may write.
lineage
    The random name of this stream's history.
position, entries, decisions_digest
    Up to which input ID everything is committed, how many entries that were, and the digest over
    all decisions so far, as the worker gave it.
read
    The same position as a count on the scale of the stream's entries-added counter, which the
    consumer group's lag is measured on.
trimmed, removed
    The ID below which the input was trimmed, and how many entries that removed. Redis 6.2 has no
    entries-added counter; length + removed stands in for it.
reported
    The position at which a loss of the server's was last reported.
"""

_SHARED = """
local checkpoint, lease, events = KEYS[1], KEYS[2], KEYS[3]

-- Whether stream ID a is greater than b. Their 64-bit parts don't fit Lua's doubles: as digits.
local function after(a, b)
  local am, as = string.match(a, '(%d+)-(%d+)')
  local bm, bs = string.match(b, '(%d+)-(%d+)')
  if am == bm then am, bm = as, bs end
  if #am ~= #bm then return #am > #bm end
  return am > bm
end

-- XINFO STREAM as a table. Fails, before any write, when the key holds something else.
local function info(key)
  local fields = {['length'] = 0, ['last-generated-id'] = '0-0'}
  if redis.call('EXISTS', key) == 1 then
    local reply = redis.call('XINFO', 'STREAM', key)
    for i = 1, #reply, 2 do fields[reply[i]] = reply[i + 1] end
  end
  return fields
end

-- How many entries were ever added to the input.
local function ever_added(stream)
  return stream['entries-added']
    or stream['length'] + (tonumber(redis.call('HGET', checkpoint, 'removed') or 0))
end

local function count(number) return string.format('%.0f', number) end

local function fenced(epoch, owner)
  local now = redis.call('HMGET', checkpoint, 'epoch', 'owner')
  if now[1] ~= epoch or now[2] ~= owner then
    return {'FENCED', now[1] or '0', now[2] or ''}
  end
end

local function keep(epoch, owner, ttl)
  redis.call('SET', lease, epoch .. ':' .. owner, 'PX', ttl)
end
"""

ACQUIRE = (
    _SHARED
    + """
local owner, ttl, lineage = ARGV[1], ARGV[2], ARGV[3]
local held = redis.call('GET', lease)
if held then
  local holder = string.match(held, '^%d+:(.*)$') or held
  if holder ~= owner then return {'HELD', holder, redis.call('PTTL', lease)} end
end
if redis.call('HEXISTS', checkpoint, 'lineage') == 0 then
  local stream = info(events)
  redis.call('HSET', checkpoint, 'lineage', lineage, 'position', '0-0', 'entries', 0,
    'read', count(ever_added(stream) - stream['length']))
end
local epoch = redis.call('HINCRBY', checkpoint, 'epoch', 1)
redis.call('HSET', checkpoint, 'owner', owner)
keep(count(epoch), owner, ttl)
return {'OK', epoch}
"""
)

RENEW = (
    _SHARED
    + """
local refusal = fenced(ARGV[1], ARGV[2])
if refusal then return refusal end
local position = redis.call('HGET', checkpoint, 'position')
if ARGV[4] ~= '' and ARGV[4] ~= position then return {'DIVERGED', position or 'none'} end
keep(ARGV[1], ARGV[2], ARGV[3])
return {'OK'}
"""
)

RELEASE = (
    _SHARED
    + """
if redis.call('GET', lease) == ARGV[1] .. ':' .. ARGV[2] then redis.call('DEL', lease) end
return {'OK'}
"""
)

# Arguments: epoch, owner, ttl, expected, position, entries, digest, group, maxlen; then for each
# output stream (KEYS[4] and on): how many entries, and of each its ID and its bytes.
COMMIT = (
    _SHARED
    + """
local epoch, owner, ttl, expected, position = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local entries, digest, group, maxlen = tonumber(ARGV[6]), ARGV[7], ARGV[8], ARGV[9]

local refusal = fenced(epoch, owner)
if refusal then return refusal end
local stored = redis.call('HMGET', checkpoint, 'position', 'entries', 'read')
if stored[1] == position then return {'OK'} end
if stored[1] ~= expected then return {'DIVERGED', checkpoint, stored[1] or 'none'} end
local at = 10
for k = 4, #KEYS do
  local first, last = ARGV[at + 1], info(KEYS[k])['last-generated-id']
  if first ~= '*' and not after(first, last) then return {'DIVERGED', KEYS[k], last} end
  at = at + 1 + 2 * tonumber(ARGV[at])
end
local stream = info(events)
-- At the stream's end the count is known for sure, whatever others deleted from it.
local read, added = tonumber(stored[3]) + entries, ever_added(stream)
if stream['last-generated-id'] == position or read > added then read = added end
entries = tonumber(stored[2]) + entries

-- XADD first: if a right or memory is missing, the first write says so, and nothing is done.
at = 10
for k = 4, #KEYS do
  local stop = at + 2 * tonumber(ARGV[at])
  for i = at + 1, stop, 2 do
    redis.call('XADD', KEYS[k], ARGV[i], 'e', ARGV[i + 1])
  end
  redis.call('XTRIM', KEYS[k], 'MAXLEN', '~', maxlen)
  at = stop + 1
end
redis.call('HSET', checkpoint, 'position', position, 'decisions_digest', digest,
  'entries', count(entries), 'read', count(read))
keep(epoch, owner, ttl)
-- The group only shows the lag; whatever has become of it, the commit stands.
local shown = {events, group, position}
if stream['entries-added'] then
  shown[4], shown[5] = 'ENTRIESREAD', count(read)
end
if redis.pcall('XGROUP', 'SETID', unpack(shown)).err then
  redis.pcall('XGROUP', 'CREATE', unpack(shown))
end
return {'OK'}
"""
)

NOTIFY = (
    _SHARED
    + """
local refusal = fenced(ARGV[1], ARGV[2])
if refusal then return refusal end
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[3], '*', 'e', ARGV[4])
return {'OK'}
"""
)

# The report and the field that remembers it lie on the server together, or neither does. Once
# something is committed on top, the next loss is another one.
REPORT = (
    _SHARED
    + """
local refusal = fenced(ARGV[1], ARGV[2])
if refusal then return refusal end
local stored = redis.call('HMGET', checkpoint, 'position', 'reported')
if stored[1] == stored[2] then return {'OK'} end
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[3], '*', 'e', ARGV[4])
redis.call('HSET', checkpoint, 'reported', stored[1])
return {'OK'}
"""
)

TRIM = (
    _SHARED
    + """
local refusal = fenced(ARGV[1], ARGV[2])
if refusal then return refusal end
local below = ARGV[3]
local stored = redis.call('HMGET', checkpoint, 'position', 'trimmed')
if after(below, stored[1]) then return {'UNCOMMITTED', stored[1]} end
local removed = redis.call('XTRIM', events, 'MINID', below)
redis.call('HINCRBY', checkpoint, 'removed', removed)
if not stored[2] or after(below, stored[2]) then
  redis.call('HSET', checkpoint, 'trimmed', below)
end
return {'OK', removed}
"""
)

LAG = (
    _SHARED
    + """
local stream = info(events)
local read = redis.call('HGET', checkpoint, 'read')
if not read then return {'OK', stream['length']} end
return {'OK', math.max(0, ever_added(stream) - tonumber(read))}
"""
)
