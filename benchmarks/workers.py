"""How fast one worker drains a queue of no-op tasks, and what it costs: on RabbitMQ, Redis and the embedded broker."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import filling
from measure import HERE, Figure, Figures, Section, Setting, cpu_seconds, start, stop, wait_until

FIGURES = (
    Figure("tasks_per_second", "tasks/s", ratio=True, plot=True),
    Figure("cpu_seconds_per_10k", "CPU s per 10,000 tasks", plot=True),
)
PREFETCH = "500"

#: Fills the candidate's queue with that many tasks; a program gets the file that its tasks write to.
Fill = Callable[[int, Path], None]


@dataclass(frozen=True)
class Candidate:
    """A worker's command line, and how its queue is filled before it starts."""

    url: str
    arguments: Sequence[str]
    fill: Fill
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self, folder: Path, done: Path) -> Any:
        """The worker, under way."""
        return start(self.arguments, {**filling.environment_of(self.url, done), **self.environment}, folder / "log")


def sections(setting: Setting) -> Iterator[Section]:
    """One table per broker."""
    template = filling.celery_message(setting.redis_url)
    embedded = embedded_url(setting)
    for name, title, candidates in (
        ("workers-rabbitmq", "Workers on RabbitMQ", on_rabbitmq(setting.amqp_url, template)),
        ("workers-redis", "Workers on Redis", on_redis(setting.redis_url, template)),
        ("workers-embedded", "Workers on the embedded broker", on_embedded(embedded, template)),
    ):
        turns = {name: partial(drain, candidate, setting) for name, candidate in candidates.items()}
        yield Section(name, title, FIGURES).run(turns, setting)


def embedded_url(setting: Setting) -> str:
    return f"sqlite:///{setting.folder}/{uuid.uuid4().hex}.db"


def on_rabbitmq(url: str, template: Mapping[str, Any]) -> dict[str, Candidate]:
    celery = partial(filled, filling.fill_amqp, url, [filling.CELERY_QUEUE], template)
    raw = partial(filled, filling.fill_amqp, url, [filling.RAW_QUEUE], template)
    return {
        "raw py-amqp, acks by 50": Candidate(url, [str(HERE / "bench_tasks_raw.py")], raw),
        "lightbus, 1 process": lightbus(url, 1, template, filling.fill_amqp),
        "lightbus, 2 processes": lightbus(url, 2, template, filling.fill_amqp),
        "lightbus, events, 1 process": Candidate(
            url, lightbus_arguments("bench_events_lightbus", 1), partial(_by_program, "bench_events_lightbus.py", url)
        ),
        "celery prefork -c 1": Candidate(url, _celery("prefork", 1), celery),
        "celery prefork -c 2": Candidate(url, _celery("prefork", 2), celery),
        "celery solo": Candidate(url, _celery("solo", 1), celery),
        "dramatiq -p 1 -t 8": _dramatiq(url, 1),
        "dramatiq -p 2 -t 8": _dramatiq(url, 2),
    }


def on_redis(url: str, template: Mapping[str, Any]) -> dict[str, Candidate]:
    celery = partial(filled, filling.fill_redis, url, [filling.CELERY_QUEUE], template)
    huey = ["-m", "huey.bin.huey_consumer", "bench_tasks_huey.huey", "-k", "thread", "-q"]
    fill_huey = partial(_by_program, "bench_tasks_huey.py", url)
    return {
        "celery prefork -c 1": Candidate(url, _celery("prefork", 1), celery),
        "celery solo": Candidate(url, _celery("solo", 1), celery),
        "huey, 1 thread": Candidate(url, [*huey, "-w", "1"], fill_huey),
        "huey, 8 threads": Candidate(url, [*huey, "-w", "8"], fill_huey),
        "dramatiq -p 1 -t 8": _dramatiq(url, 1),
        "lightbus, 1 process": lightbus(url, 1, template, filling.fill_redis),
        "lightbus, 2 processes": lightbus(url, 2, template, filling.fill_redis),
    }


def on_embedded(url: str, template: Mapping[str, Any]) -> dict[str, Candidate]:
    return {
        "lightbus, 1 process": lightbus(url, 1, template, filling.fill_embedded),
        "lightbus, 2 processes": lightbus(url, 2, template, filling.fill_embedded),
    }


def lightbus(url: str, processes: int, template: Mapping[str, Any], fill: Callable[..., None]) -> Candidate:
    """The Lightbus worker of `bench_tasks_lightbus.py`."""
    arguments = [*lightbus_arguments("bench_tasks_lightbus", processes), "-Q", filling.LIGHTBUS_QUEUE]
    return Candidate(url, arguments, partial(filled, fill, url, [filling.LIGHTBUS_QUEUE], template))


def lightbus_arguments(app: str, processes: int) -> list[str]:
    """The command line of a Lightbus worker."""
    return [
        "-m", "lightbus.cli", "worker", "-A", app, "--processes", str(processes), "--prefetch", PREFETCH,
        "-l", "WARNING",
    ]  # fmt: skip


def _celery(pool: str, concurrency: int) -> list[str]:
    """Its prefetch is a multiple of its concurrency; this makes it the same as Lightbus's."""
    return [
        "-m", "celery", "-A", "bench_tasks_celery", "worker", "-P", pool, "-c", str(concurrency), "-l", "ERROR",
        "--prefetch-multiplier", PREFETCH,
    ]  # fmt: skip


def _dramatiq(url: str, processes: int) -> Candidate:
    arguments = ["-m", "dramatiq", "bench_tasks_dramatiq", "-p", str(processes), "-t", "8"]
    return Candidate(url, arguments, partial(_by_program, "bench_tasks_dramatiq.py", url))


def filled(
    fill: Callable[..., None], url: str, queues: Sequence[str], template: Mapping[str, Any], count: int, done: Path
) -> None:
    """A `Fill`, once its first four arguments are given."""
    fill(url, queues, count, template)


def _by_program(program: str, url: str, count: int, done: Path) -> None:
    filling.fill_with_program(program, url, count, done)


def drain(candidate: Candidate, setting: Setting, messages: int | None = None) -> Figures:
    """One turn: from the first finished task to the last.

    Raises:
        RuntimeError: more tasks ran than were queued.
    """
    wanted = messages or setting.messages
    done = setting.folder / f"done-{uuid.uuid4().hex}"
    done.touch()
    candidate.fill(wanted, done)
    worker = candidate.start(setting.folder, done)
    try:
        wait_until(lambda: done.stat().st_size > 0, f"the first task (log in {setting.folder})")
        began, cpu = time.perf_counter(), cpu_seconds(worker.pid)
        first = done.stat().st_size
        wait_until(lambda: done.stat().st_size >= wanted, f"{wanted} tasks (log in {setting.folder})", 300)
        seconds = time.perf_counter() - began
        used = cpu_seconds(worker.pid) - cpu
        if done.stat().st_size != wanted:
            raise RuntimeError(
                f"{wanted} tasks were sent and {done.stat().st_size} ran: {' '.join(candidate.arguments)}"
            )
    finally:
        stop(worker)
    counted = max(1, wanted - first)
    return {"tasks_per_second": counted / seconds, "cpu_seconds_per_10k": used / counted * 10_000}
