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
reported, gap
    The positions at which a loss of the server's, and a gap in the input, were last reported.
dead_entries, dead_bytes
    What the stream of dead letters holds.
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

-- Whether input after `position` was deleted unread, when `entries` were read from there up to the
-- ID `last`: then {'GAP', where what is left begins ('' if nothing is), how many are gone ('' where
-- that can't be told)}. Our own trimming leaves the entry at `position` where it is; while that is
-- there, so is the rest.
local function gap(stream, position, entries, last)
  local first = stream['first-entry'] and stream['first-entry'][1]
  if position == '0-0' or (first and not after(first, position)) then return end
  local stored = redis.call('HMGET', checkpoint, 'gap', 'read')
  if stored[1] == position then return end
  local gone = nil -- Redis 6.2 doesn't count
  if stream['entries-added'] then
    gone = stream['entries-added'] - stream['length'] - tonumber(stored[2])
  end
  -- Its end, or the count of what is gone, went back: it was deleted as a whole, and begun anew.
  if after(last, stream['last-generated-id']) or (gone and gone < 0) then
    return {'GAP', first or '', ''}
  end
  if entries > 0 then
    -- What was read went too, since: whether more did is seen from there, the next time.
    if not first or after(first, last) then return end
    if gone then gone = gone - entries + #redis.call('XRANGE', events, first, last) end
  elseif not first and stream['last-generated-id'] == position then
    return
  end
  if gone ~= 0 then return {'GAP', first or '', gone and count(gone) or ''} end
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
if ARGV[4] ~= '' then
  if ARGV[4] ~= position then return {'DIVERGED', position or 'none'} end
  refusal = gap(info(events), position, 0, position)
  if refusal then return refusal end
end
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

# Arguments: epoch, owner, ttl, expected, position, entries, digest, group, maxlen, the key of the
# dead letters, how many bytes of them are kept; then for each output stream (KEYS[4] and on): how
# many entries, and of each its ID and its bytes.
COMMIT = (
    _SHARED
    + """
local epoch, owner, ttl, expected, position = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local entries, digest, group, maxlen = tonumber(ARGV[6]), ARGV[7], ARGV[8], ARGV[9]
local dead, maxbytes = ARGV[10], tonumber(ARGV[11])
-- The sizes of a stream's entries in bytes, oldest first.
local function sizes(key)
  local page, at, from = {}, 0, '-'
  return function()
    at = at + 1
    if at > #page then
      page, at = redis.call('XRANGE', key, from, '+', 'COUNT', 8), 1
      if #page == 0 then return end
      from = '(' .. page[#page][1]
    end
    local bytes = 0
    for _, part in ipairs(page[at][2]) do bytes = bytes + #part end
    return bytes
  end
end

-- Trims the dead letters, oldest first and never the newest, after so many entries and bytes were
-- added. Their size is remembered; if somebody else has trimmed them it is taken again.
local function bound(key, entries, bytes)
  local held = redis.call('HMGET', checkpoint, 'dead_entries', 'dead_bytes')
  local length = redis.call('XLEN', key)
  if length == entries + tonumber(held[1] or 0) then
    bytes = bytes + tonumber(held[2] or 0)
  else
    bytes = 0
    for size in sizes(key) do bytes = bytes + size end
  end
  local left, next_size = length, sizes(key)
  while left > 1 and (left > tonumber(maxlen) or bytes > maxbytes) do
    left, bytes = left - 1, bytes - next_size()
  end
  if left < length then redis.call('XTRIM', key, 'MAXLEN', '=', left) end
  redis.call('HSET', checkpoint, 'dead_entries', left, 'dead_bytes', count(bytes))
end

local refusal = fenced(epoch, owner)
if refusal then return refusal end
local stored = redis.call('HMGET', checkpoint, 'position', 'entries', 'read')
if stored[1] == position then return {'OK'} end
if stored[1] ~= expected then return {'DIVERGED', checkpoint, stored[1] or 'none'} end
local at = 12
for k = 4, #KEYS do
  local first, last = ARGV[at + 1], info(KEYS[k])['last-generated-id']
  if first ~= '*' and not after(first, last) then return {'DIVERGED', KEYS[k], last} end
  at = at + 1 + 2 * tonumber(ARGV[at])
end
local stream = info(events)
refusal = gap(stream, expected, entries, position)
if refusal then return refusal end
-- At the stream's end the count is known for sure, whatever others deleted from it.
local read, added = tonumber(stored[3]) + entries, ever_added(stream)
if stream['last-generated-id'] == position or read > added then read = added end
entries = tonumber(stored[2]) + entries

-- XADD first: if a right or memory is missing, the first write says so, and nothing is done.
at = 12
for k = 4, #KEYS do
  local stop, bytes = at + 2 * tonumber(ARGV[at]), 0
  for i = at + 1, stop, 2 do
    redis.call('XADD', KEYS[k], ARGV[i], 'e', ARGV[i + 1])
    bytes = bytes + 1 + #ARGV[i + 1]
  end
  if KEYS[k] == dead then
    bound(dead, (stop - at) / 2, bytes)
  else
    redis.call('XTRIM', KEYS[k], 'MAXLEN', '~', maxlen)
  end
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

# The report and the field that remembers it (the last argument) lie on the server together, or
# neither does. Once something is committed on top, the next report is of something else.
REPORT = (
    _SHARED
    + """
local refusal = fenced(ARGV[1], ARGV[2])
if refusal then return refusal end
local stored = redis.call('HMGET', checkpoint, 'position', ARGV[5])
if stored[1] == stored[2] then return {'OK'} end
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[3], '*', 'e', ARGV[4])
redis.call('HSET', checkpoint, ARGV[5], stored[1])
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
