"""The counting of chords in Redis, under the keys that Celery's Redis backend uses, so that both may count one chord.

Of the group with id G, all under `celery-taskset-meta-G`: `.j` the ends of its tasks, a sorted set by their place in
the header (a list, as they came, with `result_chord_ordered` off); `.s` how many there are to be; `.t` how many were
added later; `.d` the tasks that were counted, so that a repeat counts once, and `.c` who sends the body (both from
Celery 5.7 on; an older one does not look at them); and under the key itself the shape of a nested header.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from ..result_ports import ChordParts

GROUP_PREFIX = "celery-taskset-meta-"
#: For how long one that counted the last end may take to send the body before another may.
CLAIM_SECONDS = 10
#: For how long a chord that is done is remembered, so that a repeat of one of its tasks does not begin it anew.
DONE_SECONDS = 300
#: For how long an end is kept that is told of a chord that is done: see `COUNT`.
EARLY_SECONDS = 60

T = TypeVar("T")

#: KEYS: .j .t .s .d .c and the shape. ARGV: task id, place, part, expiry in seconds or 0, claim, its seconds, whether
#: the ends lie in the order of their places (1) or as they came (0), and how long an early end is kept.
#:
#: A chord that is done may be on its way again: Celery, sending a frozen one anew, tells its size, and forgets by that
#: that it is done, only before the last of its tasks. The first may have ended by then. Dropped as a repeat, as by
#: Celery's own script, it would be missed for ever; so it is kept for a while, and goes no further when it was one.
COUNT = """
local ends, added, size, counted, claimed, shape = unpack(KEYS)
local task, place, part, expiry, claim, claim_seconds, ordered, early = unpack(ARGV)
local done = redis.call('GET', claimed) == 'done'
if done and redis.call('SISMEMBER', counted, task .. ':' .. place) == 1 then return {0} end
if redis.call('SADD', counted, task .. ':' .. place) == 1 then
  if ordered == '1' then redis.call('ZADD', ends, place, part) else redis.call('RPUSH', ends, part) end
end
if done then
  redis.call('EXPIRE', ends, early)
  redis.call('EXPIRE', counted, early)
  return {0}
elseif tonumber(expiry) > 0 then
  for _, key in ipairs(KEYS) do
    if key ~= claimed then redis.call('EXPIRE', key, expiry) end
  end
else
  redis.call('PERSIST', ends)
  redis.call('PERSIST', counted)
end
local wanted = redis.call('GET', size)
if not wanted then return {0} end
local found = redis.call(ordered == '1' and 'ZCARD' or 'LLEN', ends)
if found < tonumber(wanted) + tonumber(redis.call('GET', added) or 0) then return {0} end
if not redis.call('SET', claimed, claim, 'NX', 'EX', claim_seconds) then return {0} end
return {1, redis.call('GET', shape), redis.call(ordered == '1' and 'ZRANGE' or 'LRANGE', ends, 0, -1)}
"""

#: KEYS as above. ARGV: claim, seconds to remember, and whether all goes (0), or the size alone (1).
END = """
if redis.call('GET', KEYS[5]) ~= ARGV[1] then return 0 end
if ARGV[3] == '1' then
  redis.call('DEL', KEYS[3])
else
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[6])
end
redis.call('SET', KEYS[5], 'done', 'EX', ARGV[2])
return 1
"""


class RedisChords:
    """See `ports.ChordCounter`.

    Args:
        redis: a client.
        prefix: before every key.
        carry_out: runs a function that talks to Redis, and turns Redis's errors into ours.
        ordered: Celery's `result_chord_ordered`; without it the ends lie in a list, as they came.
    """

    def __init__(
        self, redis: Any, prefix: str, carry_out: Callable[[Callable[[], Any]], Any], *, ordered: bool = True
    ) -> None:
        self._ordered = int(ordered)
        self._redis = redis
        self._prefix = prefix + GROUP_PREFIX
        self._carry_out = carry_out
        self._count = redis.register_script(COUNT)
        self._end = redis.register_script(END)

    def begin_chord(self, group_id: str, size: int, structure: bytes | None, *, expires_seconds: float | None) -> None:
        *_, size_key, _, claim_key, shape_key = self._keys(group_id)
        expiry = None if expires_seconds is None else max(1, round(expires_seconds))

        def write() -> None:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.delete(claim_key)  # a chord that is sent again is a new one
                pipe.set(size_key, size, ex=expiry)
                if structure is not None:
                    pipe.set(shape_key, structure, ex=expiry)
                pipe.execute()

        self._carry_out(write)

    def extend_chord(self, group_id: str, count: int) -> None:
        self._carry_out(lambda: self._redis.incrby(self._keys(group_id)[1], count))

    def count_part(
        self, group_id: str, task_id: str, place: int | None, part: bytes, *, expires_seconds: float | None
    ) -> ChordParts | None:
        claim = uuid.uuid4().hex
        arguments = (
            task_id, "+inf" if place is None else place, part,
            0 if expires_seconds is None else max(1, round(expires_seconds)), claim, CLAIM_SECONDS,
            self._ordered, EARLY_SECONDS,
        )  # fmt: skip
        found = self._carry_out(lambda: self._count(self._keys(group_id), arguments))
        if not found[0]:
            return None
        return ChordParts(parts=list(found[2]), structure=found[1], claim=claim)

    def end_chord(self, group_id: str, claim: str, *, keeps_parts: bool = False) -> None:
        arguments = (claim, DONE_SECONDS, int(keeps_parts))
        self._carry_out(lambda: self._end(self._keys(group_id), arguments))

    def _keys(self, group_id: str) -> list[str]:
        key = self._prefix + group_id
        return [f"{key}.j", f"{key}.t", f"{key}.s", f"{key}.d", f"{key}.c", key]
