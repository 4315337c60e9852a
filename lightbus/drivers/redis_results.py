"""Results of tasks in Redis, under the keys and in the order of writes that Celery's Redis backend uses.

A document lies under `celery-task-meta-<task id>` and is published on a channel of the same name in the same
transaction, so Celery's `AsyncResult` wakes for what Lightbus stores, and the other way round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from redis import exceptions as redis_errors
from redis.exceptions import RedisError

from ..core.errors import AccessRefused, BrokerUnreachable, NotConfirmed
from .redis_chords import GROUP_PREFIX, RedisChords
from .redis_client import NO_OPTIONS, open_client, without_password

KEY_PREFIX = "celery-task-meta-"
#: A waiter looks at the key that often even when no notice comes: PUB/SUB keeps nothing for a broken connection.
LOOK_EVERY_SECONDS = 1.0

T = TypeVar("T")

#: KEYS: of the document. ARGV: the document, expiry in seconds or 0. Celery writes the status first, so how it begins
#: tells what a document says; one that begins differently is the caller's to read.
STORE_UNLESS_SUCCESS = """
local kept = redis.call('GET', KEYS[1])
if kept then
  if string.sub(kept, 1, 20) == '{"status": "SUCCESS"' then return false end
  if string.sub(kept, 1, 12) ~= '{"status": "' then return kept end
end
if ARGV[2] == '0' then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
end
redis.call('PUBLISH', KEYS[1], ARGV[1])
return false
"""


class RedisResults:
    """See `result_ports.ResultBackend`. Thread-safe, and usable after a fork.

    Args:
        url: see `redis_client.open_client`.
        options: those of `redis_client.open_client`, and `global_keyprefix` and `result_chord_ordered`, the same as in
            Celery's `result_backend_transport_options`. Celery before 5.5 adds a "_" also to a prefix that ends in ":",
            "-" or ".": beside it, write that "_" here.
    """

    def __init__(self, url: str, options: Mapping[str, object] = NO_OPTIONS) -> None:
        global_keyprefix = str(options.get("global_keyprefix") or "")
        if global_keyprefix and global_keyprefix[-1] not in ":_-.":
            global_keyprefix += "_"  # as Celery does since 5.5
        self._prefix = global_keyprefix + KEY_PREFIX
        self._group_prefix = global_keyprefix + GROUP_PREFIX
        self._where = without_password(url)
        self._redis: Any = open_client(url, options)
        self._store_unless_success: Any = self._redis.register_script(STORE_UNLESS_SUCCESS)
        ordered = bool(options.get("result_chord_ordered", True))
        chords = RedisChords(self._redis, global_keyprefix, self._carry_out, ordered=ordered)
        self.begin_chord, self.extend_chord = chords.begin_chord, chords.extend_chord
        self.count_part, self.end_chord = chords.count_part, chords.end_chord

    def store(self, task_id: str, document: bytes, *, expires_seconds: float | None) -> None:
        key = self._prefix + task_id

        def write() -> None:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.set(key, document, ex=None if expires_seconds is None else max(1, round(expires_seconds)))
                pipe.publish(key, document)
                pipe.execute()

        self._carry_out(write)

    def store_unless_success(self, task_id: str, document: bytes, *, expires_seconds: float | None) -> bytes | None:
        """See `ports.KeepsSuccess`."""
        expiry = 0 if expires_seconds is None else max(1, round(expires_seconds))

        def write() -> bytes | None:
            kept: bytes | None = self._store_unless_success((self._prefix + task_id,), (document, expiry))
            return kept

        return self._carry_out(write)

    def fetch(self, task_id: str) -> bytes | None:
        def read() -> bytes | None:
            document: bytes | None = self._redis.get(self._prefix + task_id)
            return document

        return self._carry_out(read)

    def wait(self, task_id: str, *, timeout_seconds: float) -> bytes | None:
        """See `result_ports.ResultBackend.wait`. Subscribes first and reads then, so nothing falls between the two."""
        key = self._prefix + task_id
        deadline = time.monotonic() + timeout_seconds

        def listen() -> bytes | None:
            with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                pubsub.subscribe(key)
                before = self._redis.get(key)
                current: bytes | None = before
                while current in (before, None) and (left := deadline - time.monotonic()) > 0:
                    notice = pubsub.get_message(timeout=min(left, LOOK_EVERY_SECONDS))
                    if notice is not None and notice["type"] == "message":
                        published: bytes = notice["data"]
                        return published
                    if notice is None:
                        current = self._redis.get(key)
                return current

        return self._carry_out(listen)

    def forget(self, task_id: str) -> None:
        self._carry_out(lambda: self._redis.delete(self._prefix + task_id))

    def store_group(self, group_id: str, document: bytes, *, expires_seconds: float | None) -> None:
        expiry = None if expires_seconds is None else max(1, round(expires_seconds))
        self._carry_out(lambda: self._redis.set(self._group_prefix + group_id, document, ex=expiry))

    def fetch_group(self, group_id: str) -> bytes | None:
        def read() -> bytes | None:
            document: bytes | None = self._redis.get(self._group_prefix + group_id)
            return document

        return self._carry_out(read)

    def forget_group(self, group_id: str) -> None:
        self._carry_out(lambda: self._redis.delete(self._group_prefix + group_id))

    def close(self) -> None:
        self._redis.close()

    def _carry_out(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except (redis_errors.AuthenticationError, redis_errors.NoPermissionError) as error:
            raise AccessRefused(f"{self._where} refused the user, the password or a command: {error}") from error
        except (redis_errors.ConnectionError, redis_errors.TimeoutError, OSError) as error:
            raise BrokerUnreachable(f"no connection to the results in {self._where}: {error}") from error
        except RedisError as error:
            if "NOAUTH" in str(error) or "WRONGPASS" in str(error):
                raise AccessRefused(f"{self._where} refused the password: {error}") from error
            raise NotConfirmed(f"{self._where} refused a command: {error}") from error
