"""Connections to one Redis: opened by kombu's rules for URLs and options, used with scripts.

A client never repeats a command by itself: a message that was perhaps written is repeated by the transport, which
marks it as a repeat.
"""

from __future__ import annotations

import select
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import kombu
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.retry import Retry

from ...core.errors import AccessRefused, NotConfirmed
from .redis_errors import connecting, talking
from .redis_layout import RedisLayout, Script
from .tls import tls_of

_DEFAULTS: Mapping[str, object] = {"socket_timeout": 10.0, "socket_connect_timeout": 5.0, "socket_keepalive": True}


class RedisClient:
    """One connection for commands and scripts. Not for several threads at a time.

    Attributes:
        where: the URL without its password.
        layout: names of keys.
    """

    def __init__(self, url: str, options: Mapping[str, object]) -> None:
        """Raises BrokerUnreachable, AccessRefused."""
        tls, others = tls_of(options)
        connection: Any = kombu.Connection(url, ssl=tls, transport_options={**_DEFAULTS, **others})
        self.where: str = connection.as_uri()
        with connecting(self.where):
            try:
                # `connect()` would pause for two seconds between its tries; pausing is the transport's business
                connection.ensure_connection(max_retries=1, interval_start=0, reraise_as_library_errors=False)
                channel = connection.channel()
                self.layout = RedisLayout(
                    channel.global_keyprefix, channel.sep, tuple(channel.priority_steps), channel.keyprefix_queue
                )
                self.pool = channel._get_pool()
                self._channel = channel  # closed below; it still knows the names of topics
            finally:
                connection.release()
            settings = self.pool.connection_kwargs
            settings.update(protocol=2, retry=Retry(NoBackoff(), 0))
            for name in [name for name in settings if name.startswith(("maint_notifications", "orig_"))]:
                del settings[name]  # redis-py sets these for protocol 3, and refuses them with 2
            self.redis: Any = Redis(connection_pool=self.pool, single_connection_client=True)
            self.redis.ping()

    def topics(self, exchange: str, routing_key: str) -> list[str]:
        """The PUB/SUB channels that kombu publishes to for a fanout exchange, by its own options and the URL."""
        if hasattr(
            self._channel, "_get_publish_topics"
        ):  # kombu 5.7: two of them while a fleet behind Sentinel changes
            topics = self._channel._get_publish_topics(exchange, routing_key)
        else:
            topics = [self._channel._get_publish_topic(exchange, routing_key)]
        return [self.layout.global_keyprefix + topic for topic in topics]

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """The answer of a Lua script."""
        with talking(self.where):
            # Straight on the connection: the client's own way costs as much again as the command.
            connection = self.redis.connection
            connection.send_command("EVALSHA", script.digest, len(keys), *keys, *arguments)
            try:
                return connection.read_response()
            except NoScriptError:
                connection.send_command("EVAL", script.text, len(keys), *keys, *arguments)
                return connection.read_response()

    def run_all(self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """The answers of several calls of a script, all carried out or none."""
        with talking(self.where):
            try:
                return self._run_all(script, calls, load=False)
            except NoScriptError:
                return self._run_all(script, calls, load=True)

    def _run_all(
        self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Any]]], *, load: bool
    ) -> list[Any]:
        with self.redis.pipeline(transaction=True) as pipe:
            if load:
                pipe.script_load(script.text)
            for keys, arguments in calls:
                pipe.execute_command("EVALSHA", script.digest, len(keys), *keys, *arguments)
            answers: list[Any] = pipe.execute()
        return answers[-len(calls) :]

    def close(self) -> None:
        with suppress(RedisError, OSError):
            self.redis.close()
        with suppress(RedisError, OSError):
            self.pool.disconnect()


class ChangeFeed:
    """Tells when a key that a client read has changed, without polling: CLIENT TRACKING of Redis 6.

    Only keys read since the last notice are told of, so whoever wants to wait reads them first (the script TAKE does).
    """

    def __init__(self, client: RedisClient) -> None:
        """Raises ResponseError: the server does not offer it."""
        self._connection: Any = client.pool.get_connection()
        try:
            with talking(client.where):
                self._connection.send_command("CLIENT", "ID")
                own_id = self._connection.read_response()
                self._connection.send_command("SUBSCRIBE", "__redis__:invalidate")
                self._connection.read_response()
                client.redis.execute_command("CLIENT", "TRACKING", "ON", "REDIRECT", own_id, "NOLOOP")
        except BaseException:
            self._connection.disconnect()
            raise
        self._where = client.where

    def fileno(self) -> int:
        """For select; raises ConnectionLost when the connection is gone."""
        with talking(self._where):
            if self._connection._sock is None:
                raise ConnectionError("it was closed")
            number: int = self._connection._sock.fileno()
            return number

    def drain(self) -> list[bytes] | None:
        """Read all notices: the keys that have changed, or None for any of them (the database was emptied)."""
        keys: list[bytes] | None = []
        with talking(self._where):
            while self._connection.can_read(timeout=0):
                told = self._connection.read_response(disable_decoding=True)[2]
                keys = None if told is None or keys is None else keys + told
        return keys

    def close(self) -> None:
        with suppress(RedisError, OSError):
            self._connection.disconnect()


def open_feed(client: RedisClient) -> ChangeFeed | None:
    """The server's notices of changes, or None where it has none and one has to look."""
    try:
        return ChangeFeed(client)
    except (AccessRefused, NotConfirmed, ResponseError):
        return None


def wait_readable(files: Sequence[int], timeout_seconds: float) -> list[int]:
    """Those of `files` that can be read, as soon as one can."""
    poller = select.poll()
    for file in files:
        poller.register(file, select.POLLIN)
    return [file for file, _ in poller.poll(max(0.0, timeout_seconds) * 1000.0)]
