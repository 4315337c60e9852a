"""What a worker does with a task message: run it, wait, hand it over, or park it. What this side cannot do is parked
before the task runs; the end of a run is in `endings`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from ..core.errors import DecodeError, HandlerNotFound, TransportError
from ..core.message import MAX_COUNT, Route, Wire
from ..core.outcome import Ack, DeadLetter, Forward, Outcome, Requeue
from ..core.rate import Rate
from ..core.topology import TASK_QUEUE_PREFIX, Queue, Topology
from ..endpoint import Invocation, LostRun
from ..ports import Delivery
from .calling import function_of
from .endings import Endings, as_celery
from .events.observer import EventObserver
from .exceptions import (
    NotRegistered,
    Reject,
    TaskRevokedError,
    soft_limit_error,
)
from .fields import is_name, moment
from .forwarding import hand_over
from .losses import remains_of, wire_of
from .node import Node, node_name
from .observing import Observers
from .protocol import TaskMessage, decode_task
from .queues import TaskQueues
from .recording import Recorder, Run
from .remote.requests import described, stamps_of
from .settings import rate_from
from .signals.observer import SignalObserver
from .signatures import unsupported
from .task import Task

if TYPE_CHECKING:
    from .app import TaskApp

logger = logging.getLogger(__name__)

_TRACE_HEADERS = frozenset(("traceparent", "tracestate"))
_NO_TRACE: Mapping[str, str] = {}


class TaskEndpoint:
    """Serves the tasks of `app`.

    Args:
        queues: literal queue names to serve; without them `lightbus.Q` for the default queue, each queue that Celery
            knows, and each that a task of `app` routes to.
        hostname: the worker's name in results, requests, signals and events; `lightbus@<host>` by default.
        now: Unix seconds, for what is too early or too late.
    """

    kind = "task"

    def __init__(
        self, app: TaskApp, *, queues: Sequence[str] = (), hostname: str = "", now: Callable[[], float] = time.time
    ) -> None:
        self._app = app
        self._now = now
        self._queues = TaskQueues(app, queues)
        self._hostname = node_name(hostname)
        self._recorder = Recorder(app)
        self._events = app.task_events
        self._events.switch.on |= app.settings.send_task_events
        node = Node(self._hostname, app)
        self._observers = Observers([SignalObserver(node), EventObserver(app, node)])
        self._endings = Endings(app, self._recorder, self._observers)
        self._revokes = app.revokes

    @property
    def hostname(self) -> str:
        return self._hostname

    @property
    def blocking(self) -> bool:
        return True  # the result store

    def queues(self) -> Collection[str]:
        return self._queues.names()

    def topology(self) -> Topology:
        self._app.check_serving()
        _ = self._app.results  # a result backend that is not supported stops the worker here, not each of its tasks
        return self._queues.topology()

    def rates(self) -> Mapping[str, Rate | None]:
        """See `Rated`: by task."""
        if self._app.settings.disable_rate_limits:
            return {}
        tasks = {**self._app.adopted, **self._app.tasks}
        return {name: rate_from(task.setting("rate_limit")) for name, task in tasks.items()}

    def rate_name(self, delivery: Delivery) -> str | None:
        """See `Rated`. What is too early or too late takes no turn, as in Celery."""
        headers = delivery.wire.headers
        name = headers.get("task")
        if isinstance(name, str) and not headers.get("eta") and not headers.get("expires"):
            return name
        try:
            message = self._decode(delivery.wire)
        except DecodeError:
            return None
        zone, now = self._app.settings.zone, self._now()
        if message.expires is not None and moment(message.expires, zone) < now:
            return None
        if message.eta is not None and moment(message.eta, zone) > now:
            return None
        return message.task

    def prepare(self, delivery: Delivery) -> Invocation | Outcome:
        name = delivery.wire.headers.get("task")
        if isinstance(name, str) and self._app.find(name) is None:
            return self._unknown(name, delivery)  # before decoding: its body may be of a kind that only Celery reads
        try:
            message = self._decode(delivery.wire)
        except DecodeError as error:
            self._tell_undecodable(delivery, error)
            self._observers.unreadable(delivery, error)
            raise
        task = self._app.find(message.task)
        if task is None:
            return self._unknown(message.task, delivery)
        run = self._run(task, message, delivery)
        if self._revokes and self._revokes.covers(message.id, stamps_of(delivery.wire.headers)):
            return self._endings.revoked(run, "revoked")
        outcome = self._not_now(run)
        if outcome is not None:
            return outcome
        self._observers.received(run)
        return self._not_here(run) or self._invocation(run)

    def succeed(self, invocation: Invocation, result: object) -> Outcome:
        run = _run_of(invocation)
        try:
            return self._endings.succeeded(run, result)
        except Exception as error:
            self._observers.broken(run, error)
            raise

    def fail(self, invocation: Invocation, error: BaseException) -> Outcome:
        run = _run_of(invocation)
        try:
            return self._endings.ended_by(run, error)
        except Exception as defect:
            self._observers.broken(run, defect)
            raise

    def leave(self) -> None:
        """See `EndsWithProcess`."""
        self._events.close()

    def lost(self, run: LostRun) -> None:
        """See `HearsOfLosses`: store FAILURE, as the parent of a Celery worker does."""
        wire, error = wire_of(run), as_celery(run.error)
        message = TaskMessage(task=run.name, id=run.id, reply_to=run.reply_to, correlation_id=run.id)
        if wire is not None:
            message = self._decode(wire)
        task = self._app.find(run.name) or self._stand_in(run.name)
        settled = Delivery(wire or Wire(body=b""), run.queue, redelivered=False, settle=lambda settlement: None)
        if message.id in self._revokes:  # its process hung, and was killed because it did not end
            self._endings.revoked(self._run(task, message, settled), "terminated")
            return
        self._endings.failed(self._run(task, message, settled), error)

    def describe(self, delivery: Delivery) -> dict[str, object]:
        """See `Steerable`, as for the next two."""
        return described(delivery, self._hostname)

    def change(self, word: str, value: Mapping[str, object]) -> None:
        task = self._app.find(str(value.get("task")))
        if task is not None and word == "task":
            for name in ("time_limit", "soft_time_limit", "rate_limit"):
                if name in value:
                    setattr(task, name, value[name])

    def add_queue(self, name: str) -> Topology | None:
        return self._queues.add(name)

    def _unknown(self, name: str, delivery: Delivery) -> Outcome:
        """Hand a task that is not known here to Celery, or park it."""
        known = self._app.tasks
        outcome: Outcome = DeadLetter(HandlerNotFound.reason, str(HandlerNotFound(name, known)))
        if self._app.settings.celery_serves_others:
            queue = delivery.queue.removeprefix(TASK_QUEUE_PREFIX)
            outcome = hand_over(name, delivery.wire, Queue(name=queue), self._hostname, known)
            if isinstance(outcome, Forward):
                try:
                    self._app.declare_for_celery(queue)
                except TransportError as error:
                    logger.warning("task %s: Celery's queue %r could not be declared: %s", name, queue, error)
                    return Requeue()
                return outcome
        try:
            message = self._decode(delivery.wire)
        except DecodeError:
            self._observers.unreadable(delivery, HandlerNotFound(name, known))
            return outcome
        run = self._run(self._stand_in(name), message, delivery)
        self._endings.record_failure(run, NotRegistered(name))
        self._observers.unknown(run)
        return outcome

    def _decode(self, wire: Wire) -> TaskMessage:
        settings = self._app.settings
        return decode_task(wire, settings.task_max_bytes, settings.accept_content)

    def _tell_undecodable(self, delivery: Delivery, error: DecodeError) -> None:
        """Fail the result of a message that cannot be read, where its headers tell whose result that is, and count it
        for its chord, if it is a part of one: the body would tell, but the count goes by the header `group`."""
        wire, headers = delivery.wire, delivery.wire.headers
        name, task_id, group, index = (headers.get(key) for key in ("task", "id", "group", "group_index"))
        if not is_name(name) or not is_name(task_id):
            return
        message = TaskMessage(
            task=str(name), id=str(task_id), reply_to=wire.reply_to, correlation_id=wire.correlation_id,
            group=str(group) if is_name(group) else None,
            group_index=index if type(index) is int and abs(index) <= MAX_COUNT else None,
        )  # fmt: skip
        run = self._run(self._stand_in(message.task), message, delivery)
        self._endings.record_failure(run, error)
        if message.group:
            try:
                self._recorder.unread(run, error)
            except TransportError as lost:
                logger.error("task %s[%s]: it was not counted for its chord: %s", name, task_id, lost)

    def _stand_in(self, name: str) -> Task:
        """A task with the settings' defaults: what is stored for a name without a function."""
        app = self._app
        task: Task = type("UnknownTask", (Task,), {"name": name, "_get_app": staticmethod(lambda: app)})()
        return task

    def _run(self, task: Task, message: TaskMessage, delivery: Delivery) -> Run:
        return Run(task, message, delivery, self._hostname)

    def _not_now(self, run: Run) -> Outcome | None:
        """The outcome of a message that is too late or too early."""
        message, zone, now = run.message, self._app.settings.zone, self._now()
        if message.expires is not None and moment(message.expires, zone) < now:
            logger.info("task %s[%s] had expired at %s", message.task, message.id, message.expires)
            try:
                self._recorder.revoked(run, TaskRevokedError("expired"))
            except TransportError as error:
                return DeadLetter("result-lost", f"it expired at {message.expires}; REVOKED was not stored: {error}")
            self._observers.revoked(run, terminated=False, signum=None, expired=True)
            return Ack("expired")
        if message.eta is not None and (left := moment(message.eta, zone) - now) > 0:
            # Its expiry would run off in the broker; the header `expires` decides when it comes back.
            wire = msgspec.structs.replace(run.delivery.wire, expiration_seconds=None)
            return Forward(Route("", run.delivery.queue), wire, delay_seconds=left)
        return None

    def _not_here(self, run: Run) -> Outcome | None:
        """The outcome of a message that must not run: this side cannot do what it asks, or its arguments are wrong."""
        message = run.message
        followed = message.callbacks or message.errbacks or message.chain or message.chord
        reason = unsupported(message, counts_chords=self._app.chords.possible) if followed else None
        if reason is not None:
            text = f"task {run.message.task!r} was not run: {reason}"
            return self._endings.park(run, "unsupported", text, Reject(text))
        if not run.task.typing:
            return None
        try:
            run.task.check_arguments(message.args, message.kwargs)
        except TypeError as error:
            outcome = self._endings.park(run, "bad-arguments", str(error), error)
            self._endings.send_errbacks(run, error)
            return outcome
        return None

    def _invocation(self, run: Run) -> Invocation:
        message, task = run.message, run.task
        headers = run.delivery.wire.headers
        early = not task.setting("acks_late")
        hard, soft = message.timelimit
        hard, soft = hard or task.setting("time_limit"), soft or task.setting("soft_time_limit")
        return Invocation(
            function=function_of(run, self._recorder, self._observers),
            args=message.args,
            kwargs=message.kwargs,
            name=message.task,
            id=message.id,
            kind=self.kind,
            queue=run.delivery.queue,
            correlation_id=message.root_id or message.id,
            causation_id=message.parent_id or "",
            trace=_NO_TRACE if _TRACE_HEADERS.isdisjoint(headers) else _trace(headers),
            attempt=message.retries + 1,
            redelivered=run.delivery.may_repeat,
            soft_limit_seconds=soft,
            soft_limit_error=soft_limit_error(),
            hard_limit_seconds=hard,
            ack_early=early,
            remains=remains_of(run.delivery.wire) if early and _concerns_others(message) else b"",
            state=run,
            on_end=partial(self._observers.ended, run),
        )


def _run_of(invocation: Invocation) -> Run:
    run = invocation.state
    assert isinstance(run, Run), "an invocation comes back to the endpoint that made it"
    return run


def _trace(headers: Mapping[str, object]) -> dict[str, str]:
    return {key: str(headers[key]) for key in sorted(_TRACE_HEADERS) if key in headers}


def _concerns_others(message: TaskMessage) -> bool:
    """Its failure is more than its own result: errbacks, the rest of its chain, its chord."""
    return bool(message.errbacks or message.chain or message.chord or message.group)
