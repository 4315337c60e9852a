"""Redis: kombu's queues, filled and declared with what Lightbus promises on top.

kombu reads the URL and the transport options (TLS, Sentinel, credentials, key prefix); the commands are our own, in
kombu's key formats (`redis_layout`). Taking is in `redis_take`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import kombu.utils.json
from kombu.transport.virtual.exchange import TopicExchange

from ...core.errors import TopologyMismatch, TransportError, Unroutable
from ...core.message import Route, Wire
from ...core.rate import MOST_DELAY_SECONDS, MOST_HELD_SECONDS, Turn
from ...core.topology import Exchange, Queue, Topology
from ...ports import Capabilities
from .redis_client import RedisClient
from .redis_errors import talking
from .redis_layout import DELAY, PERMIT, PUT, TURN, pack
from .redis_take import RedisTaker
from .session import Taken
from .wire import envelope_of

#: Of a queue that goes with its connection and has no lifetime of its own.
TRANSIENT_SECONDS = 60.0

CAPABILITIES = Capabilities(
    name="Redis",
    confirms=True,
    returns_unroutable=True,
    shared=True,
    persistent=True,
    delay_resolution_seconds=0.05,
    redelivery_seconds=8.0,  # a lease, and the round of the consumer that sees it end
    priorities=False,  # kombu's steps order by priority, but 0 comes first there
    expires=False,
    releases=True,
    rates=True,
    permits=True,
)


class RedisKind:
    """Opens sessions with one Redis; see `session.SessionKind`."""

    tags_survive = True

    def __init__(self, url: str, options: Mapping[str, object]) -> None:
        self._url = url
        self._options = options

    @property
    def capabilities(self) -> Capabilities:
        return CAPABILITIES

    def open(self) -> RedisSession:
        return RedisSession(RedisClient(self._url, self._options))


def lifetime_ms(queue: Queue) -> int:
    """How long a queue stands when it is not used; 0 for always."""
    if queue.expires_seconds is not None:
        return max(1, round(queue.expires_seconds * 1000))
    return round(TRANSIENT_SECONDS * 1000) if queue.exclusive or queue.auto_delete else 0


class RedisSession:
    """See `session.Session`."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._layout = client.layout
        self._taker = RedisTaker(client, self.sweep)

    def declare(self, topology: Topology) -> None:
        layout, redis = self._layout, self._client.redis
        for queue in topology.queues:
            if queue.passive and self.count(queue.name) is None:
                raise TopologyMismatch(f"queue {queue.name!r} was expected to exist already: declare it first")
        with talking(self._client.where), redis.pipeline(transaction=False) as pipe:
            for exchange in topology.exchanges:
                pipe.set(layout.key(f"exchange.{exchange.name}"), exchange.kind)
            for queue in topology.queues:
                if not queue.passive:
                    life = lifetime_ms(queue)
                    pipe.set(layout.key(f"queue.{queue.name}"), life, px=life or None)
                    (pipe.sadd if life else pipe.srem)(layout.key("transient"), queue.name)
            kinds = {exchange.name: exchange.kind for exchange in topology.exchanges}
            for binding in topology.bindings:
                kind = kinds.get(binding.exchange, "direct")
                # kombu's own pattern, so that a binding that kombu makes too is the same member of the set
                pattern = TopicExchange(None).key_to_pattern(binding.routing_key) if kind == "topic" else ""
                member = layout.binding_member(binding.routing_key, pattern, binding.queue)
                pipe.sadd(layout.binding_key(binding.exchange), member)
                pipe.sadd(layout.key(f"bindings.{binding.queue}"), json.dumps([binding.exchange, member]))
            pipe.execute()

    def publish(self, wire: Wire, route: Route, delay_seconds: float, mandatory: bool) -> None:
        raw = envelope_bytes(envelope_of(wire, route.exchange, route.routing_key, uuid.uuid4().hex))
        if delay_seconds > 0:
            place = self._layout.place_of(route, wire.priority)
            arguments = (pack(place, raw), round(delay_seconds * 1000))
            self._client.run(DELAY, [self._layout.key("delayed")], arguments)
            return
        if not route.exchange:
            # A message that may be forgotten (a reply, a call) does not wait in a queue that nobody declared.
            strict = mandatory or not wire.durable
            placed = self._client.run(PUT, *self._put_call(route.routing_key, raw, wire.priority, strict))
        else:
            queues = self._bound_queues(route)
            calls = [self._put_call(queue, raw, wire.priority, False) for queue in queues]
            placed = sum(self._client.run_all(PUT, calls)) if calls else 0
        if mandatory and not placed:
            raise Unroutable(f"no queue takes messages for exchange {route.exchange!r}, key {route.routing_key!r}")

    def announce(self, wire: Wire, exchange: Exchange, routing_key: str) -> None:
        raw = envelope_bytes(envelope_of(wire, exchange.name, routing_key, uuid.uuid4().hex))
        with talking(self._client.where):
            for topic in self._client.topics(exchange.name, routing_key):
                self._client.redis.publish(topic, raw)

    def _bound_queues(self, route: Route) -> list[str]:
        with talking(self._client.where), self._client.redis.pipeline(transaction=False) as pipe:
            pipe.get(self._layout.key(f"exchange.{route.exchange}"))
            pipe.smembers(self._layout.binding_key(route.exchange))
            kind, members = pipe.execute()
        return self._layout.queues_for(list(members), (kind or b"").decode(), route.routing_key)

    def _put_call(
        self, queue: str, raw: bytes, priority: int | None, strict: bool
    ) -> tuple[Sequence[str], Sequence[Any]]:
        layout = self._layout
        keys = [
            layout.key(f"queue.{queue}"), layout.key("transient"), layout.binding_key(queue),
            layout.list_key(queue, priority), *layout.list_keys(queue),
        ]  # fmt: skip
        return keys, (raw, int(strict), queue)

    def take_turn(self, name: str, interval_seconds: float, most_wait_seconds: float) -> Turn:
        arguments = (interval_seconds, most_wait_seconds, MOST_HELD_SECONDS, MOST_DELAY_SECONDS)
        granted, wait = self._client.run(TURN, [self._layout.key(f"rate.{name}")], arguments)
        return Turn(float(wait), granted=bool(granted))

    def hold_permit(self, name: str, holder: str, most: int, lease_seconds: float) -> bool:
        arguments = (holder, most, round(lease_seconds * 1000))
        return bool(self._client.run(PERMIT, [self._layout.key(f"permits.{name}")], arguments))

    def free_permit(self, name: str, holder: str) -> None:
        with talking(self._client.where):
            self._client.redis.zrem(self._layout.key(f"permits.{name}"), holder)

    def get(self, queue: str) -> Taken | None:
        return self._taker.get(queue)

    def count(self, queue: str) -> int | None:
        layout = self._layout
        with talking(self._client.where), self._client.redis.pipeline(transaction=False) as pipe:
            pipe.exists(layout.key(f"queue.{queue}"), layout.binding_key(queue))
            for key in layout.list_keys(queue):
                pipe.llen(key)
            stands, *lengths = pipe.execute()
        total = sum(lengths)
        return total if stands or total else None

    def delete(self, queue: str) -> None:
        layout, redis = self._layout, self._client.redis
        bindings_key = layout.key(f"bindings.{queue}")
        with talking(self._client.where):
            bindings = [json.loads(entry) for entry in redis.smembers(bindings_key)]
            with redis.pipeline(transaction=True) as pipe:
                for exchange, member in bindings:
                    pipe.srem(layout.binding_key(exchange), member)
                pipe.delete(layout.key(f"queue.{queue}"), bindings_key, *layout.list_keys(queue))
                pipe.srem(layout.key("transient"), queue)
                pipe.execute()

    def sweep(self) -> None:
        """Remove what is left of queues whose processes were killed."""
        layout, redis = self._layout, self._client.redis
        with talking(self._client.where):
            names = [name.decode() for name in redis.srandmember(layout.key("transient"), 50)]
            with redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.exists(layout.key(f"queue.{name}"))
                standing = pipe.execute()
        for name, stands in zip(names, standing, strict=True):
            if not stands:
                self.delete(name)

    def subscribe(self, queues: Sequence[Queue], prefetch: int, held: Iterable[str]) -> None:
        lifetimes = {queue.name: life for queue in queues if (life := lifetime_ms(queue)) and not queue.passive}
        self._taker.subscribe(queues, lifetimes, held)

    def set_prefetch(self, count: int) -> None:
        pass  # nothing is taken but by `exchange`

    def exchange(
        self, acks: Sequence[str], requeues: Sequence[str], limit: int, *, releases: Sequence[str] = ()
    ) -> list[Taken]:
        return self._taker.exchange(acks, requeues, limit, releases)

    def wait(self, timeout_seconds: float) -> None:
        self._taker.wait(timeout_seconds)

    def wake(self) -> None:
        self._taker.wake()

    def stop(self) -> None:
        pass  # nothing is taken but by `exchange`

    def close(self, *, hand_back: bool = True, gone: Sequence[Queue] = ()) -> None:
        try:
            if hand_back:
                self._taker.give_back_all()
            for queue in gone:
                self.delete(queue.name)
        except TransportError:
            pass  # the leases end by themselves, and the queues' lifetimes too
        self._taker.close()
        self._client.close()


def envelope_bytes(envelope: dict[str, Any]) -> bytes:
    """The envelope as it lies in a list."""
    try:
        return json.dumps(envelope).encode()
    except TypeError:  # a header that only kombu's JSON can write: a datetime, bytes
        text: str = kombu.utils.json.dumps(envelope)
        return text.encode()
