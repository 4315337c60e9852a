"""Results of tasks in Redis, under the keys and in the order of writes that Celery's Redis backend uses.

A document lies under `celery-task-meta-<task id>` and is published on a channel of the same name in the same
transaction, so Celery's `AsyncResult` wakes for what Lightbus stores, and the other way round.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis import Redis
from redis import exceptions as redis_errors
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from ..core.errors import AccessRefused, BrokerUnreachable, ConfigError, NotConfirmed
from .redis_chords import RedisChords

KEY_PREFIX = "celery-task-meta-"
#: A waiter looks at the key that often even when no notice comes: PUB/SUB keeps nothing for a broken connection.
LOOK_EVERY_SECONDS = 1.0
CONNECT_TIMEOUT_SECONDS = 5.0
#: A command is repeated over about that long when the connection breaks; storing and reading may be repeated.
RETRIES = 6

T = TypeVar("T")


class RedisResults:
    """See `ports.ResultBackend`. Thread-safe, and usable after a fork.

    Args:
        url: `redis://` or `rediss://`, also with Celery's `ssl_cert_reqs=CERT_NONE` notation.
        global_keyprefix: the same as in Celery's `result_backend_transport_options`. Celery before 5.5 adds a "_" also
            to one that ends in ":", "-" or ".": beside it, write that "_" here.
    """

    def __init__(self, url: str, *, global_keyprefix: str = "") -> None:
        if global_keyprefix and global_keyprefix[-1] not in ":_-.":
            global_keyprefix += "_"  # as Celery does since 5.5
        self._prefix = global_keyprefix + KEY_PREFIX
        self._where = urlsplit(url)._replace(netloc=urlsplit(url).netloc.rpartition("@")[2]).geturl()
        try:
            self._redis: Any = Redis.from_url(
                _plain_ssl(url),
                socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
                socket_timeout=10.0,
                socket_keepalive=True,
                health_check_interval=25,
                protocol=2,
                retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), RETRIES),
            )
        except ValueError as error:
            raise ConfigError(f"{self._where!r} is no URL of a Redis: {error}") from error
        chords = RedisChords(self._redis, global_keyprefix, self._carry_out)
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

    def fetch(self, task_id: str) -> bytes | None:
        def read() -> bytes | None:
            document: bytes | None = self._redis.get(self._prefix + task_id)
            return document

        return self._carry_out(read)

    def wait(self, task_id: str, *, timeout_seconds: float) -> bytes | None:
        """See `ports.ResultBackend.wait`. Subscribes first and reads then, so nothing falls between the two."""
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


def _plain_ssl(url: str) -> str:
    """Celery writes the names of Python's constants, redis-py wants its own words."""
    parts = urlsplit(url)
    words = {"CERT_NONE": "none", "CERT_OPTIONAL": "optional", "CERT_REQUIRED": "required"}
    query = [(name, words.get(value, value)) for name, value in parse_qsl(parts.query)]
    return urlunsplit(parts._replace(query=urlencode(query)))
