"""Puts messages into queues as a client in another language could: past kombu, which refuses to write many of them."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import amqp
import kombu
import redis

from lightbus.drivers.sqlite.store import Envelope, Store
from lightbus.drivers.sqlite.wake import Waker
from tests.hostile import Hostile


class RawAmqp:
    """Frames by py-amqp."""

    def __init__(self, url: str) -> None:
        self._connection = kombu.Connection(url)
        self._channel: Any = self._connection.channel()

    def takes(self, case: Hostile) -> bool:
        return case.is_amqp

    def send(self, case: Hostile, queue: str) -> None:
        message = amqp.Message(case.body, application_headers=dict(case.headers), **case.properties)
        self._channel.basic_publish(message, routing_key=queue)

    def close(self) -> None:
        self._connection.close()


class RawRedis:
    """Entries of kombu's lists."""

    #: What is no envelope at all.
    garbage = (b"", b"\xff\x00", b"[]", b"{}", b'{"properties": 7}', b"[" * 100_000, b'{"body": 7, "properties": {}}')

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url)

    def takes(self, case: Hostile) -> bool:
        return case.is_json

    def send(self, case: Hostile, queue: str) -> None:
        properties = {key: value for key, value in case.properties.items() if not key.startswith("content")}
        envelope = {
            "body": base64.b64encode(case.body).decode(),
            "content-type": case.properties.get("content_type"),
            "content-encoding": case.properties.get("content_encoding"),
            "headers": dict(case.headers),
            "properties": {**properties, "body_encoding": "base64", "delivery_tag": str(uuid.uuid4())},
        }
        self._redis.lpush(queue, json.dumps(envelope))

    def send_garbage(self, garbage: bytes, queue: str) -> None:
        self._redis.lpush(queue, garbage)

    def close(self) -> None:
        self._redis.close()


class RawSqlite:
    """Rows of the embedded broker."""

    def __init__(self, url: str) -> None:
        self._store = Store(url.removeprefix("sqlite:///"), Waker())

    def takes(self, case: Hostile) -> bool:
        return case.is_json

    def send(self, case: Hostile, queue: str) -> None:
        kind, encoding = case.properties.get("content_type"), case.properties.get("content_encoding")
        properties = {key: value for key, value in case.properties.items() if not key.startswith("content")}
        content = json.dumps([kind, encoding, dict(case.headers), properties, "", queue])
        assert self._store.publish("", queue, Envelope(content, case.body)) == 1

    def close(self) -> None:
        self._store.close()


def raw(url: str) -> RawAmqp | RawRedis | RawSqlite:
    """By the broker of `url`."""
    if url.startswith("sqlite"):
        return RawSqlite(url)
    return RawRedis(url) if url.startswith("redis") else RawAmqp(url)
