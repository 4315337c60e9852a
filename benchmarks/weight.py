"""What a worker weighs: seconds to its first task, memory, and what it does while there is nothing to do."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from functools import partial

import filling
import workers
from measure import Figure, Figures, Section, Setting, cpu_seconds, stop, tree, wait_until

FIGURES = (
    Figure("first_task_seconds", "start to first task done, s", ratio=True, plot=True),
    Figure("largest_rss_mib", "RSS of its largest process, MiB"),
    Figure("pss_mib", "PSS of all its processes, MiB", plot=True),
    Figure("processes", "processes"),
    Figure("idle_cpu_percent", "idle CPU, %"),
)
IDLE_SECONDS_PER_THOUSAND = 1.0
MIB = 1024 * 1024


def sections(setting: Setting) -> Iterator[Section]:
    """One table."""
    template = filling.celery_message(setting.redis_url)
    candidates = {
        f"{name}, {broker}": candidate
        for broker, found in (
            ("RabbitMQ", workers.on_rabbitmq(setting.amqp_url, template)),
            ("Redis", workers.on_redis(setting.redis_url, template)),
            ("embedded", workers.on_embedded(workers.embedded_url(setting), template)),
        )
        for name, candidate in found.items()
        if "events" not in name
    }
    first = "lightbus, 1 process, RabbitMQ"
    ordered = {first: candidates.pop(first), **candidates}
    turns = {name: partial(_turn, candidate, setting) for name, candidate in ordered.items()}
    yield Section("weight", "Start and weight of a worker", FIGURES).run(turns, setting)


def _turn(candidate: workers.Candidate, setting: Setting) -> Figures:
    done = setting.folder / f"done-{uuid.uuid4().hex}"
    done.touch()
    candidate.fill(1, done)
    began = time.perf_counter()
    worker = candidate.start(setting.folder, done)
    try:
        wait_until(lambda: done.stat().st_size > 0, f"the first task (log in {setting.folder})")
        first_task_seconds = time.perf_counter() - began
        # Long enough for clock ticks of 10 ms to tell, and after the start: a pool is still growing then.
        idle_seconds = max(0.2, min(3.0, setting.messages / 1000 * IDLE_SECONDS_PER_THOUSAND))
        time.sleep(idle_seconds / 2)
        before = cpu_seconds(worker.pid)
        time.sleep(idle_seconds)
        idle = cpu_seconds(worker.pid) - before
        memory = [process.memory_full_info() for process in tree(worker.pid)]
    finally:
        stop(worker)
    return {
        "first_task_seconds": first_task_seconds,
        "largest_rss_mib": max(one.rss for one in memory) / MIB,
        "pss_mib": sum(one.pss for one in memory) / MIB,
        "processes": len(memory),
        "idle_cpu_percent": idle / idle_seconds * 100,
    }
