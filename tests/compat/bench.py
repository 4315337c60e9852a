"""A task app on a broker and a result store in memory, and a worker of one slot that works in the calling thread."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import time
from typing import Any

from lightbus.compat import Settings, TaskApp
from lightbus.compat.endpoint import TaskEndpoint
from lightbus.compat.forwarding import wire_of
from lightbus.compat.protocol import TaskMessage, decode_task, encode_task
from lightbus.compat.results import ResultDocument, decode_result
from lightbus.core.errors import DecodeError, MessageError
from lightbus.core.message import Route, Wire
from lightbus.core.outcome import DeadLetter, Forward, Outcome, Received, Requeue, Retry, copy_for
from lightbus.core.topology import Queue, Topology
from lightbus.drivers.memory import MemoryTransport
from lightbus.drivers.memory_results import MemoryResults
from lightbus.endpoint import Invocation
from lightbus.ports import Delivery

DEAD = "dead"


class Bench:
    """Sends, works and looks. The queues are in memory; delays pass at once, as the bench takes the message early."""

    def __init__(self, **settings: Any) -> None:
        self.transport = MemoryTransport()
        self.kept = MemoryResults()
        self.settings = Settings(**settings)
        self.app = TaskApp(self.settings, transport=self.transport, result_backend=self.kept)
        self.published: list[tuple[Route, TaskMessage, float]] = []
        self._watch()

    def task(self, *args: Any, **options: Any) -> Any:
        return self.app.task(*args, **options)

    def endpoint(self, *queues: str) -> TaskEndpoint:
        endpoint = TaskEndpoint(self.app, queues=queues, hostname="lightbus@bench")
        self.transport.declare(endpoint.topology() + Topology(queues=(Queue(name=DEAD),)))
        return endpoint

    def put(self, wire: Wire, queue: str = "lightbus.celery") -> None:
        self.transport.declare(Topology(queues=(Queue(name=queue),)))
        self.transport.publish(wire, Route("", queue)).result(5)

    def put_task(self, queue: str = "lightbus.celery", **fields: Any) -> None:
        fields.setdefault("id", "task-1")
        self.put(encode_task(TaskMessage(**fields)), queue)

    def work(self, *queues: str) -> list[Outcome]:
        """Handle what waits, and what that brings, until the queues are empty. A message handed back ends it."""
        endpoint, outcomes = self.endpoint(*queues), []
        while True:
            delivery = next((one for one in map(self.transport.get, endpoint.queues()) if one is not None), None)
            if delivery is None:
                return outcomes
            outcomes.append(handle(endpoint, delivery))
            self.settle(delivery, outcomes[-1])
            if isinstance(outcomes[-1], (Requeue, Forward)):
                return outcomes

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        if isinstance(outcome, Requeue):
            delivery.requeue()
            return
        if isinstance(outcome, (Retry, Forward, DeadLetter)):
            received = Received(wire=delivery.wire, queue=delivery.queue, redelivered=delivery.redelivered)
            copy = copy_for(outcome, received, dead_queue=DEAD, now=time.time())
            self.transport.publish(copy.wire, copy.route, delay_seconds=copy.delay_seconds).result(5)
        delivery.ack()

    def next_message(self, queue: str) -> TaskMessage:
        """Take the message that waits in `queue`."""
        delivery = self.transport.get(queue)
        assert delivery is not None, f"nothing waits in {queue!r}"
        delivery.ack()
        return decode_task(delivery.wire)

    def document(self, task_id: str = "task-1") -> ResultDocument | None:
        data = self.kept.fetch(task_id)
        return None if data is None else decode_result(data)

    def state(self, task_id: str = "task-1") -> str:
        document = self.document(task_id)
        return "PENDING" if document is None else document.status

    def _watch(self) -> None:
        publish = self.transport.publish

        def watched(wire: Wire, route: Route, *, delay_seconds: float = 0.0, mandatory: bool = False) -> Any:
            with contextlib.suppress(DecodeError):  # tests send such on purpose
                self.published.append((route, decode_task(wire), delay_seconds))
            return publish(wire, route, delay_seconds=delay_seconds, mandatory=mandatory)

        self.transport.publish = watched  # type: ignore[method-assign]


def handle(endpoint: TaskEndpoint, delivery: Delivery) -> Outcome:
    """What a worker's slot does, but in a coroutine's case, which runs in a context of its own here."""
    try:
        prepared = endpoint.prepare(delivery)
    except MessageError as error:
        return DeadLetter(error.reason, str(error))
    if not isinstance(prepared, Invocation):
        return prepared
    try:
        result = prepared.function(*prepared.args, **prepared.kwargs)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
    except BaseException as error:  # noqa: BLE001 - the endpoint decides about each
        outcome = endpoint.fail(prepared, error)
    else:
        outcome = endpoint.succeed(prepared, result)
    if prepared.on_end is not None:
        prepared.on_end()
    return outcome


def golden(name: str) -> list[dict[str, Any]]:
    """What Celery 5.7 wrote; see tests/golden/record_celery.py."""
    from pathlib import Path

    path = Path(__file__).parent.parent / "golden" / "celery57" / f"{name}.json"
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def golden_wire(recorded: dict[str, Any]) -> Wire:
    import base64

    body = base64.b64decode(recorded["body_base64"]) if recorded["body_base64"] else recorded["body"].encode("utf-8")
    return wire_of(
        body, recorded["content_type"], recorded["content_encoding"], recorded["headers"], recorded["properties"]
    )
