"""A project whose tasks exist twice: for Celery under `c.`, and moved to Lightbus under `l.`. For test_matrix.

MATRIX_BROKER, MATRIX_RESULTS: URLs. MATRIX_NOTES: a Redis, to which tasks without a result of their own write.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import celery.exceptions
import redis
from celery import Celery
from celery import canvas as celery_canvas

from lightbus import compat
from lightbus.compat.bridge import install
from tests.compat.matrix_scenarios import NOTES_KEY

app = Celery("matrix", broker=os.environ["MATRIX_BROKER"], backend=os.environ["MATRIX_RESULTS"])
app.conf.update(
    broker_connection_retry_on_startup=True, task_allow_error_cb_on_chord_header=False, result_chord_retry_interval=0.3,
    result_extended=True,
)  # fmt: skip
install(app)

WORDS = {"c": celery.exceptions, "l": compat}  #: what a task of that side raises to steer its worker
CANVAS = {"c": celery_canvas, "l": compat}

Function = Callable[..., Any]


class Refused(Exception):
    """An error that only this project knows, and that nobody can make of its arguments alone."""

    def __init__(self, who: str, *, code: int) -> None:
        super().__init__(who)
        self.code = code


def task(**options: Any) -> Callable[[Function], Function]:
    """Make the function a task of both sides."""

    def twice(function: Function) -> Function:
        app.task(name=f"c.{function.__name__}", shared=False, **options)(function)
        compat.task(name=f"l.{function.__name__}", **options)(function)
        return function

    return twice


def sibling(running: Any, name: str, *args: Any) -> Any:
    """A signature of the task `name` on the side of the task that runs."""
    side = running.name[0]
    of = {"app": app} if side == "c" else {}
    return CANVAS[side].signature(f"{side}.{name}", args=args, **of)


def note(key: str, *words: Any) -> None:
    with redis.Redis.from_url(os.environ["MATRIX_NOTES"]) as notes:
        notes.rpush(NOTES_KEY.format(key), json.dumps(words))


# Plain ones


@task()
def add(a: Any, b: Any = 0) -> Any:
    return a + b


@task()
def total(numbers: Any) -> Any:
    return sum(numbers)


@task()
def echo(*args: Any, **kwargs: Any) -> Any:
    return [args, kwargs]


@task(ignore_result=True)
def silent(value: Any) -> Any:
    return value


@task()
def waited(since: float) -> Any:
    return time.time() >= since


# Errors


@task()
def fail(*args: Any) -> None:
    raise ValueError("no", 7)


@task()
def refuse() -> None:
    raise Refused("not you", code=3)


@task()
def caused() -> None:
    try:
        {}["missing"]
    except KeyError as error:
        raise RuntimeError("no such thing") from error


@task()
def unwritable() -> Any:
    return object()


@task(throws=(LookupError,))
def expected() -> None:
    raise LookupError("as was said")


# Steering


@task(bind=True, max_retries=2)
def again(self: Any, least: int, *, exc: bool = True) -> Any:
    if self.request.retries < least:
        raise self.retry(exc=KeyError(f"try {self.request.retries}") if exc else None, countdown=0.05)
    return self.request.retries


@task(bind=True, max_retries=5)
def climb(self: Any, step: int, top: int = 0) -> Any:
    """Tried again with other arguments."""
    if step < top:
        raise self.retry(args=(step + 1,), kwargs={"top": top}, countdown=0)
    return [step, self.request.retries]


@task(bind=True, autoretry_for=(OSError,), dont_autoretry_for=(FileNotFoundError,), max_retries=2, retry_backoff=False,
      default_retry_delay=0)  # fmt: skip
def stubborn(self: Any, least: int, *, missing: bool = False) -> Any:
    if missing:
        raise FileNotFoundError(2, "gone")
    if self.request.retries < least:
        raise OSError(5, "away")
    return self.request.retries


@task(bind=True)
def progress(self: Any) -> None:
    self.update_state(state="PROGRESS", meta={"done": 5})
    raise WORDS[self.name[0]].Ignore


@task(bind=True)
def reject(self: Any) -> None:
    raise WORDS[self.name[0]].Reject("not mine", requeue=False)


@task(bind=True, acks_late=True)
def reject_once(self: Any) -> Any:
    if not self.request.delivery_info.get("redelivered"):
        raise WORDS[self.name[0]].Reject(requeue=True)
    return "at the second look"


@task(bind=True, soft_time_limit=0.3)
def slow(self: Any, *, catches: bool) -> Any:
    try:
        while True:
            sum(range(1000))
    except WORDS[self.name[0]].SoftTimeLimitExceeded:
        if not catches:
            raise
        return "stopped in time"


@task(bind=True)
def replaced(self: Any, how: str) -> Any:
    canvas = CANVAS[self.name[0]]
    match how:
        case "task":
            found = sibling(self, "add", 20, 22)
        case "chain":
            found = canvas.chain(sibling(self, "add", 1, 1), sibling(self, "add", 5))
        case "group":
            found = canvas.group(sibling(self, "add", 1, 1), sibling(self, "add", 2, 2))
        case "chord":
            found = canvas.chord([sibling(self, "add", 1, 1), sibling(self, "add", 2, 2)], sibling(self, "total"))
        case "failing":
            found = sibling(self, "fail")
        case "twice":
            found = sibling(self, "replaced", "task")
        case _:
            raise AssertionError(how)
    return self.replace(found)


@task(bind=True)
def grow(self: Any) -> Any:
    """Adds a task to the chord that it is a part of."""
    self.add_to_chord(sibling(self, "add", 100, 0))
    return 1


@task(bind=True)
def parent(self: Any) -> Any:
    return [sibling(self, "add", 1, 2).apply_async().id]


# What a task sees


@task(bind=True)
def about(self: Any, *args: Any, **kwargs: Any) -> Any:
    request = self.request
    info = request.delivery_info
    return {
        "name": [self.name[2:], request.task[2:]], "arguments": [args, kwargs, request.args, request.kwargs],
        "ids": [request.root_id == request.id, request.parent_id, request.correlation_id == request.id],
        "group": [request.group, request.chord, request.chain, request.callbacks, request.errbacks],
        "limits": [request.timelimit, request.expires is not None, request.eta is not None],
        "headers": [request.headers, getattr(request, "my_header", None)], "retries": request.retries,
        "how": [request.called_directly, request.is_eager, bool(request.ignore_result), request.utc, request.lang],
        "delivery": [
            info["exchange"], info["routing_key"].removeprefix("lightbus."), info["priority"], info["redelivered"],
        ],
        "replaced": request.replaced_task_nesting, "stamps": [request.stamped_headers, request.stamps],
        "origin": request.origin.partition("@")[0][:3], "repr": [request.argsrepr, request.kwargsrepr],
        "shadow": request.shadow,
    }  # fmt: skip


@task(bind=True)
def family(self: Any, *values: Any) -> Any:
    """Whether its root and its parent are those that its chain, group or chord says."""
    request = self.request
    return [request.root_id, request.parent_id, request.group is not None, getattr(request, "group_index", None)]


# What comes after an end


@task()
def errback_by_id(task_id: str, key: str) -> None:
    note(key, "id", task_id)


@task()
def errback_by_failure(request: Any, exc: BaseException, traceback: Any, key: str) -> None:
    note(key, "failure", request.id, type(exc).__name__, str(exc), "Traceback" in (traceback or ""))


@task(bind=True)
def errback_bound(self: Any, *args: Any) -> None:
    note(args[-1], "bound", *args[:-1])
