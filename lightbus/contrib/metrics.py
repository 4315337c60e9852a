"""Prometheus metrics of what is sent and handled, and of a worker's processes.

    instrument(bus, default_app())     # in a web process: what it publishes; your own /metrics shows it

`lightbus worker --http HOST:PORT` measures by itself and serves `/metrics`. Its processes count in files that they
share with the one that serves (prometheus_client's multiprocess mode), so metrics of your own in handlers are shown
too, and counts outlive the process that counted.

Labels are names of messages and queues, never ids: the names of an app are few. A message that no handler was found for
has name "", because anybody can invent names.
"""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..core.outbox import Backlog, Row, Verdict
from ..core.outcome import DeadLetter
from ..outbox import RelayWatcher
from ..publishing import Publication, PublishHook
from ..report import Report

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from ..worker.health import Health

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_OURS = "lightbus-metrics-"
_FROM_MILLISECONDS_TO_MINUTES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, for the code and for the table in the documentation."""

    name: str
    kind: str  #: counter, histogram or gauge
    labels: tuple[str, ...]
    help: str


PUBLISHED = Metric(
    "lightbus_messages_published_total", "counter", ("kind", "name", "outcome"),
    "Messages sent; outcome ok, or error when the broker did not take it or the call failed",
)  # fmt: skip
PUBLISH_SECONDS = Metric("lightbus_publish_seconds", "histogram", ("kind",),
                         "From sending until the broker has the message; of calls, until the answer")  # fmt: skip
CONSUMED = Metric(
    "lightbus_messages_consumed_total", "counter", ("kind", "name", "outcome"),
    "Messages done with; outcome ok, error, retry, parked, requeued, forwarded, expired, rejected, ignored",
)  # fmt: skip
PROCESSING = Metric("lightbus_processing_seconds", "histogram", ("kind", "name"), "How long handlers run")
WAIT = Metric("lightbus_queue_wait_seconds", "histogram", ("kind", "name"),
              "From sending to the handler's start, of first attempts; events and calls")  # fmt: skip
CRITICAL = Metric("lightbus_critical_seconds", "histogram", ("kind", "name"),
                  "From sending to the handler's end, retries and their delays included; events and calls")  # fmt: skip
REDELIVERED = Metric("lightbus_redelivered_total", "counter", ("queue",), "Messages that came a second time")
DEAD = Metric("lightbus_dead_letters_total", "counter", ("queue", "reason"), "Messages parked")
WORKER = (
    Metric("lightbus_worker_up", "gauge", (), "1 while at least one process consumes and no stop was asked for"),
    Metric("lightbus_worker_processes", "gauge", (), "Processes, those that are ending included"),
    Metric("lightbus_worker_consuming", "gauge", (), "Processes that consume"),
    Metric("lightbus_worker_slots", "gauge", (), "Handlers that can run at a time, without coroutines"),
    Metric("lightbus_worker_busy", "gauge", (), "Slots in use"),
    Metric("lightbus_worker_waiting", "gauge", (), "Messages in processes that wait for a slot; with --autoscale"),
    Metric("lightbus_worker_restarts_total", "counter", (), "Processes started in place of others that died"),
)
RELAYED = Metric(
    "lightbus_outbox_relayed_total", "counter", ("outbox", "outcome"),
    "Attempts to publish from an outbox; outcome sent, later (refused), aside or away",
)  # fmt: skip
OUTBOX = (
    Metric("lightbus_outbox_waiting", "gauge", ("outbox",), "Messages that wait in an outbox, those refused included"),
    Metric("lightbus_outbox_lag_seconds", "gauge", ("outbox",), "For how long the oldest of them has waited"),
    Metric("lightbus_outbox_aside", "gauge", ("outbox",), "Messages that were set aside"),
)
METRICS = (
    PUBLISHED, PUBLISH_SECONDS, CONSUMED, PROCESSING, WAIT, CRITICAL, REDELIVERED, DEAD, *WORKER, RELAYED, *OUTBOX,
)  # fmt: skip


class Publishing(Protocol):
    """A `Bus` or a `TaskApp`."""

    def on_publish(self, *hooks: PublishHook) -> None: ...


class Meter:
    """The metrics of one process. `observe` is an observer of a worker, `on_publish` a publish hook."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        from prometheus_client import REGISTRY, Counter, Histogram

        chosen = REGISTRY if registry is None else registry

        def counter(metric: Metric) -> Counter:
            return Counter(metric.name, metric.help, metric.labels, registry=chosen)

        def histogram(metric: Metric) -> Histogram:
            buckets = _FROM_MILLISECONDS_TO_MINUTES
            return Histogram(metric.name, metric.help, metric.labels, registry=chosen, buckets=buckets)

        # Finding the value for given labels costs more than adding to it.
        remembered = lru_cache(maxsize=1024)
        self._published = remembered(counter(PUBLISHED).labels)
        self._publish_seconds = remembered(histogram(PUBLISH_SECONDS).labels)
        self._consumed = remembered(counter(CONSUMED).labels)
        self._processing = remembered(histogram(PROCESSING).labels)
        self._wait, self._critical = remembered(histogram(WAIT).labels), remembered(histogram(CRITICAL).labels)
        self._redelivered, self._dead = counter(REDELIVERED), counter(DEAD)

    def observe(self, report: Report) -> None:
        """Count what became of a delivery."""
        kind, name = report.kind, report.name
        self._consumed(kind, name, report.verdict).inc()
        if report.delivery.redelivered:
            self._redelivered.labels(report.delivery.queue).inc()
        if isinstance(report.outcome, DeadLetter):
            self._dead.labels(report.delivery.queue, report.outcome.reason).inc()
        if report.invocation is None:
            return
        self._processing(kind, name).observe(report.seconds)
        waited = report.waited_seconds
        if waited is not None:
            if report.invocation.attempt == 1:
                self._wait(kind, name).observe(waited)
            self._critical(kind, name).observe(waited + report.seconds)

    def on_publish(self, publication: Publication) -> Callable[[BaseException | None], None]:
        """Count a message that is sent."""
        kind, name, started = publication.kind, publication.name, time.monotonic()

        def end(error: BaseException | None) -> None:
            self._published(kind, name, "ok" if error is None else "error").inc()
            self._publish_seconds(kind).observe(time.monotonic() - started)

        return end


