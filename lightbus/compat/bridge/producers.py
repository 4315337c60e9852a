"""What a Celery app sends for a moved task: to which queue, and what stands in for the task in Celery's registry."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from celery import Celery, signals
from celery.app.registry import TaskRegistry
from celery.app.routes import Router
from celery.utils.imports import symbol_by_name
from kombu.common import Broadcast

from ...core.topology import TASK_QUEUE_PREFIX
from ..app import default_app
from ..task import Task
from .bridge import Bridge, bridge_of

#: Options of a compat task that are Celery's too: what callers of the stub send is what callers of the task send.
_STUB_OPTIONS = (
    "queue", "priority", "expires", "serializer", "delivery_mode", "time_limit", "soft_time_limit", "ignore_result",
    "max_retries", "default_retry_delay", "typing",
)  # fmt: skip

STRATEGY = "lightbus.compat.bridge:forward_strategy"


class _BridgeRouter(Router):  # type: ignore[misc]  # celery carries no types
    """Celery's router, asked first; its answer for a moved task is turned to Lightbus's queue."""

    def __init__(self, bridge: Bridge, router: Any) -> None:
        super().__init__(router.routes, router.queues, router.create_missing, app=router.app)
        self._bridge = bridge
        self.celery_route = router.route

    def route(
        self, options: dict[str, Any], name: str, args: Any = (), kwargs: Any = None, task_type: Any = None
    ) -> Any:
        queue = options.get("queue")
        if isinstance(queue, str) and queue.startswith(TASK_QUEUE_PREFIX) and queue not in self.queues:
            # Named outright, as `celery.chord_unlock` does with the queue of its body: declare it as Lightbus does.
            ours = self._bridge.kombu_queue(self._bridge.lightbus_queue(queue))
            return self.celery_route({**options, "queue": ours}, name, args, kwargs, task_type)
        asked = any(
            options.get(key) and options[key] != getattr(task_type, key, None)
            for key in ("queue", "exchange", "routing_key")
        )
        route = self.celery_route(options, name, args, kwargs, task_type)
        if asked or not self._bridge.is_moved(name) or isinstance(route.get("queue"), Broadcast):
            return route
        celery_queue = self._bridge.queue_name(route)
        rest = {key: value for key, value in route.items() if key not in ("exchange", "exchange_type", "routing_key")}
        return {**rest, "queue": self._bridge.kombu_queue(self._bridge.lightbus_queue(celery_queue))}


class _Routed:
    """Mixed into the class of `app.amqp`; Celery makes a new router whenever its routes change."""

    def Router(self, queues: Any = None, create_missing: Any = None) -> _BridgeRouter:
        amqp: Any = super()
        return _BridgeRouter(bridge_of(self.app), amqp.Router(queues, create_missing))  # type: ignore[attr-defined]

    def _create_task_sender(self) -> Callable[..., Any]:
        amqp: Any = super()
        send = amqp._create_task_sender()

        def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
            queue = options.get("queue")
            to_lightbus = str(getattr(queue, "name", queue) or "").startswith(TASK_QUEUE_PREFIX)
            if to_lightbus and not message[0].get("ignore_result"):
                # The header `expires` decides, in the worker, which stores REVOKED; see `TaskApp`.
                options.pop("expiration", None)
            return send(producer, name, message, **options)

        return send_task_message


def route_through(app: Celery) -> None:
    base = symbol_by_name(app.amqp_cls)
    routed = type(f"Bridged{base.__name__}", (_Routed, base), {"__module__": __name__})
    app.amqp_cls = routed
    made = vars(app).get("amqp")
    if made is not None:  # the app was used before `install`
        made.__class__ = type(f"Bridged{type(made).__name__}", (_Routed, type(made)), {"__module__": __name__})
        for cached in ("router", "send_task_message"):
            vars(made).pop(cached, None)


class _Registry(TaskRegistry):  # type: ignore[misc]  # celery carries no types
    """Celery's registry, which finds a task of Lightbus that was imported after the stubs were made."""

    bridge: Bridge

    def __missing__(self, name: str) -> Any:
        add_stubs(self.bridge)
        task = self.get(name)
        return super().__missing__(name) if task is None else task


def keep_stubs(app: Celery, bridge: Bridge) -> None:
    """Add the stubs when Celery binds its tasks, before a worker forks its pool, and when one is asked for."""
    registry = app._tasks
    if type(registry) is TaskRegistry:
        registry.__class__ = _Registry
        registry.bridge = bridge

    def now(instance: Any = None, **_arguments: object) -> None:
        if instance is None or instance.app is app:
            add_stubs(bridge)

    app.on_after_finalize.connect(now, weak=False)
    signals.celeryd_after_setup.connect(now, weak=False)


def add_stubs(bridge: Bridge) -> None:
    """Register a Celery task for each task that Lightbus has in this process and Celery has not.

    It keeps the name known to Celery (`inspect registered`, `link_error`, `app.tasks`), sends to Lightbus, and
    its strategy hands over.
    """
    for name, task in list(default_app().tasks.items()):
        if name in bridge.app._tasks or name.startswith("celery."):
            continue
        options = {key: getattr(task, key) for key in _STUB_OPTIONS if getattr(task, key) is not None}
        bridge.app.task(name=name, shared=False, Strategy=STRATEGY, **options)(_stub_function(task))


def _stub_function(task: Task) -> Callable[..., Any]:
    """What Celery calls when it calls the task itself: new-style errbacks, `apply`, `task_always_eager`."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return task(*args, **kwargs)

    name = type(task).__name__
    run.__name__ = run.__qualname__ = name if name.isidentifier() else "run"  # a lambda has none that Celery can use
    run.__module__, run.__doc__ = task.__module__, task.__doc__
    run.__signature__ = inspect.signature(task.run)  # type: ignore[attr-defined]  # Celery checks arguments by it
    return run
