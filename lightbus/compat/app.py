"""The process's tasks, settings and broker: registration, sending, and where a task's message goes.

A task that Celery would route to queue Q goes to `lightbus.Q` when Lightbus serves it (it is registered here, or named
in `settings.moved`), and otherwise to Celery's own Q, declared as Celery declares it.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from .. import Bus, current_delivery
from ..core.errors import TopologyMismatch
from ..core.message import Route, Wire
from ..core.topology import TASK_QUEUE_PREFIX, Queue, Topology, task_queue_name
from ..forks import renewed_after_fork
from ..publishing import Publication, PublishHook, PublishHooks
from . import announcing, asyncresult, canvas
from .announcing import wire_of
from .canvas import builtin
from .canvas import launch as launching
from .chords import Chords
from .control import Control
from .events import Post, TaskEvents
from .exceptions import QueueNotFound
from .later import LaterConfirms
from .protocol import TaskMessage
from .remote.revokes import Revokes
from .request import Request, current_request
from .resultstore import ResultStore, open_result_store, wait_for
from .sending import Sending, prepare
from .serializers import JSON
from .serving import ServingCheck
from .settings import Settings
from .together import leave_to_the_end

if TYPE_CHECKING:
    from .. import Middleware
    from ..ports import Transport
    from ..result_ports import ResultBackend
    from .task import Task


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A task's message, ready to publish; `parent` is the running task that gets it as a child."""

    wire: Wire
    route: Route
    delay_seconds: float
    message: TaskMessage
    parent: Request | None
    on_published: Callable[[Future[None]], None] | None = None


