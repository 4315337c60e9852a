"""The schedule on Redis: one script looks whether this process leads, notes the decisions and fills the queues.

    lightbus.schedule.leader     the leader's term; goes by itself after LEASE_SECONDS
    lightbus.schedule.records    hash: entry id -> record
    lightbus.schedule.commands   list of commands, the oldest first

The messages lie where kombu would have put them, so Celery's workers take them as any other. A leader that stood still
finds its term gone: its script writes nothing.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ...core.errors import NotLeading, TransportError
from ...core.message import Parcel, Route
from ..sqlite.schedule import read_record
from .redis import envelope_bytes
from .redis_client import RedisClient
from .redis_errors import talking
from .redis_layout import RedisLayout, Script, pack
from .wire import envelope_of

LEASE_SECONDS = 1.0
_RENEW_AFTER = 0.25

#: KEYS: leader. ARGV: term so far, a new term, lease in ms. Gives the term of this process, or "".
LEAD = Script(
    """
local current = redis.call('GET', KEYS[1])
if current and current == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return current
end
if current then return '' end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return ARGV[2]
"""
)

#: KEYS: leader, records, commands, delayed, transient queues, then for each message its list and its queue's standing.
#: ARGV: term, lease in ms, number of records, entry and record ("" removes) in turn, number of commands done, those,
#: then for each message: itself, its queue, and 0, or its delay in ms and itself with its list's name (`pack`).
#: Gives 0, having written nothing, when the term has ended.
COMMIT = Script(
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local at = 4
for i = 1, tonumber(ARGV[3]) do
  if ARGV[at + 1] == '' then
    redis.call('HDEL', KEYS[2], ARGV[at])
  else
    redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1])
  end
  at = at + 2
end
local done = tonumber(ARGV[at])
for i = 1, done do redis.call('LREM', KEYS[3], 1, ARGV[at + i]) end
at = at + done + 1
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for key = 6, #KEYS, 2 do
  local delay = tonumber(ARGV[at + 2])
  if delay > 0 then
    redis.call('ZADD', KEYS[4], now + delay, ARGV[at])
  else
    local life = redis.call('GET', KEYS[key + 1])
    if life or redis.call('SISMEMBER', KEYS[5], ARGV[at + 1]) == 0 then
      redis.call('LPUSH', KEYS[key], ARGV[at])
      if life and life ~= '0' then redis.call('PEXPIRE', KEYS[key], life) end
    end
  end
  at = at + 3
end
return 1
"""
)


class RedisScheduleStore:
    """See `ports.ScheduleStore`. For one thread."""

    def __init__(self, url: str, options: Mapping[str, object]) -> None:
        self._url = url
        self._options = {key: value for key, value in options.items() if key != "publish_timeout_seconds"}
        self._open_client: RedisClient | None = None
        self._term = ""
        self._renew_at = 0.0

    @property
    def _client(self) -> RedisClient:
        if self._open_client is None:
            self._open_client = RedisClient(self._url, self._options)
        return self._open_client

    def lead(self) -> str:
        now = time.monotonic()
        if self._term and now < self._renew_at:
            return self._term
        lease_ms = round(LEASE_SECONDS * 1000)
        answer = self._client.run(LEAD, [self._key("leader")], [self._term, uuid.uuid4().hex, lease_ms])
        self._term = answer.decode() if isinstance(answer, bytes) else str(answer)
        self._renew_at = now + LEASE_SECONDS * _RENEW_AFTER
        return self._term

    def load(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        with talking(self._client.where):
            for name, text in self._client.redis.hscan_iter(self._key("records"), count=1000):
                entry_id = name.decode()
                yield entry_id, read_record(entry_id, text, self._client.where)

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return dict(self.load())

    def commands(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        with talking(self._client.where):
            waiting = self._client.redis.lrange(self._key("commands"), 0, 99)
        return [(text.decode(), json.loads(text)) for text in waiting]

    def commit(
        self, records: Mapping[str, Mapping[str, Any] | None], messages: Sequence[Parcel], done: Sequence[str] = ()
    ) -> None:
        layout = self._client.layout
        keys = [self._key("leader"), self._key("records"), self._key("commands"), layout.key("delayed"),
                layout.key("transient")]  # fmt: skip
        arguments: list[Any] = [self._term or "nobody", round(LEASE_SECONDS * 1000), len(records)]
        for entry_id, record in records.items():
            arguments += [entry_id, "" if record is None else msgspec.json.encode(record)]
        arguments += [len(done), *done]
        bound: dict[Route, list[str]] = {}
        for parcel in messages:
            for queue in self._queues_of(parcel.route, bound):
                list_key = layout.list_key(queue, parcel.wire.priority)
                keys += [list_key, layout.key(f"queue.{queue}")]
                arguments += _message_arguments(parcel, queue, list_key)
        placed = self._client.run(COMMIT, keys, arguments)
        self._renew_at = time.monotonic() + LEASE_SECONDS * _RENEW_AFTER
        if not placed:
            self._term = ""
            raise NotLeading(f"another process leads the schedule on {self._client.where} now")

    def _queues_of(self, route: Route, known: dict[Route, list[str]]) -> list[str]:
        if not route.exchange:
            return [route.routing_key]
        if route not in known:
            known[route] = _bound_queues(self._client, route)
        return known[route]

    def post(self, command: Mapping[str, Any]) -> None:
        with talking(self._client.where):
            self._client.redis.rpush(self._key("commands"), json.dumps(command))

    def is_waiting(self, request: str) -> bool:
        return any(command.get("request") == request for _, command in self.commands())

    def reset(self) -> None:
        with talking(self._client.where):
            self._client.redis.delete(self._key("records"), self._key("commands"))

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def resign(self) -> None:
        client, self._open_client = self._open_client, None
        if client is None:
            return
        try:
            if self._term:
                with talking(client.where):
                    leader = client.layout.key("schedule.leader")
                    client.redis.eval(
                        "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end", 1, leader,
                        self._term,
                    )  # fmt: skip
        except TransportError:
            pass  # its lease ends by itself
        self._term = ""
        client.close()

    def _key(self, name: str) -> str:
        layout: RedisLayout = self._client.layout
        return layout.key(f"schedule.{name}")


def _bound_queues(client: RedisClient, route: Route) -> list[str]:
    layout = client.layout
    with talking(client.where), client.redis.pipeline(transaction=False) as pipe:
        pipe.get(layout.key(f"exchange.{route.exchange}"))
        pipe.smembers(layout.binding_key(route.exchange))
        kind, members = pipe.execute()
    return layout.queues_for(list(members), (kind or b"").decode(), route.routing_key)


def _message_arguments(parcel: Parcel, queue: str, list_key: str) -> list[Any]:
    route = parcel.route
    raw = envelope_bytes(envelope_of(parcel.wire, route.exchange, route.routing_key, uuid.uuid4().hex))
    if parcel.delay_seconds > 0:
        return [pack(list_key, raw), queue, round(parcel.delay_seconds * 1000)]
    return [raw, queue, 0]
