"""An app under gunicorn that published before it was forked: requests fire, call and `.delay()`, and lose nothing."""

from __future__ import annotations

import http.client
import itertools
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import Process, Processes, children, wait_for

#: Imported by gunicorn, where it has published before any request came, and by the worker that handles all of it.
SITE = """
import os

from lightbus import Api, Bus, Event, current_delivery, rpc
from lightbus.compat import Settings, default_app, task

URL = os.environ["SITE_URL"]
FOLDER = os.path.dirname(os.path.abspath(__file__))
bus = Bus("{prefix}", url=URL)
default_app().configure(Settings.from_mapping({{"broker_url": URL, "task_default_queue": "{prefix}"}}))


def note(what, number):
    delivery = current_delivery()
    line = f"{{number}} {{int(bool(delivery and delivery.redelivered))}}\\n"
    file = os.open(os.path.join(FOLDER, what), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)


class Orders(Api, name="{prefix}.orders", version="1.0"):
    class placed(Event):
        number: int

    @rpc(timeout_seconds=30.0)
    def doubled(self, *, number: int) -> int:
        raise NotImplementedError


class OurOrders(Orders):
    @rpc()
    def doubled(self, *, number: int) -> int:
        return 2 * number


bus.serve(OurOrders())


@bus.on(Orders.placed)
def hear(event: Orders.placed) -> None:
    note("heard", event.number)


@task(name="{prefix}.pack", ignore_result=True)
def pack(number):
    note("packed", number)


orders = bus.client(Orders)


def use(number):
    bus.fire(Orders.placed(number=number))
    assert orders.doubled(number=number) == 2 * number
    pack.delay(number)


if os.environ.get("BEFORE_FORK"):
    use(0)


def application(environ, start_response):
    number = int(environ["PATH_INFO"][1:])
    use(number)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(str(number))))])
    return [str(number).encode()]
"""


class Callers:
    """Clients of the site, each with one request after the other until they are to stop."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._numbers = itertools.count(1)
        self._stop = threading.Event()
        self.asked: set[int] = set()
        self.answered: set[int] = set()  #: what the site has said it did
        self.refused: list[str] = []  #: answers other than that, which no kill explains

    @contextmanager
    def calling(self, count: int) -> Iterator[None]:
        threads = [threading.Thread(target=self._call) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _call(self) -> None:
        while not self._stop.is_set():
            number = next(self._numbers)
            self.asked.add(number)
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            try:
                connection.request("GET", f"/{number}")
                answer = connection.getresponse()
                text = answer.read().decode()
            except (OSError, http.client.HTTPException):
                continue  # its process was killed: nothing was promised
            finally:
                connection.close()
            if answer.status == 200 and text == str(number):
                self.answered.add(number)
            else:
                self.refused.append(f"{number}: {answer.status} {text}")


def started(processes: Processes, folder: Path, *options: str) -> tuple[Process, int]:
    """gunicorn, and its port."""
    process = processes.start(
        "python", "-m", "gunicorn", "--workers", "2", "--bind", "127.0.0.1:0", *options, "site_of_orders:application",
        name="gunicorn", environment={"BEFORE_FORK": "1"}, folder=folder,
    )  # fmt: skip
    found = wait_for(
        lambda: re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", process.read_log()), 30, "gunicorn", [process.log]
    )
    return process, int(found[1])


PRELOAD = ("--preload",)


@pytest.mark.parametrize(
    ("broker_url", "options"),
    [
        ("amqp", PRELOAD), ("redis", PRELOAD), ("sqlite", PRELOAD), ("amqp", ()),
        ("amqp", (*PRELOAD, "--worker-class", "gthread", "--threads", "4")),
    ],
    ids=["amqp-sync-preload", "redis-sync-preload", "sqlite-sync-preload", "amqp-sync", "amqp-gthread-preload"],
    indirect=["broker_url"],
)  # fmt: skip
def test_requests_under_gunicorn_lose_nothing_over_a_kill_and_a_reload(
    tmp_path: Path, broker_url: str, prefix: str, processes: Processes, options: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("SITE_URL", broker_url)
    (tmp_path / "site_of_orders.py").write_text(SITE.format(prefix=prefix))
    worker = processes.start(
        "python", "-m", "lightbus.cli", "worker", "-A", "site_of_orders", "-c", "1", "--threads", "4", name="worker",
        folder=tmp_path,
    )  # fmt: skip
    worker.wait_for_log("lightbus worker ready pids=")
    gunicorn, port = started(processes, tmp_path, *options)
    logs = [gunicorn.log, worker.log]

    def served_by(others: set[int]) -> Callable[[], set[int]]:
        return lambda: found if len(found := set(children(gunicorn.pid)) - others) == 2 else set()

    first = wait_for(served_by(set()), 30, "both processes", logs)
    callers = Callers(port)

    def more(count: int) -> Callable[[], bool]:
        goal = len(callers.answered) + count
        return lambda: len(callers.answered) >= goal

    with callers.calling(4):
        wait_for(more(20), 60, "answers", logs)
        victim = min(first)
        os.kill(victim, signal.SIGKILL)
        second = wait_for(served_by({victim}), 30, "another process", logs)
        wait_for(more(20), 60, "answers after the kill", logs)
        gunicorn.signal(signal.SIGHUP)
        wait_for(served_by(second), 60, "new processes", logs)
        wait_for(more(20), 60, "answers after the reload", logs)
    assert callers.refused == []
    assert gunicorn.stop() == 0

    for what in ("heard", "packed"):
        path = tmp_path / what
        wait_for(lambda path=path: callers.answered <= set(done(path)), 30, f"all that was promised: {what}", logs)
        numbers = done(path)
        firsts = Counter(number for number, is_repeat in numbers.items() for _ in range(is_repeat.count(False)))
        assert set(numbers) <= callers.asked | {0}, "a ghost"
        assert 0 in numbers
        # 0 is said once for each time that the app is imported, which without --preload each process does.
        assert {number for number, count in firsts.items() if count > 1 and number} == set(), "an unflagged repeat"
    assert worker.stop() == 0


def done(path: Path) -> dict[int, list[bool]]:
    """The numbers that a handler got, and of each time whether it was flagged as a repeat."""
    found: dict[int, list[bool]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        number, is_repeat = line.split()
        found.setdefault(int(number), []).append(is_repeat == "1")
    return found