class TaskApp:
    """The counterpart of a Celery app. Thread-safe once its tasks are registered.

    Args:
        main: replaces the module name `__main__` in the names of tasks, as in Celery.
        bus: carries the messages; without it one is made from `settings.broker_url` on first use.
        transport: as `bus`, for a transport that exists already.
        result_backend: keeps the results; without it one is opened from `settings.result_backend` on first use.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        main: str | None = None,
        bus: Bus | None = None,
        transport: Transport | None = None,
        result_backend: ResultBackend | None = None,
    ) -> None:
        self.tasks: dict[str, Task] = {}
        self.adopted: dict[str, Task] = {}  #: run here, although they are written for Celery; see `bridge.adopt`
        self.main = main
        self._settings = settings or Settings()
        self._settings_source: Callable[[], Settings] | None = None
        self._bus = bus
        self._transport = transport
        self._result_backend = result_backend
        self._results: ResultStore | None = None
        self._task_events: TaskEvents | None = None
        self._revokes: Revokes | None = None
        self._declared: set[str] = set()
        self._middleware: tuple[Middleware, ...] = ()
        self._publish_hooks = PublishHooks()
        self._later = LaterConfirms()
        self._serving = ServingCheck()
        self._lock = threading.RLock()
        renewed_after_fork(self)

    def renew_after_fork(self) -> None:
        """See `lightbus.forks.Renewable`. What it has connected is renewed by itself."""
        self._lock = threading.RLock()

    def take_shared(self, other: TaskApp) -> None:
        """Serve the tasks of `other` that were declared by `shared_task`, for whichever app is the process's own."""
        for name, task in other.tasks.items():
            if task.is_shared and name not in self.tasks:
                self.tasks[name] = task
                self.registered(task)

    def base_class(self) -> type[Task]:
        """The class of tasks that name no `base`."""
        from .task import Task  # it needs this module

        return Task

    def gen_task_name(self, name: str, module: str) -> str:
        """The name of a task that is given none; for subclasses, as in Celery."""
        from .decorators import task_name  # it needs this module

        return task_name(name, module, self.main)

    def registered(self, task: Task) -> None:
        """Called with each task that this app gets."""

    @property
    def settings(self) -> Settings:
        if self._settings_source is None:  # nearly always, and several times per message
            return self._settings
        with self._lock:
            while (source := self._settings_source) is not None:
                self._settings_source = None
                try:
                    settings = source()
                    if self._settings_source is None:  # else reading has changed them: once more
                        self.configure(settings)
                except BaseException:
                    self._settings_source = source  # asked again, and failing again, rather than going on without
                    raise
            return self._settings

    def configure_later(self, source: Callable[[], Settings]) -> None:
        """Use the settings that `source` returns, which is asked when they are first needed."""
        with self._lock:
            self._settings_source = source

    def configure(self, settings: Settings) -> None:
        """Use `settings` from now on. The bus and the results are opened anew when their URLs changed."""
        with self._lock:
            self._settings_source = None
            before, self._settings = self._settings, settings
            self._declared.clear()
            same_broker = (before.read_url, before.write_url, before.broker_transport_options) == (
                settings.read_url, settings.write_url, settings.broker_transport_options,
            )  # fmt: skip
            if not same_broker and self._transport is None:
                self._bus = None
                self._results = None
            if (before.result_backend, before.result_settings) != (settings.result_backend, settings.result_settings):
                self._results = None

    @property
    def bus(self) -> Bus:
        with self._lock:
            if self._bus is None:
                self._bus = Bus(
                    "celery-tasks",
                    url=self.settings.read_url,
                    options=self.settings.broker_transport_options,
                    transport=self._transport or self._two_ways(),
                    middleware=self._middleware,
                )
            return self._bus

    def _two_ways(self) -> Transport | None:
        """What consumes from one broker and publishes to another, where the settings name two."""
        read, write = self.settings.read_url, self.settings.write_url
        if read is None or write is None or read == write:
            return None
        from .two_urls import open_two  # hardly anybody has two

        return open_two(read, write, self.settings.broker_transport_options)

    def use(self, *middleware: Middleware) -> None:
        """Wrap `middleware` around every task that a worker runs for this app; see `lightbus.Bus.use`."""
        with self._lock:
            self._middleware += middleware
            if self._bus is not None:
                self._bus.use(*middleware)

    def on_publish(self, *hooks: PublishHook) -> None:
        """Have `hooks` told of each task that is sent; see `lightbus.publishing`."""
        self._publish_hooks.add(*hooks)

    @property
    def transport(self) -> Transport:
        return self._transport or self.bus.transport

    @property
    def results(self) -> ResultStore:
        """Where results of tasks are kept, by `settings.result_backend`."""
        with self._lock:
            if self._results is None:
                self._results = open_result_store(self.settings, lambda: self.transport, self._result_backend)
            return self._results

    def check_serving(self) -> None:
        """To be called before tasks are served.

        Raises:
            ConfigError: a setting cannot be carried out.
        """
        self._serving.of(self.settings)

    @property
    def revokes(self) -> Revokes:
        """What the workers of this process must not run. Made before they are forked, who share it."""
        with self._lock:
            if self._revokes is None:
                self._revokes = Revokes()
            return self._revokes

    @cached_property
    def control(self) -> Control:
        """Remote control of all workers on the broker, Celery's and Lightbus's."""
        return Control(self)

    def task(self, *args: Any, **options: Any) -> Any:
        """Decorator that registers a function with this app; the options are those of `lightbus.compat.task`."""
        from .decorators import decorate  # it needs this module

        return decorate(lambda: self, args, options)

    def find(self, name: str) -> Task | None:
        """The task of that name: registered here, adopted, or one of the `celery.*` parts of a canvas."""
        task = self.tasks.get(name) or self.adopted.get(name)
        if task is None and name.startswith("celery."):
            from .decorators import build_task  # as above

            function = builtin.functions(self).get(name)
            if function is None:
                return None
            options = builtin.OPTIONS.get(name)
            return build_task(lambda: self, function, name, options or {}, bind=options is not None)
        return task

    def AsyncResult(self, task_id: str) -> asyncresult.AsyncResult:
        """The result of the task with that id; also of one that another process sent."""
        return asyncresult.AsyncResult(task_id, app=self)

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, **options: Any) -> asyncresult.AsyncResult:
        """Send a task by its name, registered here or not. The options are those of `Task.apply_async`.

        Returns:
            AsyncResult: once the broker has taken charge of the message.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: an argument has no JSON form, or an option cannot be honoured.
            TransportError: the broker did not take it.
        """
        outgoing = self.outgoing(name, args, kwargs, options)
        sent = self.transport.publish(outgoing.wire, outgoing.route, delay_seconds=outgoing.delay_seconds)
        return self.sent(outgoing, sent)

    def outgoing(self, name: str, args: Any, kwargs: Any, options: dict[str, Any], *, declare: bool = True) -> Outgoing:
        """All of `send_task` but the publish itself, which the caller does: so the way to the broker stays short.

        Args:
            declare: make the queue stand. Without it the broker is not asked for anything.

        Raises as `send_task` does.
        """
        add_to_parent = options.pop("add_to_parent", True)
        parent = current_request()
        if parent is not None:
            options["root_id"] = options.get("root_id") or parent.root_id or parent.id
            options["parent_id"] = options.get("parent_id") or parent.id
            if self.settings.inherit_parent_priority and parent.delivery_info:
                options.setdefault("priority", parent.delivery_info.get("priority"))
        if options.get("priority") is None:
            options["priority"] = self.settings.default_priority
        if not options.get("compression") and self.settings.compression:
            options["compression"] = self.settings.compression
        if self.settings.task_serializer != JSON and not options.get("serializer"):
            options["serializer"] = self.settings.task_serializer
        sending = prepare(
            name, args, kwargs, options, task_id=str(uuid.uuid4()), now=time.time(), zone=self.settings.zone
        )
        message = sending.message
        if not message.ignore_result:
            reply_to = self.results.expect(message.id)
            message = msgspec.structs.replace(message, reply_to=message.reply_to or reply_to)
            sending = replace(sending, message=message)
        message, route, delay_seconds = self._located(sending, options, declare=declare)
        handled, end = current_delivery(), None
        trace = {} if handled is None else dict(handled.trace)
        if self._publish_hooks:
            publication = Publication(
                kind="task",
                name=name,
                id=message.id,
                exchange=route.exchange,
                routing_key=route.routing_key,
                trace=trace,
            )
            end = self._publish_hooks.begin(publication)
        if trace:
            message = msgspec.structs.replace(message, headers={**trace, **message.headers})
        # What a hook has put there is of the span of this very message: a receiver's own span must not replace it.
        wire = wire_of(message, route, fixed=tuple(trace) if end else ())
        return Outgoing(wire, route, delay_seconds, message, parent if add_to_parent else None, end)

    def sent(self, outgoing: Outgoing, published: Future[None]) -> asyncresult.AsyncResult:
        """Wait until the broker has taken charge, and give the task's result. Within `together` its end waits, and with
        `confirm_later` nobody does; but in a worker, whose message is acknowledged when its task has ended.

        Raises:
            TransportError: it did not.
        """
        if outgoing.on_published is not None:
            published.add_done_callback(outgoing.on_published)
        if not leave_to_the_end(published):
            settings, message = self.settings, outgoing.message
            if settings.confirm_later and current_request() is None:
                what = f"task {message.task}[{message.id}]"
                self._later.add(published, what, settings.publish_timeout_seconds)
            else:
                wait_for(published, settings.publish_timeout_seconds)
        self._tell_of(outgoing.message, outgoing.wire, outgoing.route)
        return self.result_of(outgoing)

    def result_of(self, outgoing: Outgoing) -> asyncresult.AsyncResult:
        """The result of a message that is on its way; a child of the task that sent it."""
        message = outgoing.message
        result = asyncresult.AsyncResult(message.id, app=self, ignored=bool(message.ignore_result))
        if outgoing.parent is not None:
            outgoing.parent.children.append(result)
        return result

    # -- canvas ------------------------------------------------------------------------------------------------------

    def signature(self, task: Any, *args: Any, **options: Any) -> canvas.Signature:
        """A task's signature, by the task, its name or a signature's JSON form."""
        return canvas.signature(task, *args, app=self, **options)

    def launch(self, sig: canvas.Signature, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        """Send a signature; see `Signature.apply_async`."""
        if self.settings.always_eager:
            return launching.run_here(self, sig, args, kwargs, options)
        return launching.launch(self, sig, args, kwargs, options)

    def run_here(self, sig: canvas.Signature, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        """Run a signature in the caller; see `Signature.apply`."""
        return launching.run_here(self, sig, args, kwargs, options)

    def freeze(self, sig: canvas.Signature, task_id: str | None, flow: Mapping[str, Any]) -> Any:
        """Give a signature its ids; see `Signature.freeze`."""
        return launching.freeze(self, sig, task_id, launching.Flow(**flow))

    @property
    def chords(self) -> Chords:
        """The counting of chords, where results are kept."""
        return Chords(self)

    def now_text(self) -> str:
        """The moment in the app's time zone, as results have it."""
        return datetime.fromtimestamp(time.time(), self.settings.zone).isoformat()

    def add_child(self, result: Any) -> None:
        """Note `result` as a child of the task that runs here, if one does."""
        parent = current_request()
        if parent is not None:
            parent.children.append(result)

    def publish(self, sending: Sending, options: Mapping[str, Any] | None = None) -> None:
        """Publish and wait until the broker has taken charge.

        Args:
            options: those of the call, for the routes.

        Raises:
            TransportError: it did not.
        """
        message, route, delay_seconds = self._located(sending, options or {})
        self.publish_to(route, message, delay_seconds=delay_seconds)

    def publish_to(self, route: Route, message: TaskMessage, *, delay_seconds: float = 0.0) -> None:
        """Publish to a route that stands, and wait until the broker has taken charge."""
        wire = wire_of(message, route)
        sent = self.transport.publish(wire, route, delay_seconds=delay_seconds)
        wait_for(sent, self.settings.publish_timeout_seconds)
        self._tell_of(message, wire, route)

    def _tell_of(self, message: TaskMessage, wire: Wire, route: Route) -> None:
        announcing.published(message, wire, route, self.task_events if self.settings.send_sent_event else None)

    @property
    def task_events(self) -> TaskEvents:
        """What monitors are told of this app's tasks."""
        with self._lock:
            if self._task_events is None:
                self._task_events = TaskEvents(lambda: self.transport, lambda: self.event_post)
            return self._task_events

    @property
    def event_post(self) -> Post:
        """Where events of tasks go, and in which form."""
        return Post(self.settings.event_exchange, self.settings.event_serializer)

    def serves(self, name: str) -> bool:
        """Whether the task `name` is served by Lightbus, here or elsewhere."""
        if name == builtin.ACCUMULATE:  # the worker of an app that only adopts may have none of Lightbus's queues
            return bool(self.tasks or self.settings.moved or not self.adopted)
        return name in self.tasks or name in self.settings.moved

    def declare(self, queue: str) -> None:
        """Make the Lightbus queue for Celery's `queue` stand."""
        name = task_queue_name(queue)
        if name not in self._declared:
            self._declare(name, self.settings.celery_queue(queue.removeprefix(TASK_QUEUE_PREFIX)).lightbus_topology)

    def declare_for_celery(self, queue: str) -> Route:
        """Make Celery's own `queue` stand, as Celery would, and say where its messages are published.

        A queue that stands with other arguments than the settings tell is used as it is: it is Celery's.
        """
        known = self.settings.celery_queue(queue)
        try:
            self._declare(queue, known.topology)
        except TopologyMismatch:
            self._declare(queue, lambda: Topology(queues=(Queue(name=queue, passive=True),)))
        return self._celery_route(queue)

    def _celery_route(self, queue: str) -> Route:
        known = self.settings.celery_queue(queue)
        if known.exchange_type == "direct":
            return Route("", queue)
        return Route(known.exchange or queue, known.routing_key or queue)

    def _located(
        self, sending: Sending, options: Mapping[str, Any], *, declare: bool = True
    ) -> tuple[TaskMessage, Route, float]:
        """Where a message goes, and after how many seconds; what it goes through is made to stand, with `declare`."""
        message = sending.message
        name = options.get("route_name") or message.task
        queue = sending.queue or self._queue_of(sending.route) or self.settings.route(name, options)
        if not self.settings.create_missing_queues:
            self._require(queue, name, options.get("queue"))
        if self.serves(name):
            # The header `expires` decides, in the worker, which stores REVOKED. A broker that dropped the message would
            # leave the caller waiting, and while a delayed message waits in the broker its expiry would run off.
            if sending.delay_seconds > 0 or not message.ignore_result:
                message = msgspec.structs.replace(message, expiration_seconds=None)
            if declare:
                self.declare(queue)
            return message, Route("", task_queue_name(queue)), sending.delay_seconds
        if sending.route is not None:
            if declare:
                self._declare_for_route(sending.route)
            return message, sending.route, 0.0
        return message, self.declare_for_celery(queue) if declare else self._celery_route(queue), 0.0

    def _require(self, queue: str, name: str, asked: object) -> None:
        """Raises QueueNotFound: the settings know no such queue, and nobody has described it in the call."""
        known = {self.settings.default_queue, *(one.name for one in self.settings.celery_queues)}
        if queue not in known and (asked is None or isinstance(asked, str)):
            raise QueueNotFound(
                f"queue {queue!r}, to which task {name!r} is to go, is missing from task_queues, which has "
                f"{', '.join(sorted(known))}, and task_create_missing_queues is off"
            )

    def _queue_of(self, route: Route | None) -> str:
        """The queue that an exchange and a routing key lead to, where the settings tell; else `""`."""
        if route is None:
            return ""
        for queue in self.settings.celery_queues:
            if (queue.exchange or queue.name, queue.routing_key or queue.name) == (route.exchange, route.routing_key):
                return queue.name
        return "" if route.exchange else route.routing_key

    def _declare_for_route(self, route: Route) -> None:
        """Make stand what the settings know behind an exchange that a caller named."""
        for queue in self.settings.celery_queues:
            if (queue.exchange or queue.name) == route.exchange:
                self.declare_for_celery(queue.name)
        if not route.exchange:
            self.declare_for_celery(route.routing_key)

    def _declare(self, queue: str, topology: Callable[[], Topology]) -> None:
        if queue not in self._declared:
            self.transport.declare(topology())
            self._declared.add(queue)

    @contextmanager
    def on_transport(self, transport: Transport, result_backend: ResultBackend) -> Iterator[None]:
        """Within the block tasks are sent by `transport` and results kept in `result_backend`; for tests."""
        before = self._exchange(transport, result_backend, None, None, set())
        try:
            yield
        finally:
            _, _, _, results, _ = self._exchange(*before)
            if results is not None:
                results.close()

    def _exchange(
        self,
        transport: Transport | None,
        result_backend: ResultBackend | None,
        bus: Bus | None,
        results: ResultStore | None,
        declared: set[str],
    ) -> tuple[Transport | None, ResultBackend | None, Bus | None, ResultStore | None, set[str]]:
        """Use these connections from now on; returns those before."""
        with self._lock:
            before = self._transport, self._result_backend, self._bus, self._results, self._declared
            self._transport, self._result_backend = transport, result_backend
            self._bus, self._results, self._declared = bus, results, declared
        return before

    def wait_for_confirms(self) -> None:
        """With `confirm_later`: until what was sent by now is confirmed; what is not in time is logged."""
        self._later.wait(self.settings.publish_timeout_seconds)

    def close(self) -> None:
        """Stop waiting for results and disconnect. The app can be used again afterwards."""
        self.wait_for_confirms()
        if self._task_events is not None:
            self._task_events.close()
        with self._lock:
            if self._results is not None:
                self._results.close()
                self._results = None
            if self._bus is not None:
                self._bus.close()
                self._bus = None
            self._declared.clear()


_default: TaskApp | None = None
_default_lock = threading.RLock()


def default_app() -> TaskApp:
    """The process's own app: the one that `lightbus.compat.task` registers with, Celery's "current app"."""
    global _default  # noqa: PLW0603 - decorators run at import time, before anybody could pass an app
    if _default is not None:  # asked several times for every message
        return _default
    with _default_lock:
        if _default is None:
            _default = TaskApp()
        return _default


def set_default_app(app: TaskApp) -> None:
    """Make `app` the process's own; it takes the tasks of `shared_task` over from the one before."""
    global _default
    with _default_lock:
        before, _default = _default, app
        if before is not None and before is not app:
            app.take_shared(before)
