"""Taking messages from Redis, and holding them: leases, waiting, and what others left behind.

A consumer waits without taking anything and without polling: the server tells it when a list that it found empty
changes (`redis_client.ChangeFeed`); then one script takes and notes. It asks only for the lists that may have something
(`redis_lists.Lists`), so that queues that have nothing cost nothing. While a message is held its lease is renewed; of a
consumer that was killed the leases end, and whoever sees it first puts the messages back.
"""

from __future__ import annotations

import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ...core.errors import ConnectionLost
from ...core.topology import Queue
from .redis_client import ChangeFeed, RedisClient, open_feed, wait_readable
from .redis_errors import talking
from .redis_layout import GIVE_BACK, KEEP, TAKE, unpack
from .redis_lists import Lists
from .session import Taken
from .wire import mark_redelivered, open_envelope

LEASE_SECONDS = 6.0
KEEP_EVERY_SECONDS = 1.0
#: What `get` hands out has no keeper; tools that look at one message are done within that long.
GET_LEASE_SECONDS = 60.0
SWEEP_EVERY_SECONDS = 60.0
#: Should a notice get lost, all lists are asked for again: so many in a second, and no list more often than that.
LOOKS_PER_SECOND = 400
#: How soon to look again where the server does not tell of changes (Redis before 6, some hosted ones).
POLL_SECONDS = 0.1
#: Lua cannot unpack endless arguments, and a long script keeps everybody else waiting.
MOST_AT_ONCE = 500
LEFT_BEHIND_AT_ONCE = 50  #: as in `KEEP`


