"""A project with handlers that misbehave on demand, a worker on it, and a journal of what the handlers did.

The journal is a file that outlives every process. A handler that has to wait, waits at a gate (a file), not for a time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightbus import Api, Bus, Event, rpc
from lightbus.compat import Settings, TaskApp
from lightbus.core.topology import DEAD_LETTER_QUEUE
from lightbus.drivers import open_transport
from lightbus.ports import Delivery
from tests.processes import Process, Processes, handlers, wait_for

SECONDS = 40.0

APP = """
import asyncio, ctypes, json, os, signal, time
from pathlib import Path
from lightbus import Api, Bus, Event, RetryPolicy, current_delivery, rpc
from lightbus.compat import Settings, default_app, task

FOLDER = Path(os.environ["FOLDER"])
URL = os.environ["BROKER"]
VERSION = 1


def note(what, **more):
    with open(FOLDER / "journal.jsonl", "a") as file:
        file.write(json.dumps({"what": what, "pid": os.getpid(), "version": VERSION, **more}) + "\\n")


def wait(gate="gate"):
    while not (FOLDER / gate).exists():
        time.sleep(0.01)


def misbehave(how):
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(7)
    elif how == "wait":
        wait()
    elif how == "gil":  # holds the interpreter's lock in C code: no thread of this process runs any more
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # one would end the sleep
        ctypes.PyDLL(None).sleep(600)
    elif how == "lock":  # the log's: whoever ends this process cannot even say so
        import logging
        logging.getLogger().handlers[0].acquire()
        wait()
    elif how == "memory":
        import resource
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (1000 * 2**20, hard))
        try:
            b"x" * (2000 * 2**20)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    elif how == "keep":
        kept.append(bytearray(os.urandom(1)) * (64 * 2**20))


kept = []


class Work(Api, name="staged.work", version="1.0"):
    class wanted(Event):
        id: str
        how: str = ""

    @rpc(timeout_seconds=20.0)
    def do(self, *, how: str) -> int:
        raise NotImplementedError


bus = Bus("staged", url=URL)


@bus.on(Work.wanted, retry=RetryPolicy(max_retries=1, base_seconds=0.05))
def work(event):
    delivery = current_delivery()
    note("began", id=event.id, again=delivery.redelivered, attempt=delivery.attempt)
    misbehave(event.how)
    note("ended", id=event.id)


class OurWork(Work):
    @rpc()
    def do(self, *, how: str) -> int:
        note("called", how=how)
        misbehave(how)
        return os.getpid()


bus.serve(OurWork())
default_app().configure(Settings(broker_url=URL, result_backend=os.environ["RESULTS"]))


@task(bind=True, name="staged.early")
def early(self, how=""):
    note("began", id=self.request.id, again=bool(self.request.delivery_info["redelivered"]))
    misbehave(how)
    note("ended", id=self.request.id)
    return os.getpid()


@task(bind=True, name="staged.late", acks_late=True)
def late(self, how=""):
    note("began", id=self.request.id, again=bool(self.request.delivery_info["redelivered"]))
    misbehave(how)
    note("ended", id=self.request.id)
    return os.getpid()


@task(name="staged.total")
def total(results):
    note("total")


@task(name="staged.errback")
def errback(task_id):
    note("errback", id=task_id)
"""


class Work(Api, name="staged.work", version="1.0"):
    """The contract, as the sender has it."""

    class wanted(Event):
        id: str
        how: str = ""

    @rpc(timeout_seconds=20.0)
    def do(self, *, how: str) -> int:
        raise NotImplementedError


class Staged:
    """The project in `folder` on the broker `url`, results in `results`."""

    def __init__(self, folder: Path, url: str, processes: Processes, results: str = "rpc://") -> None:
        self.folder, self.url, self.results = folder, url, results
        self._processes = processes
        self.transport = open_transport(url)
        (folder / "staged.py").write_text(APP)

    def start(self, *options: str, application: str = "staged:bus", **environment: str) -> Process:
        """Start a worker with one process, unless the options say otherwise, and do not wait for it."""
        count = () if {"-c", "--autoscale", "--pool"} & set(options) else ("-c", "1")
        return self._processes.start(
            "python", "-m", "lightbus.cli", "worker", "-A", application, *count, *options, name="worker",
            environment={"FOLDER": str(self.folder), "BROKER": self.url, "RESULTS": self.results, **environment},
        )  # fmt: skip

    def worker(self, *options: str, application: str = "staged:bus", **environment: str) -> Process:
        """A worker that consumes."""
        process = self.start(*options, application=application, **environment)
        process.wait_for_log("lightbus worker ready")
        return process

    def fire(self, *wanted: tuple[str, str]) -> None:
        """Events, as pairs of id and what the handler shall do."""
        bus = Bus("tester", url=self.url)
        try:
            for id, how in wanted:
                bus.fire(Work.wanted(id=id, how=how))
        finally:
            bus.close()

    def tasks(self) -> TaskApp:
        """The side of the callers; close it."""
        moved = frozenset({"staged.early", "staged.late", "staged.total", "staged.errback"})
        return TaskApp(Settings(broker_url=self.url, result_backend=self.results, moved=moved))

    def noted(self, what: str) -> list[dict[str, Any]]:
        file = self.folder / "journal.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [entry for entry in map(json.loads, lines) if entry["what"] == what]

    def wait_for_noted(self, what: str, count: int = 1, *, log: Path | None = None) -> list[dict[str, Any]]:
        logs = [] if log is None else [log]
        wait_for(lambda: len(self.noted(what)) >= count, SECONDS, f"{count} of {what!r} in the journal", logs)
        return self.noted(what)

    def open_gate(self) -> None:
        (self.folder / "gate").touch()

    def parked(self, queue: str = DEAD_LETTER_QUEUE) -> Delivery:
        """The first dead letter, acknowledged."""
        found = wait_for(lambda: self._get(queue), SECONDS, f"a dead letter in {queue}")
        found.ack()
        return found

    def _get(self, queue: str) -> Delivery | None:
        return self.transport.get(queue) if self.transport.message_count(queue) else None

    def close(self) -> None:
        self.transport.close()


def only_child(worker: Process) -> int:
    (pid,) = wait_for(lambda: handlers(worker.pid), SECONDS, "a child", [worker.log])
    return pid


def another_child(worker: Process, known: list[int]) -> int:
    """The pid of a child that is none of `known`."""

    def found() -> int:
        return next((pid for pid in handlers(worker.pid) if pid not in known), 0)

    return wait_for(found, SECONDS, "another child", [worker.log])
