"""Stopping a worker for real: whichever thread the kernel picks for the signal, and whatever the handlers do."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.processes import Processes, handlers, wait_for

APP = """
import os, signal, threading, time
from lightbus import Api, Bus, Event

bus = Bus("stopping", url=os.environ["BROKER"])


class Work(Api, name="tests.work", version="1.0"):
    class wanted(Event):
        seconds: float


@bus.on(Work.wanted)
def work(event):
    print(f"begin {event.seconds}", flush=True)
    signal.setitimer(signal.ITIMER_REAL, 0.01)  # a signal that is no stop
    signal.signal(signal.SIGALRM, lambda *_: None)
    time.sleep(event.seconds)
    print(f"end {event.seconds}", flush=True)
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "stopping.py").write_text(APP)
    return tmp_path


@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_worker_stops_at_the_first_signal_every_time(
    processes: Processes, app: Path, sqlite_url: str, threads: str, number: signal.Signals
) -> None:
    for _ in range(3):
        worker = processes.start(
            "python", "-m", "lightbus.cli", "worker", "-A", "stopping", "-c", "2", "--threads", threads,
            name="worker", environment={"BROKER": sqlite_url},
        )  # fmt: skip
        worker.wait_for_log("lightbus worker ready")
        if number is signal.SIGINT:
            worker.interrupt()
        else:
            worker.signal(number)
        assert worker.wait(20) == 0


def test_what_runs_finishes_and_what_has_not_begun_goes_back(processes: Processes, app: Path, sqlite_url: str) -> None:
    worker = processes.start(
        "python", "-m", "lightbus.cli", "worker", "-A", "stopping", "-c", "1",
        name="worker", environment={"BROKER": sqlite_url},
    )  # fmt: skip
    worker.wait_for_log("lightbus worker ready")
    fire = "from stopping import bus, Work; [bus.fire(Work.wanted(seconds=s)) for s in (1.5, 0.25, 0.125)]; bus.close()"
    assert processes.start("python", "-c", fire, name="fire", environment={"BROKER": sqlite_url}).wait() == 0
    worker.wait_for_log("begin 1.5")
    child = handlers(worker.pid)[0]

    assert worker.stop() == 0
    log = worker.read_log()
    assert "end 1.5" in log
    assert "begin 0.25" not in log
    wait_for(lambda: not Path(f"/proc/{child}").exists(), 5, "the child to be gone")

    again = processes.start(
        "python", "-m", "lightbus.cli", "worker", "-A", "stopping", "-c", "1",
        name="again", environment={"BROKER": sqlite_url},
    )  # fmt: skip
    again.wait_for_log("end 0.125")
    assert "end 0.25" in again.read_log()
    assert "begin 1.5" not in again.read_log()
    assert again.stop() == 0
