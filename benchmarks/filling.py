"""Queues full of no-op tasks, before a worker starts: one message of a stock Celery producer, with fresh ids each."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import kombu
import redis
from measure import HERE, ask, wait_until

CELERY_QUEUE, LIGHTBUS_QUEUE, RAW_QUEUE = "bench", "lightbus.bench", "bench.raw"
TASK = "bench.noop"
BATCH = 1000


def celery_message(redis_url: str) -> dict[str, Any]:
    """What a stock Celery producer writes to Redis for `noop.delay(1, 2)`: kombu's envelope."""
    with redis.Redis.from_url(redis_url) as server:
        server.flushdb()
        environment = {"BENCH_BROKER_URL": redis_url, "BENCH_QUEUE": "bench.template"}
        ask(["-c", "from bench_tasks_celery import noop; noop.delay(1, 2)"], environment)
        raw = server.rpop("bench.template")
    if raw is None:
        raise RuntimeError("the message of Celery's producer is not in its queue")
    envelope: dict[str, Any] = json.loads(raw)
    return envelope


def fill_amqp(url: str, queues: Sequence[str], count: int, template: Mapping[str, Any], task: str = TASK) -> None:
    """Also purges what an earlier turn left there."""
    with kombu.Connection(url) as connection:
        channel = connection.channel()
        for queue in queues:
            if queue == CELERY_QUEUE:
                kombu.Queue(queue, kombu.Exchange(queue), queue)(channel).declare()
            else:
                kombu.Queue(queue)(channel).declare()
            channel.queue_purge(queue)
        _publish(channel, queues, count, template, task)

        def waiting() -> int:
            return sum(channel.queue_declare(queue, passive=True).message_count for queue in queues)

        wait_until(lambda: waiting() == count, "the queues to fill")


def fill_embedded(url: str, queues: Sequence[str], count: int, template: Mapping[str, Any], task: str = TASK) -> None:
    from lightbus.drivers import sqlite  # teaches kombu the scheme

    sqlite.register()
    with kombu.Connection(url) as connection:
        channel = connection.channel()
        for queue in queues:
            kombu.Queue(queue)(channel).declare()
        _publish(channel, queues, count, template, task)


def _publish(channel: Any, queues: Sequence[str], count: int, template: Mapping[str, Any], task: str) -> None:
    body = base64.b64decode(template["body"])
    own = ("delivery_info", "delivery_tag", "body_encoding", "priority")
    properties = {key: value for key, value in template["properties"].items() if key not in own}
    for number in range(count):
        task_id = str(uuid.uuid4())
        message = channel.prepare_message(
            body, content_type=template["content-type"], content_encoding=template["content-encoding"],
            headers={**template["headers"], "task": task, "id": task_id, "root_id": task_id},
            properties={**properties, "correlation_id": task_id},
        )  # fmt: skip
        channel.basic_publish(message, exchange="", routing_key=queues[number % len(queues)])


def fill_redis(url: str, queues: Sequence[str], count: int, template: Mapping[str, Any], task: str = TASK) -> None:
    """Empties the database first."""
    with redis.Redis.from_url(url) as server:
        server.flushdb()
        for first in range(0, count, BATCH):
            with server.pipeline(transaction=False) as pipe:
                for number in range(first, min(count, first + BATCH)):
                    pipe.lpush(queues[number % len(queues)], _renewed(template, task))
                pipe.execute()


def _renewed(template: Mapping[str, Any], task: str) -> str:
    task_id = str(uuid.uuid4())
    headers = {**template["headers"], "task": task, "id": task_id, "root_id": task_id}
    properties = {**template["properties"], "correlation_id": task_id, "delivery_tag": str(uuid.uuid4())}
    return json.dumps({**template, "headers": headers, "properties": properties})


def fill_with_program(program: str, url: str, count: int, done: Path) -> None:
    """The candidates with a format of their own queue their tasks themselves."""
    if url.startswith("redis"):
        with redis.Redis.from_url(url) as server:
            server.flushdb()
    ask([str(HERE / program), str(count)], environment_of(url, done))


def environment_of(url: str, done: Path) -> dict[str, str]:
    """What the programs `bench_*.py` read."""
    return {"BENCH_BROKER_URL": url, "LIGHTBUS_URL": url, "BENCH_DONE": str(done)}
