"""Under which keys things lie in Redis, and the Lua scripts that move them.

Queues and bindings lie where kombu puts them, so that Celery producers and workers share them. What is taken and not
yet acknowledged, what is due later, and which queues stand, lies under keys of Lightbus's own (`lightbus.*`): kombu's
`unacked` keys are restored by every Celery worker after *its* visibility timeout, and a worker with a short one would
take away what another still works on.

    <queue>, <queue><sep><step>      list per priority step, kombu's; the next message is at the right end
    _kombu.binding.<exchange>        set of bindings, kombu's
    lightbus.unacked                 hash: tag -> list key and message, as `pack` writes it
    lightbus.unacked_index           sorted set: tag by the moment (ms) when its lease ends
    lightbus.delayed                 sorted set: message, `pack`ed with its `place_of`, by the moment (ms) it is due
    lightbus.queue.<queue>           stands while the queue does; its value is the lifetime in ms when unused, or 0
    lightbus.transient               set of queues with a lifetime, to clear up after
    lightbus.bindings.<queue>        set of what binds the queue, to be removed with it
    lightbus.exchange.<exchange>     its kind
    lightbus.rate.<name>             a rate of all workers: when its next token is there, and its plan (`core.rate`)
"""

from __future__ import annotations

import hashlib
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from ...core.matching import key_matches
from ...core.message import Route


@dataclass(frozen=True, slots=True)
class RedisLayout:
    """Names of keys, by kombu's transport options of the same names."""

    global_keyprefix: str
    sep: str
    priority_steps: Sequence[int]
    binding_format: str  #: kombu's `keyprefix_queue`, `_kombu.binding.%s`

    def key(self, name: str) -> str:
        """The key of Lightbus's own called `name`."""
        return f"{self.global_keyprefix}lightbus.{name}"

    def list_key(self, queue: str, priority: int | None = None) -> str:
        """Where a message of that priority lies. kombu rounds down to a step, and limits to 0 to 9."""
        wanted = min(max(priority or 0, 0), 9)
        step = self.priority_steps[max(0, bisect(self.priority_steps, wanted) - 1)]
        return self.global_keyprefix + (f"{queue}{self.sep}{step}" if step else queue)

    def list_keys(self, queue: str) -> list[str]:
        """All lists of a queue, the one to empty first in front."""
        return [self.list_key(queue, step) for step in self.priority_steps]

    def place_of(self, route: Route, priority: int | None) -> str:
        """Where a message goes when it is due: a list, or what `KEEP` needs to route it then, parted by NUL."""
        if not route.exchange:
            return self.list_key(route.routing_key, priority)
        step = self.list_key("", priority)[len(self.global_keyprefix) :]
        keys = self.binding_key(route.exchange), self.key(f"exchange.{route.exchange}")
        return "\0".join(("", *keys, self.global_keyprefix, self.sep, step, route.routing_key))

    def binding_key(self, exchange: str) -> str:
        return self.global_keyprefix + self.binding_format % exchange

    def binding_member(self, routing_key: str, pattern: str, queue: str) -> str:
        return self.sep.join((routing_key, pattern, queue))

    def queues_for(self, members: Sequence[bytes], kind: str, routing_key: str) -> list[str]:
        """The queues whose bindings a message meets; `kind` is "" for an exchange that Lightbus did not declare."""
        found: dict[str, None] = {}
        for member in members:
            bound_key, pattern, queue = member.decode().split(self.sep)
            # kombu stores a pattern for topic exchanges only. Its pattern takes "#" for one word or more; AMQP's rule
            # is any number, so the key is matched here and the pattern is only there for kombu's producers.
            if key_matches(kind or ("topic" if pattern else "direct"), bound_key, routing_key):
                found[queue] = None
        return list(found)


def pack(list_key: str, raw: bytes) -> bytes:
    """A message and where it belongs, as one value: `<length>:<list key><message>`."""
    name = list_key.encode()
    return b"%d:%s%s" % (len(name), name, raw)


def unpack(value: bytes) -> tuple[str, bytes]:
    """Takes apart what `pack` put together."""
    length, _, rest = value.partition(b":")
    size = int(length)
    return rest[:size].decode(), rest[size:]


