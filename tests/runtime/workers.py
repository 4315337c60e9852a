"""A worker process's inside, run on a thread of the test: for tests that look at handlers and not at processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lightbus import Bus
from lightbus.worker import Process, WorkerOptions


@contextmanager
def working(*buses: Bus, options: WorkerOptions | None = None) -> Iterator[Process]:
    """Consume the queues of `buses` inside the block; drained at its end."""
    process = Process(buses, options or WorkerOptions(threads=2))
    ready = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            process.run(ready=ready.set)
        except BaseException as error:  # noqa: BLE001  # raised again in the test's thread
            failed.append(error)
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10), "the worker does not get ready"
    if failed:
        thread.join()
        raise failed[0]
    try:
        yield process
    finally:
        process.stop()
        thread.join(20)
    assert not thread.is_alive(), "the worker does not stop"
    if failed:
        raise failed[0]