class RelayMeter(RelayWatcher):
    """The metrics of a process's relays. Once per registry."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        from prometheus_client import REGISTRY, Counter, Gauge

        chosen = REGISTRY if registry is None else registry
        self._relayed = Counter(RELAYED.name, RELAYED.help, RELAYED.labels, registry=chosen)
        self._waiting, self._lag, self._aside = (
            # All relays see the same table: the one that looked last is right.
            Gauge(metric.name, metric.help, metric.labels, registry=chosen, multiprocess_mode="livemostrecent")
            for metric in OUTBOX
        )

    def on_verdict(self, store: str, row: Row, verdict: Verdict) -> None:
        """See `RelayWatcher`."""
        self._relayed.labels(store, type(verdict).__name__.lower()).inc()

    def on_backlog(self, store: str, backlog: Backlog, lag_seconds: float) -> None:
        """See `RelayWatcher`."""
        self._waiting.labels(store).set(backlog.waiting)
        self._lag.labels(store).set(lag_seconds)
        self._aside.labels(store).set(backlog.aside)


def instrument(*targets: Publishing, registry: CollectorRegistry | None = None) -> Meter:
    """Count what `targets` publish, in `registry` or else the default one. Once per registry."""
    meter = Meter(registry)
    for target in targets:
        target.on_publish(meter.on_publish)
    return meter


class SharedMetrics:
    """The folder in which the processes of a worker count, and the page that shows it.

    Make it before anything imports prometheus_client: that library looks for the folder when it is imported.
    """

    def __init__(self) -> None:
        if not os.environ.get(FOLDER_VARIABLE):
            os.environ[FOLDER_VARIABLE] = tempfile.mkdtemp(prefix=_OURS)
        self.folder = Path(os.environ[FOLDER_VARIABLE])
        self._lock = threading.Lock()

    def page(self, health: Health) -> tuple[str, bytes]:
        """Content type and text: what all processes counted, and the worker's own gauges."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = CollectorRegistry()
        with self._lock:
            self._add_up_the_dead()
            MultiProcessCollector(registry, path=str(self.folder))  # type: ignore[no-untyped-call]
            counted = generate_latest(registry)
        lines = []
        values = (health.ready, health.processes, health.consuming, health.slots, health.busy, health.waiting)
        for metric, value in zip(WORKER, (*values, health.restarts), strict=True):
            name = metric.name
            lines.append(f"# HELP {name} {metric.help}\n# TYPE {name} {metric.kind}\n{name} {float(value)}\n")
        return CONTENT_TYPE_LATEST, counted + "".join(lines).encode()

    def remove(self) -> None:
        """Remove the folder, where it is ours."""
        if self.folder.name.startswith(_OURS):
            shutil.rmtree(self.folder, ignore_errors=True)
            os.environ.pop(FOLDER_VARIABLE, None)

    def _add_up_the_dead(self) -> None:
        """Put the counts of processes that have ended into one file, so that restarts do not pile files up."""
        from prometheus_client.mmap_dict import MmapedDict
        from prometheus_client.multiprocess import mark_process_dead

        for path in glob.glob(str(self.folder / "*_*.db")):
            kind, _, rest = os.path.basename(path).partition("_")
            pid = rest.removesuffix(".db").rpartition("_")[2]
            if not pid.isdigit() or _is_running(int(pid)):
                continue
            if kind.startswith("gauge"):
                mark_process_dead(int(pid), path=str(self.folder))  # type: ignore[no-untyped-call]
                continue
            total = MmapedDict(str(self.folder / f"{kind}_ended.db"))  # type: ignore[no-untyped-call]
            for key, value, moment, _ in MmapedDict.read_all_values_from_file(path):  # type: ignore[no-untyped-call]
                before, _ = total.read_value(key)  # type: ignore[no-untyped-call]
                total.write_value(key, before + value, moment)  # type: ignore[no-untyped-call]
            total.close()  # type: ignore[no-untyped-call]
            os.unlink(path)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
