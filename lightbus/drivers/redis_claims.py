"""Claims in Redis: a hash for each, `lightbus.claim.<key>`, which the server removes when it has ended."""

from __future__ import annotations

from typing import Any

from redis.exceptions import RedisError

from ..core.claims import FORGET_SECONDS, Claim, ClaimStoreUnavailable, Done, Held, Taken
from .redis_client import open_client, without_password

PREFIX = "lightbus.claim."

#: KEYS: claim. ARGV: holder, now, end of the lease, ms until it is forgotten. Gives what it is, and a number.
_CLAIM = """
local state = redis.call('HMGET', KEYS[1], 'until', 'takes', 'done')
if state[1] and tonumber(state[1]) > tonumber(ARGV[2]) then
  if state[3] == '1' then return {'done', '0'} end
  return {'held', state[1]}
end
local takes = state[3] == '1' and 1 or (tonumber(state[2] or 0) + 1)
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'until', ARGV[3], 'takes', takes, 'done', '0')
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {'taken', tostring(takes)}
"""
#: KEYS: claim. ARGV: holder, until when, 1 for done, ms until it is forgotten.
_SET = """
local state = redis.call('HMGET', KEYS[1], 'holder', 'done')
if state[1] ~= ARGV[1] or (ARGV[3] == '0' and state[2] == '1') then return 0 end
redis.call('HSET', KEYS[1], 'until', ARGV[2], 'done', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
"""
#: KEYS: claim. ARGV: holder.
_RELEASE = "if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"

_FORGET_MS = round(FORGET_SECONDS * 1000)


class RedisClaims:
    """See `core.claims.ClaimStore`.

    Args:
        url: as for a broker; see `redis_client.open_client`. A server that evicts keys under pressure forgets claims.
    """

    def __init__(self, url: str) -> None:
        self._where = without_password(url)
        self._redis: Any = open_client(url)

    def claim(self, key: str, holder: str, *, now: float, lease_seconds: float) -> Claim:
        """See `ClaimStore`."""
        what, number = self._run(_CLAIM, key, holder, repr(now), repr(now + lease_seconds), _FORGET_MS)
        match what:
            case b"done":
                return Done()
            case b"held":
                return Held(float(number) - now)
        return Taken(int(number))

    def keep(self, key: str, holder: str, *, now: float, lease_seconds: float) -> None:
        """See `ClaimStore`."""
        self._run(_SET, key, holder, repr(now + lease_seconds), 0, _FORGET_MS)

    def done(self, key: str, holder: str, *, now: float, keep_seconds: float) -> None:
        """See `ClaimStore`."""
        self._run(_SET, key, holder, repr(now + keep_seconds), 1, max(1, round(keep_seconds * 1000)))

    def release(self, key: str, holder: str) -> None:
        """See `ClaimStore`."""
        self._run(_RELEASE, key, holder)

    def clean(self, *, now: float) -> None:
        """See `ClaimStore`: the server does it."""

    def close(self) -> None:
        """See `ClaimStore`."""
        self._redis.close()

    def _run(self, script: str, key: str, *arguments: object) -> Any:
        try:
            return self._redis.eval(script, 1, PREFIX + key, *arguments)
        except RedisError as error:
            raise ClaimStoreUnavailable(f"the claims in {self._where}: {error}") from error
