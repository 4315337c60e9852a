"""Several `lightbus beat`, killed and frozen at random, and a ledger: each slot sent once, none left out.

    python -m tests.faults.beat_soak --rounds 1000 --beats 3 --broker redis --restarts --skew-seconds 5

A round is one fault: kill -9 of a beat and another in its place, or SIGSTOP for up to 4 seconds. The slots that were
sent are compared with all that there are from the anchors of the entries to where the state on the broker ends.
With a skew the clock of each beat is wrong by a constant of its own, and any two differ by at most that.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from lightbus.core.errors import TransportError
from lightbus.drivers import open_schedule_store, open_transport
from lightbus.ports import Transport
from lightbus_scheduler import Every, between, message_id
from tests.brokers import RabbitMQ, Redis, Server
from tests.processes import Process, Processes, wait_for

PERIODS = {"fast": 0.2, "slow": 0.7, "third": 1.1}
OPTIONS: dict[str, dict[str, object]] = {"amqp": {"heartbeat": 1}}
APP = """
import os
from datetime import datetime, timedelta, timezone

from lightbus.beat import SystemClock
from lightbus.compat import Settings, default_app, task

wrong_by = timedelta(seconds=float(os.environ["WRONG_BY_SECONDS"]))
SystemClock.now = lambda self: datetime.now(timezone.utc) + wrong_by

default_app().configure(Settings(broker_url={url!r}, broker_transport_options={options!r}, default_queue="ledger"))


@task(name="ledger.note", ignore_result=True)
def note(entry):
    pass
