"""`self.request`: what a task may ask about the message that runs it, and which task runs here right now.

The stack of running tasks lives in a context variable: it follows a coroutine, and each thread has its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from . import celery_context
from .embedded import SignatureDict
from .protocol import TaskMessage

if TYPE_CHECKING:
    from .task import Task


class Request:
    """The request that a task runs for; Celery calls it Context. Every header of the message is an attribute too.

    Attributes:
        id, task, args, kwargs: what was asked for.
        retries: tries before this one.
        called_directly: the task was called like a function; there is no message.
        is_eager: it runs in the caller, by `apply` or `task_always_eager`.
        delivery_info: `exchange`, `routing_key`, `priority`, `redelivered`.
        properties: AMQP properties of the message.
        headers: headers that are not Celery's, or None.
        timelimit: `[hard, soft]` in seconds, also as `time_limit` and `soft_time_limit`.
        children: results of the tasks that this one sent.
    """

    id: str | None = None
    task: str | None = None
    args: Any = None
    kwargs: Any = None
    retries: int = 0
    is_eager: bool = False
    called_directly: bool = True
    is_entered: bool = False  # the run has begun: a call of the task from here is a call like a function's
    hostname: str | None = None
    delivery_info: Mapping[str, Any] | None = None
    properties: Mapping[str, Any] | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    eta: str | None = None
    expires: str | None = None
    group: str | None = None
    group_index: int | None = None
    chord: SignatureDict | None = None
    chain: list[SignatureDict] | None = None
    callbacks: list[SignatureDict] | None = None
    errbacks: list[SignatureDict] | None = None
    root_id: str | None = None
    parent_id: str | None = None
    origin: str | None = None
    utc: bool | None = None
    timelimit: list[float | None] | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    headers: Mapping[str, Any] | None = None
    stamped_headers: list[str] | None = None
    stamps: Mapping[str, Any] | None = None
    shadow: str | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: int = 0
    logfile: str | None = None
    loglevel: int | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    lang: str | None = None
    sent_again: bool = False  # by `retry`
    taskset: str | None = None  # the older name of `group`

    def __init__(self, **fields: Any) -> None:
        self.children: list[Any] = []
        vars(self).update(fields)

    def get(self, key: str, default: Any = None) -> Any:
        """The attribute `key`, or `default`."""
        return getattr(self, key, default)

    def __repr__(self) -> str:
        return f"<Request: {self.task}[{self.id}]>"


def request_from(message: TaskMessage, *, queue: str, redelivered: bool, hostname: str) -> Request:
    """The request of a message that arrived on `queue`."""
    limits = list(message.timelimit)
    task_id = message.id
    properties = _properties(message)
    request = Request.__new__(Request)
    request.__dict__ = {  # at once: 35 keywords, or a dictionary that grows, take twice as long
        "children": [],
        "id": task_id,
        "task": message.task,
        "args": list(message.args),
        "kwargs": dict(message.kwargs),
        "retries": message.retries,
        "called_directly": False,
        "hostname": hostname,
        "delivery_info": {
            "exchange": "", "routing_key": queue, "priority": message.priority, "redelivered": redelivered,
        },
        "properties": properties,
        "correlation_id": properties["correlation_id"],
        "reply_to": message.reply_to or None,
        "eta": message.eta,
        "expires": message.expires,
        "group": message.group,
        "taskset": message.group,
        "group_index": message.group_index,
        "chord": message.chord,
        "chain": _as_list(message.chain),
        "callbacks": _as_list(message.callbacks),
        "errbacks": _as_list(message.errbacks),
        "root_id": message.root_id or task_id,
        "parent_id": message.parent_id,
        "origin": message.origin,
        "utc": message.utc,
        "timelimit": limits,
        "time_limit": limits[0],
        "soft_time_limit": limits[1],
        "headers": dict(message.headers) or None,
        "stamped_headers": _as_list(message.stamped_headers),
        "stamps": dict(message.stamps),
        "shadow": message.shadow,
        "ignore_result": message.ignore_result,
        "replaced_task_nesting": message.replaced_task_nesting,
        "argsrepr": message.argsrepr,
        "kwargsrepr": message.kwargsrepr,
        "lang": message.lang,
    }  # fmt: skip
    for key, value in message.headers.items():
        if not hasattr(request, key):
            setattr(request, key, value)
    return request


def _properties(message: TaskMessage) -> dict[str, Any]:
    properties: dict[str, Any] = {
        **message.properties,
        "correlation_id": message.correlation_id or message.id,
        "reply_to": message.reply_to,
        "delivery_mode": 2 if message.durable else 1,
        "priority": message.priority,
    }
    if message.expiration_seconds is not None:
        properties["expiration"] = str(int(message.expiration_seconds * 1000))
    return properties


def _as_list(values: tuple[Any, ...] | None) -> list[Any] | None:
    return None if values is None else list(values)


class Entry(Protocol):
    """A task that runs, and its request, which need not be made before somebody asks for it."""

    @property
    def task(self) -> Task: ...
    @property
    def request(self) -> Request: ...


@dataclass(slots=True)
class Running:
    """An entry whose request is there."""

    task: Task
    request: Request


_stack: ContextVar[tuple[Entry, ...]] = ContextVar("lightbus_tasks", default=())


class entered:
    """Within the block the request of that task is the entry's, and what is sent has it as its parent.

    Args:
        in_celery: for Celery too, where it is loaded. Not around an `await`: see `celery_context.within_task`.
    """

    __slots__ = ("_celery", "_entry", "_token")

    def __init__(self, entry: Entry, *, in_celery: bool = True) -> None:
        self._entry = entry
        self._celery = celery_context.stack() if in_celery else None

    def __enter__(self) -> None:
        self._token = _stack.set((*_stack.get(), self._entry))
        if self._celery is not None:
            self._celery.push(self._entry.task)

    def __exit__(self, *_: object) -> None:
        if self._celery is not None:
            self._celery.pop()
        _stack.reset(self._token)


def running(task: Task, request: Request) -> entered:
    """Within the block `task.request` is `request`; see `entered`."""
    return entered(Running(task, request))


def request_of(task: Task) -> Request | None:
    """The request that `task` runs for here, or None when it does not run."""
    return next((entry.request for entry in reversed(_stack.get()) if entry.task is task), None)


def current_request() -> Request | None:
    """The request of the task that runs here, by a message or eagerly; None outside, and in plain calls of a task."""
    requests = (entry.request for entry in reversed(_stack.get()))
    return next((request for request in requests if not request.called_directly), None)


def current_entry() -> tuple[Task, Request] | None:
    """The task that runs here and its request, or None."""
    stack = _stack.get()
    return (stack[-1].task, stack[-1].request) if stack else None


def _current_task() -> Task | None:
    stack = _stack.get()
    return stack[-1].task if stack else None


class CurrentTask:
    """The task that runs here. Calling it gives that task or None; its attributes are that task's, as in Celery.

    Raises:
        AttributeError: an attribute is asked for where no task runs.
    """

    def __call__(self) -> Task | None:
        return _current_task()

    def __getattr__(self, name: str) -> Any:
        task = _current_task()
        if task is None:
            raise AttributeError(f"no task runs here that could have {name!r}")
        return getattr(task, name)

    def __bool__(self) -> bool:
        return bool(_stack.get())

    def __repr__(self) -> str:
        return repr(self())


current_task = CurrentTask()
