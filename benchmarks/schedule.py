"""`lightbus beat` beside Celery's beat on Redis: start, weight and punctuality with few and with many entries.

Waiting: all entries but one are crontabs that are far from due; the one is due five times a second, and what it sends
is waited for. `stored` are entries that were added at run time, which Celery's beat does not have. Where both read a
Celery project, the figures of both contain Celery's own objects for the entries.

How late a firing is: from the instant when it is due until this process has its message out of the queue. Lightbus's
slots lie on the clock, and the id of a message tells its slot. Celery's beat counts an interval from the run before, so
its instants are one interval after the message before, and what that one was late is forgiven.

Burst: all entries are due at every full minute, and the messages of one minute are counted as they come.
"""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from functools import partial
from itertools import pairwise

import redis
from measure import Figure, Figures, Section, Setting, cpu_seconds, start, stop, tree

from lightbus_scheduler import message_id

FIGURES = (
    Figure("first_firing_seconds", "start to first firing, s", ratio=True, plot=True),
    Figure("late_half_ms", "late: half of the firings at most, ms"),
    Figure("late_p99_ms", "99 % of them at most, ms", plot=True),
    Figure("cpu_percent", "CPU at 5 firings per s, %"),
    Figure("rss_mib", "RSS, MiB", plot=True),
)
BURST_FIGURES = (
    Figure("in_the_minute_percent", "sent within their minute, %", plot=True),
    Figure("half_ms", "half of them sent after, ms"),
    Figure("p99_ms", "99 % sent after, ms", plot=True),
    Figure("cpu_ms_each", "CPU each, ms"),
)
ENTRIES = (10, 1_000, 10_000, 100_000)
BURSTS = (1_000, 10_000)
MINUTE = 60.0
OFTEN, PERIOD = "often", 0.2
SETTLE_SECONDS = 3.0
LATEST_SECONDS = 120.0  #: a firing that is later than that counts as if it were on time for a later instant
PROJECT = """
from celery import Celery
from celery.schedules import crontab, schedule

app = Celery("bench", broker={url!r})
app.conf.beat_schedule = {{
    f"entry-{{number}}": {{
        "task": "bench.none", "schedule": crontab() if {burst} else crontab(
            minute=number % 60, hour=number // 60 % 24, day_of_month=29, month_of_year=2
        ),
    }}
    for number in range({entries})
}}
if not {burst}:
    app.conf.beat_schedule["often"] = {{"task": "bench.none", "schedule": schedule({period}, relative=True)}}
app.conf.task_default_queue = "bench.schedule"
app.conf.beat_max_loop_interval = 1


@app.task(name="bench.none")
def none():
    pass
"""
STORED_PROJECT = """
from lightbus.compat import Settings, default_app, task

default_app().configure(Settings(broker_url={url!r}, default_queue="bench.schedule"))


@task(name="bench.none", ignore_result=True)
def none():
    pass
"""
COMMANDS = {
    "lightbus beat": ["-m", "lightbus.cli", "beat", "-A", "bench_project", "-l", "WARNING"],
    "celery beat": ["-m", "celery", "-A", "bench_project", "beat", "-s", "state", "-l", "WARNING"],
}


def sections(setting: Setting) -> Iterator[Section]:
    """Two tables."""
    sizes = [size for size in ENTRIES if size <= max(100, 40 * setting.messages)]
    turns = {
        f"{name}, {size:,} entries": partial(_turn, command, size, setting)
        for size in sizes
        for name, command in COMMANDS.items()
    }
    turns |= {
        f"lightbus beat, {size:,} entries, stored": partial(_turn, COMMANDS["lightbus beat"], size, setting, True)
        for size in sizes
    }
    yield Section("schedule", "Schedules: one entry due five times a second", FIGURES).run(turns, setting)
    bursts = {
        f"{name}, {size:,} entries": partial(_burst, command, size, setting)
        for size in BURSTS
        if size in sizes
        for name, command in COMMANDS.items()
    }
    yield Section("schedule-burst", "Schedules: all entries due at one moment", BURST_FIGURES).run(bursts, setting)


