"""How long a chain and a chord take, from the call that sends them to their result, which lies in Redis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import redis
from measure import HERE, Figure, Figures, Section, Setting, ask, cpu_seconds, start, stop

FIGURES = (
    Figure("chain_seconds", "chain, s", ratio=True, plot=True),
    Figure("chord_seconds", "chord, s", ratio=True, plot=True),
    Figure("cpu_seconds", "CPU s of the worker"),
)
STEPS, TASKS = 100, 1000

CELERY = ["-m", "celery", "-A", "bench_canvas", "worker", "-l", "WARNING", "-P", "prefork", "-c"]
LIGHTBUS = ["-m", "lightbus.cli", "worker", "-A", "bench_canvas", "-l", "WARNING", "-c"]
#: Name in the table: whose side, and the worker's command line.
CANDIDATES = {
    "celery worker -c 1": ("celery", [*CELERY, "1"]),
    "lightbus worker -c 1": ("lightbus", [*LIGHTBUS, "1"]),
    "celery worker -c 2": ("celery", [*CELERY, "2"]),
    "lightbus worker -c 2": ("lightbus", [*LIGHTBUS, "2"]),
}


def sections(setting: Setting) -> Iterator[Section]:
    """One table per broker."""
    steps, tasks = min(STEPS, setting.messages), min(TASKS, setting.messages)
    for name, broker, url in (("redis", "Redis", setting.redis_url), ("rabbitmq", "RabbitMQ", setting.amqp_url)):
        turns = {
            candidate: partial(_turn, side, arguments, url, setting, (steps, tasks))
            for candidate, (side, arguments) in CANDIDATES.items()
        }
        title = f"A chain of {steps:,} and a chord of {tasks:,} on {broker}"
        yield Section(f"canvas-{name}", title, FIGURES).run(turns, setting)


def _turn(side: str, arguments: Sequence[str], url: str, setting: Setting, sizes: tuple[int, int]) -> Figures:
    with redis.Redis.from_url(setting.redis_url) as server:
        server.flushdb()
    environment = {"CANVAS_SIDE": side, "BENCH_BROKER_URL": url, "BENCH_RESULTS_URL": setting.redis_url}
    worker = start(arguments, environment, setting.folder / "log")
    try:
        figures = ask([str(HERE / "bench_canvas.py"), *map(str, sizes)], environment)
        return {**figures, "cpu_seconds": cpu_seconds(worker.pid)}
    finally:
        stop(worker)