class RedisTaker:
    """What one session holds, and how it waits for more. `wake` is for any thread, the rest for the session's."""

    def __init__(self, client: RedisClient, sweep: Callable[[], None]) -> None:
        self._client = client
        self._layout = client.layout
        self._sweep = sweep
        self._own_keys = [client.layout.key(name) for name in ("unacked", "unacked_index", "delayed")]
        # Every taking has a tag of its own: kombu's stays with the message, and a late acknowledgement of a
        # consumer that lost its lease would then take the message from the one that has it now.
        self._tag_prefix = uuid.uuid4().hex[:16] + ":"
        self._number = 0
        self._held: dict[str, None] = {}
        self._lists = Lists(client.layout, ())
        self._lifetimes: Mapping[str, int] = {}
        self._feed: ChangeFeed | None = None
        self._subscribed = False
        self._next_keep = self._next_look = 0.0
        self._next_sweep = time.monotonic() + SWEEP_EVERY_SECONDS
        self._next_due: float | None = None
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)

    def subscribe(self, queues: Sequence[Queue], lifetimes: Mapping[str, int], held: Iterable[str]) -> None:
        """Begin; `lifetimes` (ms) are of the queues that go when nobody keeps them."""
        self._lists = Lists(self._layout, queues)
        self._lifetimes = lifetimes
        self._held.update(dict.fromkeys(held))
        self._feed = open_feed(self._client)
        self._subscribed = True
        self._keep()

    def get(self, queue: str) -> Taken | None:
        taken = self._take(Lists(self._layout, [Queue(name=queue)]), [], 1, GET_LEASE_SECONDS)
        return taken[0] if taken else None

    def exchange(
        self, acks: Sequence[str], requeues: Sequence[str], limit: int, releases: Sequence[str]
    ) -> list[Taken]:
        """Settle, then take at most `limit` without waiting."""
        now = time.monotonic()
        if self._subscribed and (now >= self._next_keep or (self._next_due is not None and now >= self._next_due)):
            self._keep()
        if requeues:
            self._give_back(requeues)
        if releases:
            self._give_back(releases, flagged=False)
        acks = list(acks)
        while len(acks) > MOST_AT_ONCE:
            self._take(self._lists, acks[:MOST_AT_ONCE], 0, LEASE_SECONDS)
            acks = acks[MOST_AT_ONCE:]
        if self._feed is not None and limit > 0:
            self._hear(self._feed)
        if not acks and (limit <= 0 or not self._lists.promising):
            return []
        return self._take(self._lists, acks, min(limit, MOST_AT_ONCE), LEASE_SECONDS)

    def _hear(self, feed: ChangeFeed) -> bool:
        """Note the lists that have changed; False when none has."""
        keys = feed.drain()
        if keys is None:
            self._lists.look_at_all()
        else:
            self._lists.look_at(keys)
        return keys is None or bool(keys)

    def _take(self, lists: Lists, acks: Sequence[str], limit: int, lease_seconds: float) -> list[Taken]:
        groups = lists.turns() if limit > 0 else []
        asked = [one for group in groups for one in group]
        head = (self._tag_prefix, self._number, limit, round(lease_seconds * 1000))
        arguments = (*head, len(groups), *map(len, groups), *acks)
        due_ms, empty, *found = self._client.run(TAKE, [*self._own_keys, *(key for key, _ in asked)], arguments)
        self._note_due(due_ms)
        for tag in acks:
            self._held.pop(tag, None)
        if self._feed is not None:  # else nobody tells when they have something again
            lists.leave(asked[index - 1][0] for index in empty)
        taken = []
        for index, raw in zip(found[::2], found[1::2], strict=True):
            tag = f"{self._tag_prefix}{self._number}"
            self._number += 1
            self._held[tag] = None
            wire, redelivered = open_envelope(raw)
            taken.append(Taken(tag, wire, asked[index - 1][1], redelivered))
        lists.had_turns(len(taken))
        return taken

    def _give_back(self, tags: Sequence[str], *, flagged: bool = True) -> None:
        """To the front of their queues, in the order in which they were there."""
        backwards = sorted(tags, key=lambda tag: int(tag.rpartition(":")[2]), reverse=True)
        with talking(self._client.where):
            values: Any = self._client.redis.hmget(self._own_keys[0], backwards)
        self._restore([(tag, value) for tag, value in zip(backwards, values, strict=True) if value], flagged=flagged)
        for tag in tags:
            self._held.pop(tag, None)

    def _restore(self, packed: Sequence[tuple[str, bytes]], *, flagged: bool = True) -> None:
        calls = []
        for tag, value in packed:
            list_key, raw = unpack(value)
            calls.append(([*self._own_keys[:2], list_key], (tag, mark_redelivered(raw) if flagged else raw)))
            self._lists.look_at([list_key.encode()])  # the server does not tell a client of its own changes
        if calls:
            self._client.run_all(GIVE_BACK, calls)

    def _keep(self) -> None:
        """Renew leases and lifetimes, move what is due, put back what the dead held."""
        now = time.monotonic()
        self._next_keep = now + KEEP_EVERY_SECONDS
        with talking(self._client.where), self._client.redis.pipeline(transaction=False) as pipe:
            for queue, life in self._lifetimes.items():
                pipe.set(self._layout.key(f"queue.{queue}"), life, px=life)
                for key in self._layout.list_keys(queue):
                    pipe.pexpire(key, life)
            if self._lifetimes:
                pipe.execute()
        held = list(self._held)
        left_behind: list[tuple[str, bytes]] = []
        pieces = deque(held[start : start + MOST_AT_ONCE] for start in range(0, max(1, len(held)), MOST_AT_ONCE))
        while pieces:
            arguments = (round(LEASE_SECONDS * 1000), *pieces.popleft())
            due_ms, changed, *found = self._client.run(KEEP, self._own_keys, arguments)
            if not pieces and len(found) == 2 * LEFT_BEHIND_AT_ONCE:
                pieces.append([])  # there may be more, and a lane must not be read before all of it is back
            self._note_due(due_ms)
            self._lists.look_at(changed)
            left_behind += [
                (tag.decode(), value)
                for tag, value in zip(found[::2], found[1::2], strict=True)
                if tag.decode() not in self._held
            ]
        if now >= self._next_look:
            self._next_look = now + max(1.0, len(self._lists) / LOOKS_PER_SECOND)
            self._lists.look_at_all()
        left_behind.sort(key=lambda item: int(item[0].rpartition(":")[2]), reverse=True)
        self._restore(left_behind)
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_EVERY_SECONDS
            self._sweep()

    def _note_due(self, due_ms: int) -> None:
        self._next_due = None if due_ms < 0 else time.monotonic() + due_ms / 1000.0

    def wait(self, timeout_seconds: float) -> None:
        now = time.monotonic()
        until = min(now + timeout_seconds, self._next_keep)
        if self._next_due is not None:
            until = min(until, self._next_due)
        files = [self._wake_reader]
        if self._feed is None:
            until = min(until, now + POLL_SECONDS)
        else:
            if self._hear(self._feed):
                return
            files.append(self._feed.fileno())
        ready = wait_readable(files, until - now)
        if self._wake_reader in ready:
            os.read(self._wake_reader, 65536)
        if self._feed is not None and len(ready) > (self._wake_reader in ready) and not self._hear(self._feed):
            raise ConnectionLost(f"{self._client.where} closed the connection")

    def wake(self) -> None:
        with suppress(OSError):  # the pipe is full of wake-ups already
            os.write(self._wake_writer, b"w")

    def give_back_all(self) -> None:
        """Hand back everything that is still held."""
        if self._held:
            self._give_back(list(self._held))

    def close(self) -> None:
        if self._feed is not None:
            self._feed.close()
        # The writer stays open until the object goes: another thread may be about to write, and the number of a
        # closed pipe may be another file's by then.
        self._held.clear()

    def __del__(self) -> None:
        os.close(self._wake_reader)
        os.close(self._wake_writer)
