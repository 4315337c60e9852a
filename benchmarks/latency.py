"""How long a message is under way to a waiting `lightbus worker`, from `.delay()` to the task's first line."""

from __future__ import annotations

import statistics
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import redis
from filling import environment_of
from measure import HERE, Figure, Figures, Section, Setting, ask, start, stop, wait_until
from workers import embedded_url

FIGURES = (Figure("p50_ms", "p50 ms", plot=True), Figure("p99_ms", "p99 ms"))
MESSAGES = 200


def sections(setting: Setting) -> Iterator[Section]:
    """One table."""
    urls = {
        "lightbus on RabbitMQ": setting.amqp_url,
        "lightbus on Redis": setting.redis_url,
        "lightbus on the embedded broker": "",
    }
    turns = {name: partial(_turn, url, setting) for name, url in urls.items()}
    yield Section("latency", "One-way latency to a waiting worker", FIGURES).run(turns, setting)


def _turn(url: str, setting: Setting) -> Figures:
    if url.startswith("redis"):
        with redis.Redis.from_url(url) as server:
            server.flushdb()
    done = setting.folder / f"latency-{uuid.uuid4().hex}"
    done.touch()
    environment = environment_of(url or embedded_url(setting), done)
    worker = start(
        ["-m", "lightbus.cli", "worker", "-A", "bench_latency_lightbus", "--processes", "1", "-l", "WARNING"],
        environment, setting.folder / "log",
    )  # fmt: skip
    try:
        _send(1, environment, done)  # the worker is up
        done.write_text("")
        _send(min(MESSAGES, setting.messages), environment, done)
    finally:
        stop(worker)
    milliseconds = sorted(float(line) * 1000 for line in done.read_text().splitlines())
    return {"p50_ms": statistics.median(milliseconds), "p99_ms": milliseconds[int(len(milliseconds) * 0.99)]}


def _send(count: int, environment: dict[str, str], done: Path) -> None:
    ask([str(HERE / "bench_latency_lightbus.py"), str(count)], environment)
    wait_until(lambda: len(done.read_text().splitlines()) == count, f"{count} messages")