def _turn(command: list[str], entries: int, setting: Setting, is_stored: bool = False) -> Figures:
    with redis.Redis.from_url(setting.redis_url) as server:
        server.flushdb()
        if is_stored:
            _store(server, entries)
        project = STORED_PROJECT if is_stored else PROJECT
        text = project.format(url=setting.redis_url, entries=entries - 1, burst=False, period=PERIOD)
        began = time.time()
        process = _start(command, text, setting)
        try:
            first = _arrival(server, 300)
            while _arrival(server, 60)[0] < first[0] + SETTLE_SECONDS:
                pass  # what came due over the start, and the first that is not late because of it
            before, since = cpu_seconds(process.pid), time.time()
            arrivals = [_arrival(server, 60) for _ in range(max(25, min(200, setting.messages // 15)))]
            used = cpu_seconds(process.pid) - before
            rss = max(one.memory_info().rss for one in tree(process.pid))
        finally:
            stop(process)
    late_ms = sorted(late * 1000 for late in _late_seconds(arrivals))
    return {
        "first_firing_seconds": first[0] - began,
        "late_half_ms": late_ms[len(late_ms) // 2],
        "late_p99_ms": late_ms[math.ceil(len(late_ms) * 0.99) - 1],
        "cpu_percent": used / (arrivals[-1][0] - since) * 100,
        "rss_mib": rss / 1024 / 1024,
    }


def _late_seconds(arrivals: list[tuple[float, str]]) -> Iterator[float]:
    """Of each arrival but the first: how long after its instant it came."""
    start = arrivals[0][0] // PERIOD * PERIOD - LATEST_SECONDS
    count = round((arrivals[-1][0] - start) / PERIOD) + 2
    instants = [datetime.fromtimestamp(round(start + number * PERIOD, 3), timezone.utc) for number in range(count)]
    due = {message_id(OFTEN, instant): instant.timestamp() for instant in instants}
    for (earlier, _), (at, task_id) in pairwise(arrivals):
        yield max(0.00001, at - due.get(task_id, earlier + PERIOD))


def _burst(command: list[str], entries: int, setting: Setting) -> Figures:
    """The messages of the first full minute after the start."""
    if time.time() % MINUTE > 5:  # so that it is up and has read its entries before the minute ends
        time.sleep(MINUTE - time.time() % MINUTE)
    with redis.Redis.from_url(setting.redis_url) as server:
        server.flushdb()
        process = _start(
            command, PROJECT.format(url=setting.redis_url, entries=entries, burst=True, period=PERIOD), setting
        )
        try:
            time.sleep(MINUTE - time.time() % MINUTE)
            slot, before = time.time() // MINUTE * MINUTE, cpu_seconds(process.pid)
            late_seconds: list[float] = []
            while len(late_seconds) < entries and time.time() < slot + MINUTE:
                taken = server.lpop("bench.schedule", 1000) or []
                late_seconds += [time.time() - slot] * len(taken)
                time.sleep(0.002)
            used = cpu_seconds(process.pid) - before
        finally:
            stop(process)
    figures = {
        "in_the_minute_percent": len(late_seconds) / entries * 100,
        "cpu_ms_each": used / max(1, len(late_seconds)) * 1000,
    }
    if len(late_seconds) >= entries * 0.5:
        figures["half_ms"] = late_seconds[entries // 2 - 1] * 1000
    if len(late_seconds) >= entries * 0.99:
        figures["p99_ms"] = late_seconds[entries * 99 // 100 - 1] * 1000
    return figures


def _start(command: list[str], project: str, setting: Setting) -> subprocess.Popen[bytes]:
    folder = setting.folder / f"schedule-{time.monotonic_ns()}"
    folder.mkdir()
    (folder / "bench_project.py").write_text(project)
    return start(command, {}, folder / "log")


def _store(server: redis.Redis, entries: int) -> None:
    """Entries as `lightbus schedule add` leaves them."""
    now = datetime.now(timezone.utc).isoformat()
    with server.pipeline(transaction=False) as pipe:
        for number in range(entries):
            name = f"entry-{number}" if number else OFTEN
            often = {"every_seconds": PERIOD, "anchor": "2000-01-01T00:00:00+00:00"}
            when = {"cron": f"{number % 60} {number // 60 % 24} 29 2 *"} if number else often
            record = {"decided": now, "definition": {"id": name, "task": "bench.none", **when}}
            pipe.hset("lightbus.schedule.records", name, json.dumps(record))
            if number % 5000 == 0:
                pipe.execute()
        pipe.execute()


def _arrival(server: redis.Redis, seconds: float) -> tuple[float, str]:
    """When the next message came, and the id of its task."""
    deadline = time.monotonic() + seconds
    while (taken := server.brpop(["bench.schedule", "lightbus.bench.schedule"], timeout=1)) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing was sent within {seconds:g} s")
    now = time.time()
    return now, json.loads(taken[1])["headers"]["id"]
