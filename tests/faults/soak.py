"""Everything at once, for a while: events, calls and tasks, real workers, and random faults on a schedule from a seed.

`make soak ARGS="--seed 7 --seconds 180 --broker redis"`. The ledger at the end has nothing lost, no ghost and no
repeat that does not say so, of calls neither; otherwise the seed, the faults and the differences are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightbus import Api, Bus, Event, rpc
from lightbus.compat import Settings, TaskApp
from lightbus.core.errors import LightbusError, TransportError
from lightbus.core.topology import DEAD_LETTER_QUEUE
from lightbus.drivers import open_transport
from lightbus.ports import Transport
from tests.brokers import RabbitMQ, Redis
from tests.faults.ledger import Ledger
from tests.processes import Process, Processes, children
from tests.proxy import Proxy

WORKERS = 2
SETTLE_SECONDS = 45.0
OPTIONS: Mapping[str, dict[str, object]] = {
    "amqp": {"heartbeat": 1, "publish_timeout_seconds": 3.0},
    "redis": {"socket_timeout": 2.0, "socket_connect_timeout": 2.0, "publish_timeout_seconds": 3.0},
    "sqlite": {},
}


class Soak(Api, name="soak", version="1.0"):
    """The contract, as the sender has it."""

    class happened(Event):
        id: str
        fails_first: bool = False

    @rpc(timeout_seconds=5.0)
    def double(self, *, id: str, number: int) -> int:
        raise NotImplementedError


@dataclass
class Report:
    """What came of it."""

    seed: int
    broker: str
    ledger: Ledger = field(default_factory=Ledger)
    faults: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    wrong_answers: list[str] = field(default_factory=list)
    calls: Ledger = field(default_factory=Ledger)  #: only what was done

    @property
    def is_clean(self) -> bool:
        return not (self.ledger.differences() or self.wrong_answers or self.calls.unflagged)

    def __str__(self) -> str:
        lines = [f"soak --seed {self.seed} --broker {self.broker}: {len(self.faults)} faults; {self.ledger}"]
        lines.append("calls: " + ", ".join(f"{name} {count}" for name, count in self.answers.most_common()))
        lines[-1] += f"; {self.calls.repeats} ran twice"
        if not self.is_clean:
            lines += [f"  {fault}" for fault in self.faults]
            lines += [f"wrong answers: {self.wrong_answers}", f"calls that ran twice unflagged: {self.calls.unflagged}"]
        return "\n".join(lines)


PATIENCE_SECONDS = 90.0


class Run:
    """One soak on a broker. `server` is None for the embedded one, which has neither server nor network."""

    def __init__(
        self, report: Report, folder: Path, url: str, server: RabbitMQ | Redis | None, proxy: Proxy | None
    ) -> None:
        self.report = report
        self.server, self.proxy = server, proxy
        self.folder = folder
        if server is None or proxy is None:
            self.url = self.direct_url = url
        else:
            self.direct_url = url
            parts = urlsplit(url)
            self.url = parts._replace(netloc=parts.netloc.replace(f":{server.port}", f":{proxy.port}")).geturl()
        self.options = OPTIONS[report.broker]
        self.random = random.Random(report.seed)
        self.ending = threading.Event()
        self.processes = Processes(folder)
        self.workers: list[Process] = []
        self.began = time.monotonic()

    def go(self, seconds: float, at_least: int) -> None:
        for _ in range(WORKERS):
            self.start_worker()
        for worker in self.workers:
            worker.wait_for_log("lightbus worker ready", 30)
        senders = [threading.Thread(target=send, name=send.__name__) for send in (self.fire, self.send, self.call)]
        self.began = time.monotonic()
        for sender in senders:
            sender.start()
        try:
            while time.monotonic() < self.began + seconds or self.lacks(at_least, self.began + seconds):
                time.sleep(self.random.uniform(0.3, 1.5))  # the schedule
                self.do_a_fault()
                self.replace_ended()
        finally:
            self.ending.set()
            for sender in senders:
                sender.join(60)
        self.settle()

    def lacks(self, at_least: int, since: float) -> bool:
        """Whether a slow machine has sent too few messages so far for the faults to meet some."""
        enough = len(self.report.ledger.confirmed) >= at_least and (not at_least or self.report.answers["answered"] > 0)
        return not enough and time.monotonic() < since + PATIENCE_SECONDS

    def end(self) -> None:
        self.processes.end()

    # -- the load

    def fire(self) -> None:
        bus = Bus("sender", url=self.url, options=self.options)
        numbers = random.Random(self.report.seed + 1)
        for entry in self.entries("event"):
            self.attempt(entry, lambda: bus.fire(Soak.happened(id=entry, fails_first=numbers.random() < 0.1)))  # noqa: B023
        bus.close()

    def send(self) -> None:
        settings = Settings(
            broker_url=self.url, broker_transport_options=self.options, moved=frozenset({"soak.late"}),
            task_ignore_result=True,
        )  # fmt: skip
        app = TaskApp(settings)
        numbers = random.Random(self.report.seed + 2)
        for entry in self.entries("task"):
            countdown = numbers.choice([None, None, 0.5, 2.0])
            retries = numbers.choice([0, 0, 0, 1, 2])
            self.attempt(entry, lambda: app.send_task("soak.late", [entry, retries], countdown=countdown))  # noqa: B023
        app.close()

    def call(self) -> None:
        bus = Bus("caller", url=self.url, options=self.options)
        client = bus.client(Soak)
        for entry in self.entries("call"):
            number = int(entry.rpartition("-")[2])
            try:
                answer = client.double(id=entry, number=number)
            except LightbusError as error:
                self.report.answers[type(error).__name__] += 1
            else:
                self.report.answers["answered"] += 1
                if answer != 2 * number:
                    self.report.wrong_answers.append(f"{entry}: {answer}")
        bus.close()

    def entries(self, kind: str) -> Iterator[str]:
        number = 0
        while not self.ending.wait(0.005):
            number += 1
            yield f"{kind}-{number}"

    def attempt(self, entry: str, send: Callable[[], object]) -> None:
        self.report.ledger.record_sent(entry)
        try:
            send()
        except TransportError as error:
            self.report.ledger.record_answer(entry, error)
        else:
            self.report.ledger.record_answer(entry, None)

    # -- the faults

    def do_a_fault(self) -> None:
        faults: list[Callable[[], str]] = [self.kill_child, self.kill_child, self.kill_supervisor, self.kill_worker]
        if self.proxy is not None:
            faults += [self.cut, self.cut, self.hold_network]
        if self.server is not None:
            faults += [self.freeze_broker, self.restart_broker]
        fault = self.random.choice(faults)
        at = time.monotonic() - self.began
        self.report.faults.append(f"{at:7.2f} s {fault.__name__}: {fault()}")

    def start_worker(self) -> None:
        environment = {
            "SOAK_URL": self.url,
            "SOAK_OPTIONS": json.dumps(self.options),
            "SOAK_JOURNAL": str(self.folder / "journal.jsonl"),
        }
        self.workers.append(
            self.processes.start(
                "python", "-m", "lightbus.cli", "worker", "-A", "tests.faults.soak_app:bus", "-c", "2",
                "--max-crashes", "10", name="worker", environment=environment,
            )
        )  # fmt: skip

    def replace_ended(self) -> None:
        """As a service manager: a worker that finds no broker when it starts says so and ends."""
        for worker in [worker for worker in self.workers if worker.exit_code is not None]:
            self.workers.remove(worker)
            self.start_worker()

    def kill_child(self) -> str:
        pids = [pid for worker in self.workers for pid in children(worker.pid)]
        if not pids:
            return "none there"
        pid = self.random.choice(pids)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return f"{pid} had gone"
        return str(pid)

    def kill_supervisor(self) -> str:
        worker = self.workers.pop(self.random.randrange(len(self.workers)))
        worker.kill()
        self.start_worker()
        return str(worker.pid)

    def kill_worker(self) -> str:
        worker = self.workers.pop(self.random.randrange(len(self.workers)))
        worker.kill_group()
        self.start_worker()
        return str(worker.pid)

    def cut(self) -> str:
        assert self.proxy is not None
        reset = self.random.random() < 0.5
        self.proxy.cut(reset=reset)
        return "RST" if reset else "FIN"

    def hold_network(self) -> str:
        assert self.proxy is not None
        seconds = self.random.uniform(0.5, 4.0)
        self.proxy.freeze()
        time.sleep(seconds)  # the fault
        self.proxy.pass_on()
        return f"{seconds:.1f} s"

    def freeze_broker(self) -> str:
        assert self.server is not None
        seconds = self.random.uniform(0.5, 4.0)
        self.server.freeze()
        time.sleep(seconds)  # the fault
        self.server.thaw()
        return f"{seconds:.1f} s"

    def restart_broker(self) -> str:
        assert self.server is not None
        if isinstance(self.server, RabbitMQ):
            self.server.sync_tables()
        self.server.stop()
        self.server.start()
        return "killed and started"

    # -- the end

    def settle(self) -> None:
        """Wait until nothing is lost any more, or nobody would come back with it; then fill the books."""
        transport = open_transport(self.direct_url, options=self.options)
        ledger = self.report.ledger
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            self.replace_ended()
            self.read_parked(transport)
            done = {line["id"] for line in self.journal() if line["what"] == "done"}
            if not ledger.confirmed - done - ledger.parked.keys() or time.monotonic() > deadline:
                break
            time.sleep(0.2)  # between two looks
        transport.close()
        for worker in self.workers:
            worker.stop(60)
        for line in self.journal():
            book = ledger if line["what"] == "done" else self.report.calls
            book.record_done(line["id"], flagged=line["flagged"])

    def journal(self) -> list[dict[str, Any]]:
        file = self.folder / "journal.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def read_parked(self, transport: Transport) -> None:
        while transport.message_count(DEAD_LETTER_QUEUE):
            delivery = transport.get(DEAD_LETTER_QUEUE)
            if delivery is None:
                return
            body = json.loads(delivery.wire.body)
            self.report.ledger.parked[body[0][0] if isinstance(body, list) else body["id"]] += 1
            delivery.ack()


def soak(
    seed: int, seconds: float, broker: str, folder: Path, server: RabbitMQ | Redis | None = None, *, at_least: int = 0
) -> Report:
    """Run it in `folder`; a server is started where none is given.

    Args:
        at_least: go on for longer than `seconds`, up to PATIENCE_SECONDS, until so many messages were confirmed
            and a call was answered.
    """
    report = Report(seed, broker)
    with ExitStack() as ending:
        if server is None and broker != "sqlite":
            server = RabbitMQ(folder / "rabbitmq") if broker == "amqp" else Redis(folder / "redis")
            if isinstance(server, Redis):
                server.keeps_data = True
            ending.enter_context(server)
        proxy = None if server is None else ending.enter_context(Proxy(server.port))
        url = f"sqlite:///{folder / 'bus.sqlite'}"
        if isinstance(server, RabbitMQ):  # of its own, with a delay ladder that no other test has declared
            vhost = f"soak-{uuid.uuid4().hex[:8]}"
            url = server.add_vhost(vhost)
            ending.callback(server.delete_vhost, vhost)
        elif server is not None:
            url = server.url
        run = Run(report, folder, url, server, proxy)
        ending.callback(run.end)
        run.go(seconds, at_least)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--broker", choices=sorted(OPTIONS), default="amqp")
    given = parser.parse_args()
    print(f"soak --seed {given.seed} --seconds {given.seconds:g} --broker {given.broker}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="lightbus-soak-"))
    report = soak(given.seed, given.seconds, given.broker, folder)
    print(report)
    if not report.is_clean:
        print(f"logs and journal: {folder}")
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