class Script:
    """A Lua script and the digest under which the server keeps it."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode()).hexdigest()


#: Settles and takes, in one step. A message is never out of the list without being noted as unacked: kombu pops and
#: notes in two steps, and loses what it popped when it is killed in between.
#: KEYS: unacked, index, delayed, then lists, in groups: those of the next group have their turn when these are empty.
#: It stops behind the message that makes it 8 MiB: what is large is taken a few at a time.
#: ARGV: tag prefix, first number, limit, lease in ms, number of groups, lists in each group, tags to acknowledge...
#: Gives ms until the next delayed message (-1 for none), the numbers of the lists that are empty now, then list number
#: and message, in turn. What is read makes the server tell this connection when it changes (CLIENT TRACKING), so lists
#: that are empty are read at the end: many by one command, since Redis before 7.2 notes all KEYS for each that reads.
TAKE = Script(
    """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local groups = tonumber(ARGV[5])
for i = 6 + groups, #ARGV do
  redis.call('HDEL', KEYS[1], ARGV[i])
  redis.call('ZREM', KEYS[2], ARGV[i])
end
local number, limit, count, size = tonumber(ARGV[2]), tonumber(ARGV[3]), 0, 0
local out, empty, unasked, first = {-1, {}}, {}, {}, 4
for group = 1, groups do
  local lists, last = {}, first + tonumber(ARGV[5 + group]) - 1
  for k = first, last do lists[#lists + 1] = k end
  while #lists > 0 and count < limit and size < 8388608 do
    local left = {}
    for _, k in ipairs(lists) do
      local asked = count < limit and size < 8388608
      local raw = asked and redis.call('RPOP', KEYS[k])
      if raw then
        local tag = ARGV[1] .. (number + count)
        redis.call('HSET', KEYS[1], tag, #KEYS[k] .. ':' .. KEYS[k] .. raw)
        redis.call('ZADD', KEYS[2], now + tonumber(ARGV[4]), tag)
        count, size = count + 1, size + #raw
        left[#left + 1] = k
        out[2 * count + 1] = k - 3
        out[2 * count + 2] = raw
      elseif asked then
        empty[#empty + 1] = k
      else
        unasked[#unasked + 1] = k
      end
    end
    lists = left
  end
  for _, k in ipairs(lists) do unasked[#unasked + 1] = k end
  first = last + 1
end
local function note(lists)
  for start = 1, #lists, 500 do
    local keys, last = {}, math.min(start + 499, #lists)
    for i = start, last do keys[#keys + 1] = KEYS[lists[i]] end
    if redis.call('EXISTS', unpack(keys)) == 0 then
      for i = start, last do out[2][#out[2] + 1] = lists[i] - 3 end
    end
  end
end
note(empty)
if #unasked > 4 then note(unasked) end
local soon = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
if soon[2] then out[1] = math.max(0, soon[2] - now) end
return out
"""
)

#: Routes what is due by an exchange, as `RedisLayout.queues_for` and `PUT` do, of which it repeats the rules.
#: The matching goes row by row, since a pattern with many `#` must not take exponential time.
_ROUTE = """
local function parts(text, mark)
  local found, from = {}, 1
  if text == '' then return found end
  while true do
    local at = string.find(text, mark, from, true)
    found[#found + 1] = string.sub(text, from, (at or 0) - 1)
    if not at then return found end
    from = at + #mark
  end
end
local function meets(kind, pattern, key)
  if kind == 'fanout' then return true end
  if kind ~= 'topic' then return pattern == key end
  local words, met = parts(key, '.'), {[0] = true}
  for _, part in ipairs(parts(pattern, '.')) do
    local row = {}
    for i = 0, #words do
      if part == '#' then
        row[i] = met[i] or (i > 0 and row[i - 1])
      else
        row[i] = i > 0 and met[i - 1] and (part == '*' or part == words[i])
      end
    end
    met = row
  end
  return met[#words]
end
local function route(place, message, changed)
  local where = parts(string.sub(place, 2), '\\0')
  local binding, exchange, prefix, sep, step, key = where[1], where[2], where[3], where[4], where[5], where[6]
  local kind, put = redis.call('GET', exchange), {}
  for _, member in ipairs(redis.call('SMEMBERS', binding)) do
    local bound = parts(member, sep)
    local queue = bound[3]
    if not put[queue] and meets(kind or (bound[2] ~= '' and 'topic'), bound[1], key) then
      put[queue] = true
      local life = redis.call('GET', prefix .. 'lightbus.queue.' .. queue)
      if life or redis.call('SISMEMBER', prefix .. 'lightbus.transient', queue) == 0 then
        local list = prefix .. queue .. step
        redis.call('LPUSH', list, message)
        changed[#changed + 1] = list
        if life and life ~= '0' then redis.call('PEXPIRE', list, life) end
      end
    end
  end
end
"""

#: Keeps the leases of the tags held, moves what is due, and claims what others left behind when they died.
#: KEYS: unacked, index, delayed. ARGV: lease in ms, tags held...
#: Gives ms until the next delayed message (-1 for none), the lists that what was due went to, then tag and packed
#: message of each that was left behind.
#: The removal of nothing comes first because a server that is full refuses a script whose first write could take
#: memory, and would have the leases of running consumers end. It refuses none after that; `TAKE` begins with a RPOP.
KEEP = Script(
    _ROUTE
    + """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREM', KEYS[2], '')
local changed = {}
for i = 2, #ARGV do redis.call('ZADD', KEYS[2], 'XX', now + tonumber(ARGV[1]), ARGV[i]) end
for _, packed in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 200)) do
  local colon = string.find(packed, ':', 1, true)
  local start = colon + 1 + tonumber(string.sub(packed, 1, colon - 1))
  local place, message = string.sub(packed, colon + 1, start - 1), string.sub(packed, start)
  if string.byte(place) == 0 then
    route(place, message, changed)
  else
    changed[#changed + 1] = place
    redis.call('LPUSH', place, message)
  end
  redis.call('ZREM', KEYS[3], packed)
end
local out = {-1, changed}
for _, tag in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 50)) do
  local packed = redis.call('HGET', KEYS[1], tag)
  if packed then
    redis.call('ZADD', KEYS[2], 'XX', now + tonumber(ARGV[1]), tag)
    out[#out + 1] = tag
    out[#out + 1] = packed
  else
    redis.call('ZREM', KEYS[2], tag)
  end
end
local soon = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
if soon[2] then out[1] = math.max(0, soon[2] - now) end
return out
"""
)

#: Hands a message back to the front of its list, unless it was settled meanwhile.
#: KEYS: unacked, index, list. ARGV: tag, message.
GIVE_BACK = Script(
    """
if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('RPUSH', KEYS[3], ARGV[2])
end
"""
)

#: Puts a message into a queue. Gives 0 when the queue does not stand and the message must not wait for it.
#: KEYS: the queue's standing, transient, kombu's binding of the same name, list to put it, all lists...
#: ARGV: message, 1 if only a queue that stands will do, queue.
PUT = Script(
    """
local life = redis.call('GET', KEYS[1])
if not life then
  if redis.call('SISMEMBER', KEYS[2], ARGV[3]) == 1 then
    for k = 5, #KEYS do redis.call('DEL', KEYS[k]) end
    return 0
  end
  if ARGV[2] == '1' then
    local stands = redis.call('EXISTS', KEYS[3])
    for k = 5, #KEYS do stands = stands + redis.call('EXISTS', KEYS[k]) end
    if stands == 0 then return 0 end
  end
end
redis.call('LPUSH', KEYS[4], ARGV[1])
if life and life ~= '0' then redis.call('PEXPIRE', KEYS[4], life) end
return 1
"""
)

#: Keeps a message for later. KEYS: delayed. ARGV: packed message, delay in ms.
DELAY = Script(
    """
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2]), ARGV[1])
"""
)

#: `core.rate.take` by the server's clock. KEYS: rate. ARGV: interval, longest wait, and the limits of `core.rate`, in
#: seconds. Numbers go as text: the server would cut them to integers.
TURN = Script(
    """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local interval, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local state = redis.call('HMGET', KEYS[1], 'free_at', 'planned_until')
local free_at = math.max(now, math.min(tonumber(state[1] or 0), now + ARGV[3] + interval))
local planned, granted, wait = tonumber(state[2] or 0), 1, free_at - now
if wait <= most then
  free_at = free_at + interval
else
  planned = math.max(free_at, math.min(planned + interval, now + ARGV[4]))
  granted, wait = 0, planned - now
end
redis.call('HSET', KEYS[1], 'free_at', string.format('%.6f', free_at), 'planned_until', string.format('%.6f', planned))
redis.call('PEXPIRE', KEYS[1], math.ceil((math.max(free_at, planned) - now) * 1000) + 1000)
return {granted, string.format('%.6f', wait)}
"""
)

#: Holders of permits, by the end of their leases in milliseconds.
PERMIT = Script(
    """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3] + 1000)
return 1
"""
)
