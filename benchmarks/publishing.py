"""How fast one process publishes: confirmed and not, tasks and events, on each broker."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import redis
from measure import HERE, Figure, Figures, Section, Setting, ask
from workers import embedded_url

FIGURES = (
    Figure("messages_per_second", "messages/s", ratio=True, plot=True),
    Figure("cpu_us", "CPU us per message in the publisher"),
)

#: Name in the table: way of `bench_publish.py`. The first is what the ratios refer to.
ON_RABBITMQ = {
    "celery .delay(), unconfirmed": "celery",
    "celery .delay(), rpc:// results": "celery-rpc-results",
    "celery .delay(), confirm_publish": "celery-confirmed",
    "dramatiq .send(), unconfirmed": "dramatiq",
    "lightbus .delay(), confirmed": "lightbus-delay",
    "lightbus .delay(), confirmed, 8 threads": "lightbus-delay-threads",
    "lightbus .delay(), confirmed together": "lightbus-delay-together",
    "lightbus .delay(), confirmed later": "lightbus-delay-later",
    "lightbus fire(), confirmed": "lightbus-fire",
    "lightbus fire_all(), confirmed": "lightbus-fire-all",
    "lightbus fire_async(), 500 gathered": "lightbus-fire-gathered",
    "raw py-amqp, confirmed in bulk": "raw-confirmed",
    "raw py-amqp, unconfirmed": "raw",
}
ON_REDIS = {
    "celery .delay()": "celery",
    "dramatiq .send()": "dramatiq",
    "huey call": "huey",
    "lightbus .delay()": "lightbus-delay",
    "lightbus fire()": "lightbus-fire",
}
ON_EMBEDDED = {"lightbus .delay()": "lightbus-delay", "lightbus fire()": "lightbus-fire"}


def sections(setting: Setting) -> Iterator[Section]:
    """One table per broker."""
    for name, title, url, ways in (
        ("publishing-rabbitmq", "Publishing to RabbitMQ, one process", setting.amqp_url, ON_RABBITMQ),
        ("publishing-redis", "Publishing to Redis, one process", setting.redis_url, ON_REDIS),
        ("publishing-embedded", "Publishing to the embedded broker, one process", "", ON_EMBEDDED),
    ):
        turns = {label: partial(_turn, way, url, setting) for label, way in ways.items()}
        yield Section(name, title, FIGURES).run(turns, setting)


def _turn(way: str, url: str, setting: Setting) -> Figures:
    if url.startswith("redis"):
        with redis.Redis.from_url(url) as server:
            server.flushdb()
    here = url or embedded_url(setting)
    environment = {"BENCH_BROKER_URL": here, "LIGHTBUS_URL": here}
    return ask([str(HERE / "bench_publish.py"), way, str(setting.messages)], environment)