"""
SETTINGS = """
[tool.lightbus.schedule.{name}]
every_seconds = {period}
task = "ledger.note"
args = ["{name}"]
misfire = {{ rule = "all", limit = 10000 }}
"""
QUEUE = "lightbus.ledger"


@dataclass
class Report:
    """What came of it."""

    seed: int
    broker: str
    faults: list[str] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    expected: set[str] = field(default_factory=set)
    take_overs: int = 0

    @property
    def lost(self) -> int:
        return len(self.expected - self.sent.keys())

    @property
    def twice(self) -> int:
        return sum(count - 1 for count in self.sent.values())

    @property
    def ghosts(self) -> int:
        return len(self.sent.keys() - self.expected)

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.twice or self.ghosts)

    def __str__(self) -> str:
        return (
            f"beat soak --seed {self.seed} --broker {self.broker}: {len(self.faults)} faults, {self.take_overs} terms, "
            f"{len(self.expected)} slots; lost {self.lost}, twice {self.twice}, ghosts {self.ghosts}"
        )


class Beats:
    """Some beats of one project; dead ones are replaced."""

    def __init__(
        self, processes: Processes, folder: Path, count: int, chance: random.Random, skew_seconds: float
    ) -> None:
        self._processes, self._folder = processes, folder
        self._chance, self._skew_seconds = chance, skew_seconds
        self.every: list[Process] = []
        self.living = [self.start() for _ in range(count)]

    def start(self) -> Process:
        wrong_by = self._skew_seconds * self._chance.uniform(-0.5, 0.5)
        process = self._processes.start(
            "python", "-m", "lightbus.cli", "beat", "-A", "proj", name="beat", folder=self._folder,
            environment={"WRONG_BY_SECONDS": f"{wrong_by:.3f}"},
        )  # fmt: skip
        self.every.append(process)
        return process

    def leader(self) -> Process | None:
        """The one that said last that it leads, when it lives."""
        said = [one for one in self.living if " leading, " in one.read_log()]
        return said[-1] if said else None

    def fault(self, chance: random.Random) -> str:
        """One fault, often of the leader."""
        number = chance.randrange(len(self.living))
        leader = self.leader()
        if leader is not None and chance.random() < 0.7:
            number = self.living.index(leader)
        victim = self.living[number]
        if chance.random() < 0.5:
            victim.kill()
            self.living[number] = self.start()
            return f"kill {victim.pid}"
        seconds = chance.uniform(0.2, 4.0)
        victim.signal(signal.SIGSTOP)
        time.sleep(seconds)  # the fault itself
        victim.signal(signal.SIGCONT)
        return f"freeze {victim.pid} for {seconds:.1f} s"

    def stop(self) -> None:
        for one in self.living:
            one.stop(60)


def _restart(server: Server, chance: random.Random) -> str:
    seconds = chance.uniform(0.0, 3.0)
    server.stop()
    time.sleep(seconds)  # the fault itself
    server.start()
    return f"broker away for {seconds:.1f} s"


def soak(
    seed: int, rounds: int, beats: int, broker: str, url: str, folder: Path, server: Server | None = None, *,
    skew_seconds: float = 0.0,
) -> Report:  # fmt: skip
    """One soak on the broker at `url`, of kind `broker`; `server` is killed and started again now and then."""
    report, chance = Report(seed, broker), random.Random(seed)
    (folder / "proj.py").write_text(APP.format(url=url, options=OPTIONS.get(broker, {})))
    settings = "".join(SETTINGS.format(name=name, period=period) for name, period in PERIODS.items())
    (folder / "pyproject.toml").write_text(settings)
    processes = Processes(folder)
    transport = open_transport(url, options=OPTIONS.get(broker, {}))
    try:
        running = Beats(processes, folder, beats, chance, skew_seconds)
        logs = [one.log for one in running.every]
        wait_for(lambda: any(" leading, " in log.read_text() for log in logs), 60, "a first leader", logs)
        for _ in range(rounds):
            time.sleep(chance.uniform(0.1, 1.0))  # the pause between two faults
            if server is not None and chance.random() < 0.1:
                report.faults.append(_restart(server, chance))
            else:
                report.faults.append(running.fault(chance))
            _collect(transport, report)
        before = len(report.sent)
        wait_for(
            lambda: _collect(transport, report) or len(report.sent) >= before + 10, 60, "sendings after the last fault",
            [one.log for one in running.living],
        )  # fmt: skip
        running.stop()
        _collect(transport, report)
        report.expected = _expected(url, broker)
        report.take_overs = sum(one.read_log().count(" leading, ") for one in running.every)
    finally:
        processes.end()
        transport.close()
    return report


def _collect(transport: Transport, report: Report) -> None:
    """Take what is in the queue. The broker may have been restarted since, which the connection finds out now."""
    for attempt in range(10):
        try:
            if transport.message_count(QUEUE) is None:
                return
            while (delivery := transport.get(QUEUE)) is not None:
                sent_id = str(delivery.wire.headers["id"])
                if not (delivery.redelivered and sent_id in report.sent):  # a broker that was killed forgot our ack
                    report.sent[sent_id] += 1
                delivery.ack()
            return
        except TransportError as error:
            if attempt == 9:
                raise AssertionError(f"the ledger cannot be read: {error}") from error
            time.sleep(0.2)  # until the server takes connections


def _expected(url: str, broker: str) -> set[str]:
    """The ids of all slots up to where the kept state ends."""
    store = open_schedule_store(url, options=OPTIONS.get(broker, {}))
    try:
        records = wait_for(store.records, 60, "the records")
    finally:
        store.resign()
    found: set[str] = set()
    for name, period in PERIODS.items():
        anchor, decided = (datetime.fromisoformat(records[name][key]) for key in ("anchor", "decided"))
        slots = between(Every(timedelta(seconds=period), anchor), anchor, decided)
        found.update(message_id(name, slot) for slot in slots)
    return found


@contextmanager
def broker_url(broker: str, folder: Path) -> Iterator[tuple[str, Server | None]]:
    """A private broker of that kind."""
    if broker == "sqlite":
        yield f"sqlite:///{folder}/bus.db", None
        return
    server = Redis(folder / "redis") if broker == "redis" else RabbitMQ(folder / "rabbitmq")
    if isinstance(server, Redis):
        server.keeps_data = True
    server.start()
    try:
        yield server.url if isinstance(server, Redis) else server.add_vhost(f"beat-{uuid.uuid4().hex[:8]}"), server
    finally:
        server.stop()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--beats", type=int, default=3)
    parser.add_argument("--broker", choices=["amqp", "redis", "sqlite"], default="redis")
    parser.add_argument("--restarts", action="store_true", help="one fault in ten kills the broker, for up to 3 s")
    parser.add_argument("--skew-seconds", type=float, default=0.0, help="how far apart the beats' clocks are at most")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lightbus-beat-soak-"))
    (folder / "project").mkdir()
    with broker_url(given.broker, folder) as (url, server):
        report = soak(
            given.seed, given.rounds, given.beats, given.broker, url, folder / "project",
            server if given.restarts else None, skew_seconds=given.skew_seconds,
        )  # fmt: skip
    print(report)
    if not report.is_clean:
        print("\n".join(report.faults), f"logs in {folder}", sep="\n")
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
