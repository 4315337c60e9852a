"""A queue of very many equal messages, in a few seconds: past every client, as nothing has to be known of each."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Callable
from typing import Any

import kombu
import redis

from lightbus.core.message import Route
from lightbus.drivers.kombu.amqp_outgoing import frames_of
from lightbus.ports import Transport

AT_ONCE = 1000


def copier(transport: Transport, url: str, queue: str) -> Callable[[int], None]:
    """Takes the one message of `queue` away; gives what puts so many thousand copies of it there."""
    if url.startswith("redis"):
        return _redis_copier(url, queue)
    if url.startswith("sqlite"):
        return _sqlite_copier(url, queue)
    return _amqp_copier(transport, url, queue)


def _amqp_copier(transport: Transport, url: str, queue: str) -> Callable[[int], None]:
    delivery = transport.get(queue)
    assert delivery is not None
    delivery.ack()

    def put(thousands: int) -> None:
        # The broker pauses a sender that is faster than its disk, and py-amqp has the kernel give up after a second.
        patient = {"socket_settings": {socket.TCP_USER_TIMEOUT: 120_000}}
        with kombu.Connection(url, transport_options=patient) as connection:
            channel: Any = connection.channel()
            frames = frames_of(
                delivery.wire, Route("", queue), channel=channel.channel_id, mandatory=False, frame_max=131072
            )
            assert frames is not None
            for _ in range(thousands):
                channel.connection.transport.write(frames * AT_ONCE)
                channel.queue_declare(queue, passive=True)  # the answer comes when they were read

    return put


def _redis_copier(url: str, queue: str) -> Callable[[int], None]:
    with redis.Redis.from_url(url) as server:
        raw: Any = server.rpop(queue)
    assert raw is not None

    def put(thousands: int) -> None:
        with redis.Redis.from_url(url) as server:
            for _ in range(thousands):
                server.lpush(queue, *[raw] * AT_ONCE)

    return put


def _sqlite_copier(url: str, queue: str) -> Callable[[int], None]:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(url.removeprefix("sqlite:///"), timeout=60)

    with connect() as file:
        (row,) = file.execute("DELETE FROM messages WHERE queue=? RETURNING rank, envelope, body", (queue,)).fetchall()
    file.close()

    def put(thousands: int) -> None:
        with connect() as file:
            sql = "INSERT INTO messages(queue, rank, envelope, body) VALUES(?,?,?,?)"
            file.executemany(sql, ((queue, *row) for _ in range(thousands * AT_ONCE)))
        file.close()

    return put
