"""`lightbus beat` beside Celery's beat on Redis: start, weight and punctuality with few and with many entries.

All entries but one are crontabs that are far from due; the one is due every second, and what it sends is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import redis
from measure import Figure, Figures, Section, Setting, cpu_seconds, start, stop, tree

FIGURES = (
    Figure("first_firing_seconds", "start to first firing, s", ratio=True, plot=True),
    Figure("latest_ms", "latest second, ms", plot=True),
    Figure("idle_cpu_percent", "CPU at one firing per s, %"),
    Figure("rss_mib", "RSS, MiB", plot=True),
)
ENTRIES = (10, 1_000, 10_000, 100_000)
PROJECT = """
from datetime import timedelta

from celery import Celery
from celery.schedules import crontab

app = Celery("bench", broker={url!r})
app.conf.beat_schedule = {{
    f"entry-{{number}}": {{
        "task": "bench.none", "schedule": crontab(minute=number % 60, hour=number // 60 % 24, day_of_month=29,
                                                  month_of_year=2),
    }}
    for number in range({entries} - 1)
}}
app.conf.beat_schedule["second"] = {{"task": "bench.none", "schedule": timedelta(seconds=1)}}
app.conf.task_default_queue = "bench.schedule"
app.conf.beat_max_loop_interval = 1


@app.task(name="bench.none")
def none():
    pass
"""
COMMANDS = {
    "lightbus beat": ["-m", "lightbus.cli", "beat", "-A", "bench_project", "-l", "WARNING"],
    "celery beat": ["-m", "celery", "-A", "bench_project", "beat", "-s", "state", "-l", "WARNING"],
}


def sections(setting: Setting) -> Iterator[Section]:
    """One table."""
    sizes = [size for size in ENTRIES if size <= max(100, 40 * setting.messages)]
    turns = {
        f"{name}, {size:,} entries": partial(_turn, command, size, setting)
        for size in sizes
        for name, command in COMMANDS.items()
    }
    yield Section("schedule", "Schedules", FIGURES).run(turns, setting)


def _turn(command: list[str], entries: int, setting: Setting) -> Figures:
    folder = setting.folder / f"schedule-{time.monotonic_ns()}"
    folder.mkdir()
    (folder / "bench_project.py").write_text(PROJECT.format(url=setting.redis_url, entries=entries))
    with redis.Redis.from_url(setting.redis_url) as server:
        server.flushdb()
        began = time.perf_counter()
        process = start(command, {}, folder / "log")
        try:
            arrivals = [_arrival(server, 300)]
            before = cpu_seconds(process.pid)
            seconds = max(3, min(20, setting.messages // 150))
            arrivals += [_arrival(server, 60) for _ in range(seconds)]
            used = cpu_seconds(process.pid) - before
            rss = max(one.memory_info().rss for one in tree(process.pid))
        finally:
            stop(process)
    pauses = [after - earlier for earlier, after in pairwise(arrivals)]
    return {
        "first_firing_seconds": arrivals[0] - began,
        "latest_ms": max(0.00001, max(pauses) - 1.0) * 1000,
        "idle_cpu_percent": used / (arrivals[-1] - arrivals[0]) * 100,
        "rss_mib": rss / 1024 / 1024,
    }


def _arrival(server: redis.Redis, seconds: float) -> float:
    """When the next message came."""
    deadline = time.monotonic() + seconds
    while server.brpop(["bench.schedule"], timeout=1) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing was sent within {seconds:g} s")
    return time.perf_counter()
