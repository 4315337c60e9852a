"""A stock Celery app on the embedded broker: real producers and worker processes, nothing of ours but the broker."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from kombu import Connection

import lightbus.drivers.sqlite
from tests.processes import Process, Processes, children, wait_for

TASKS = """
import os
from celery import Celery
{extra_import}
app = Celery("shop", broker={url!r}, backend="rpc://")
app.conf.update({settings})

@app.task(name="add")
def add(a, b):
    return a + b

@app.task(name="retry_twice", bind=True)
def retry_twice(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return self.request.retries

@app.task(name="pid")
def pid():
    return os.getpid()
"""

#: How an app names the broker: our import registers the URL scheme, or settings alone name the class.
NAMED = {
    "import": {"extra_import": "import lightbus.drivers.sqlite", "settings": ""},
    "settings": {"extra_import": "", "settings": f"broker_transport={lightbus.drivers.sqlite.TRANSPORT!r}"},
}


@pytest.fixture
def producer(sqlite_url: str) -> Iterator[Celery]:
    with Celery("shop", broker=sqlite_url, backend="rpc://", set_as_current=False) as app:
        yield app


def start_worker(processes: Processes, folder: Path, url: str, *, pool: str, named: str) -> Process:
    (folder / "shop.py").write_text(textwrap.dedent(TASKS).format(url=url, **NAMED[named]))
    process = processes.start(
        *("python", "-m", "celery", "-A", "shop", "worker", "-P", pool, "-c", "2", "-l", "INFO"),
        name="worker",
        environment={"C_FORCE_ROOT": "1"},
        folder=folder,
    )
    process.wait_for_log("ready.")
    return process


@pytest.mark.parametrize("pool, named", [("prefork", "import"), ("solo", "settings")])
def test_a_stock_celery_app_runs_on_it(
    processes: Processes, tmp_path: Path, sqlite_url: str, producer: Celery, pool: str, named: str
) -> None:
    worker = start_worker(processes, tmp_path, sqlite_url, pool=pool, named=named)

    # Held by the worker, unacknowledged, for longer than a lease.
    started = time.monotonic()
    later = producer.send_task("add", (3, 4), countdown=5)
    assert producer.send_task("add", (1, 2)).get(timeout=10) == 3
    assert producer.send_task("retry_twice").get(timeout=10) == 2
    assert producer.send_task("pid").get(timeout=10) in ([worker.pid] if pool == "solo" else children(worker.pid))
    sums = [producer.send_task("add", (i, i)) for i in range(100)]
    assert [result.get(timeout=10) for result in sums] == [2 * i for i in range(100)]
    (answer,) = producer.control.ping(timeout=2)
    assert list(answer.values()) == [{"ok": "pong"}]
    assert later.get(timeout=10) == 7
    assert time.monotonic() - started >= 5
    assert worker.wait_for_log(f"add[{later.id}] succeeded").count(f"add[{later.id}] succeeded") == 1

    # A warm shutdown gives back what waits for its time.
    held = producer.send_task("add", (1, 1), countdown=600)
    worker.wait_for_log(f"add[{held.id}] received")
    assert worker.stop() == 0
    assert "Traceback" not in worker.read_log()
    with Connection(sqlite_url) as connection:
        message = connection.default_channel.basic_get("celery")
        assert message.headers["id"] == held.id
        assert message.delivery_info["redelivered"]
        assert not connection.default_channel.has_consumers("celery")


def test_the_celery_command_line_asks_a_worker_and_a_killed_worker_loses_nothing(
    processes: Processes, tmp_path: Path, sqlite_url: str, producer: Celery
) -> None:
    worker = start_worker(processes, tmp_path, sqlite_url, pool="prefork", named="settings")
    inspect = processes.start(
        "python", "-m", "celery", "-A", "shop", "inspect", "ping", name="inspect", folder=tmp_path
    )
    assert inspect.wait(30) == 0
    assert "1 node online" in inspect.read_log()
    held = producer.send_task("add", (1, 1), countdown=600)
    worker.wait_for_log(f"add[{held.id}] received")

    worker.kill_group()

    with Connection(sqlite_url) as connection:
        channel = connection.default_channel
        message = wait_for(lambda: channel.basic_get("celery"), 6, "the message of the killed worker")
        assert message.headers["id"] == held.id
        message.ack()
        assert os.path.exists(channel.connection.path)
