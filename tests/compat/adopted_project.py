"""A project that is written for Celery and knows nothing of Lightbus, for test_adopt.

As a program it is the client: it sends every scenario to the queue that its argument names, and prints what came of it.
ADOPT_BROKER, ADOPT_BACKEND: URLs. ADOPT_LOG: a file, to which tasks append what they see, with `{queue}` in its name.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from celery import Celery, Task, chain, chord, current_app, current_task, group
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

app = Celery("adopted", broker=os.environ["ADOPT_BROKER"], backend=os.environ["ADOPT_BACKEND"])
app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1, result_extended=True)


HOOKED_RUNS = 4  #: runs of `run_all` that end with the hook `after_return`


def note(task: Task, *words: object) -> None:
    queue = (task.request.delivery_info or {}).get("routing_key")
    with open(os.environ["ADOPT_LOG"].format(queue=queue), "a", encoding="utf-8") as file:
        file.write(json.dumps([task.request.id, *map(str, words)]) + "\n")


class Hooked(Task):
    """All methods that Celery calls around a run."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        note(self, "called", self.request.id == current_task.request.id, args)
        return super().__call__(*args, **kwargs)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        note(self, "before_start", args)

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        note(self, "on_success", retval)

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(self, "on_failure", repr(exc), "Traceback" in einfo.traceback)

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(self, "on_retry", repr(exc))

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(self, "after_return", status)


@app.task
def add(a: int, b: int = 0) -> int:
    return a + b


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def fail(*args: Any) -> None:
    raise ValueError("no", 7)


@app.task(bind=True)
def about(self: Task, *args: int, **kwargs: int) -> list[Any]:
    request = self.request
    return [
        request.id == current_task.request.id, self.name, args, kwargs, request.args, request.kwargs, request.retries,
        request.called_directly, request.is_eager, request.root_id == request.id, request.parent_id, request.headers,
        request.group, request.timelimit, current_app.main, current_task.name, request.my_header, request.children,
        request.correlation_id == request.id, request.delivery_info["exchange"], request.ignore_result,
    ]  # fmt: skip


@app.task(base=Hooked, bind=True)
def hooked(self: Hooked, number: int) -> int:
    if number < 0:
        raise ValueError("negative")
    return number


@app.task(base=Hooked, bind=True, max_retries=2, default_retry_delay=0)
def again(self: Hooked, least: int) -> int:
    if self.request.retries < least:
        raise self.retry(exc=KeyError(f"try {self.request.retries}"), countdown=0.1)
    return int(self.request.retries)


@app.task(autoretry_for=(ZeroDivisionError,), retry_backoff=False, default_retry_delay=0, max_retries=1)
def divide(a: int, b: int) -> float:
    return a / b


@app.task(bind=True)
def parent(self: Task) -> list[str | None]:
    queue = self.request.delivery_info["routing_key"]
    child = add.apply_async((1, 2), queue=queue)
    return [child.id]


@app.task(bind=True)
def progress(self: Task) -> None:
    self.update_state(state="PROGRESS", meta={"done": 5})
    raise Ignore


@app.task(bind=True)
def replaced(self: Task) -> Any:
    return self.replace(add.s(20, 22).set(queue=self.request.delivery_info["routing_key"]))


@app.task
def reject() -> None:
    raise Reject("not mine", requeue=False)


@app.task(soft_time_limit=0.3)
def slow() -> str:
    try:
        while True:
            sum(range(1000))
    except SoftTimeLimitExceeded:
        return "stopped"


def outcome(result: Any) -> Any:
    try:
        value = result.get(timeout=40, interval=0.05)
    except Exception as error:  # noqa: BLE001 - the outcome
        value = [type(error).__module__, type(error).__name__, str(error)]
    return [value, getattr(result, "state", result.successful())]


def run_all(queue: str) -> dict[str, Any]:
    """Send everything to `queue`, then wait for all of it."""

    def s(task: Task, *args: Any, **kwargs: Any) -> Any:
        return task.s(*args, **kwargs).set(queue=queue)

    to = {"queue": queue}
    sent = {
        "add": add.apply_async((1, 2), **to),
        "fail": fail.apply_async(**to),
        "about": about.apply_async((1,), {"b": 2}, headers={"my_header": "x"}, soft_time_limit=30, time_limit=60, **to),
        "hooked": hooked.apply_async((5,), **to),
        "hooked fails": hooked.apply_async((-5,), **to),
        "again": again.apply_async((2,), **to),
        "again too often": again.apply_async((9,), **to),
        "divide": divide.apply_async((1, 0), **to),
        "parent": parent.apply_async(**to),
        "replaced": replaced.apply_async(**to),
        "slow": slow.apply_async(**to),
        "countdown": add.apply_async((3, 4), countdown=0.5, **to),
        "wrong arguments": app.send_task(add.name, (1, 2, 3), **to),
        "chain": chain(s(add, 1, 2), s(add, 3), s(add, 4)).apply_async(),
        "failed chain": chain(s(add, 1, 2), s(fail), s(add, 4)).apply_async(),
        "group": group(s(add, n, n) for n in range(4)).apply_async(),
        "chord": chord([s(add, n, n) for n in range(4)], s(total)).apply_async(),
        "failed chord": chord([s(add, 1, 1), s(fail)], s(total)).apply_async(),
    }
    late = progress.apply_async(**to)
    found = {name: outcome(result) for name, result in sent.items()}
    # Ids differ from run to run; which child it was, and what became of it, do not.
    child = app.AsyncResult(found["parent"][0][0])
    found["parent"] = [child.get(timeout=40), [one.id == child.id for one in sent["parent"].children]]
    while late.state == "PENDING":
        pass
    found["progress"] = [late.info, late.state]
    names = {result.id: name for name, result in sent.items()}
    log: list[list[str]] = []
    while sum(words[1] == "after_return" for words in log) < HOOKED_RUNS:  # the result is stored before the last hooks
        with open(os.environ["ADOPT_LOG"].format(queue=queue), encoding="utf-8") as file:
            lines = [json.loads(line) for line in file if line.endswith("\n")]
        log = [[names[task_id], *words] for task_id, *words in lines]
        time.sleep(0.05)
    found["log"] = sorted(log, key=lambda words: str(words[0]))  # stable: the order within one task stays
    return json.loads(json.dumps(found, default=repr))  # type: ignore[no-any-return]


if __name__ == "__main__":
    from adopted_project import run_all as run  # type: ignore[import-not-found]  # the names of tasks are the module's

    print(json.dumps(run(sys.argv[1])))
