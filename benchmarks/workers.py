"""How fast one worker drains a queue of no-op tasks."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import kombu
from measure import Samples, cpu_seconds, interleave, start, stop, table, wait_until

FIGURES = (
    ("tasks_per_second", "tasks/s", True),
    ("cpu_seconds_per_10k", "CPU s per 10,000", False),
)
PREFETCH = 500


def run(url: str, rounds: int, messages: int, progress: Callable[[str], None]) -> tuple[str, dict[str, Samples]]:
    """Measure all candidates on the RabbitMQ at `url`; the table and the samples."""
    folder = Path(tempfile.mkdtemp(prefix="lightbus-bench-"))
    template = _template(url)
    candidates = {
        "raw py-amqp, acks by 50": _candidate(url, folder, messages, template, "bench.raw", ["bench_raw_worker.py"]),
    }
    for processes in (1, 2):
        candidates[f"lightbus worker, {processes} process{'es' * (processes > 1)}"] = _candidate(
            url, folder, messages, template, "lightbus.bench",
            ["-m", "lightbus.cli", "worker", "-A", "bench_tasks_lightbus", "--processes", str(processes), "--prefetch",
             str(PREFETCH), "-Q", "lightbus.bench", "-l", "WARNING"],
        )  # fmt: skip
        candidates[f"celery worker, prefork -c {processes}"] = _candidate(
            url, folder, messages, template, "bench",
            ["-m", "celery", "-A", "bench_tasks_celery", "worker", "-P", "prefork", "-c", str(processes),
             "-l", "ERROR"],
            {"BENCH_PREFETCH": str(PREFETCH)},
        )  # fmt: skip
    samples = interleave(candidates, rounds, progress)
    return table(samples, FIGURES), samples


def _candidate(
    url: str,
    folder: Path,
    messages: int,
    template: kombu.Message,
    queue: str,
    arguments: list[str],
    environment: Mapping[str, str] | None = None,
) -> Callable[[], Mapping[str, float]]:
    def measure() -> Mapping[str, float]:
        done = folder / f"done-{uuid.uuid4().hex}"
        done.touch()
        _fill(url, queue, messages, template)
        file = arguments[0] if arguments[0] == "-m" else str(Path(__file__).parent / arguments[0])
        names = {"BENCH_AMQP_URL": url, "LIGHTBUS_URL": url, "BENCH_QUEUE": queue, "BENCH_DONE": str(done)}
        worker = start([file, *arguments[1:]], {**names, **(environment or {})}, folder / f"{queue}.log")
        try:
            wait_until(lambda: done.stat().st_size > 0, f"the first task of {queue} (log in {folder})")
            began, cpu = time.perf_counter(), cpu_seconds(worker.pid)
            first = done.stat().st_size
            wait_until(lambda: done.stat().st_size >= messages, f"{messages} tasks of {queue} (log in {folder})", 300)
            seconds = time.perf_counter() - began
            used = cpu_seconds(worker.pid) - cpu
            if done.stat().st_size != messages:
                raise RuntimeError(f"{queue}: {messages} tasks were sent and {done.stat().st_size} ran")
        finally:
            stop(worker)
        return {
            "tasks_per_second": (messages - first) / seconds,
            "cpu_seconds_per_10k": used / (messages - first) * 10_000,
        }

    return measure


def _template(url: str) -> kombu.Message:
    """A real message of a stock Celery producer."""
    os.environ.update(BENCH_AMQP_URL=url, BENCH_QUEUE="bench.template")
    from bench_tasks_celery import noop

    noop.delay(1, 2)
    with kombu.Connection(url) as connection:
        queue = kombu.Queue("bench.template")(connection.channel())
        deadline = time.monotonic() + 10
        while (message := queue.get(no_ack=True)) is None:
            assert time.monotonic() < deadline, "the producer's message does not arrive"
            time.sleep(0.01)
    return message


def _fill(url: str, queue: str, messages: int, template: kombu.Message) -> None:
    with kombu.Connection(url) as connection:
        channel = connection.channel()
        if queue == "bench":
            kombu.Queue("bench", kombu.Exchange("bench"), "bench")(channel).declare()
        else:
            kombu.Queue(queue)(channel).declare()
        own = {"application_headers", "content_type", "content_encoding", "priority"}
        properties = {k: v for k, v in template.properties.items() if k not in own}
        for _ in range(messages):
            task_id = str(uuid.uuid4())
            message = channel.prepare_message(
                template.body,
                content_type=template.content_type,
                content_encoding=template.content_encoding,
                headers={**template.headers, "id": task_id, "root_id": task_id},
                properties={**properties, "correlation_id": task_id, "delivery_mode": 2},
            )
            channel.basic_publish(message, exchange="", routing_key=queue)
        wait_until(lambda: channel.queue_declare(queue, passive=True).message_count == messages, "the queue to fill")
