"""A project whose receivers write down what they hear, for test_signals: the same for Celery's worker and Lightbus's.

As a program it is the client: it sends every scenario, waits for all, and prints what came of it.
SIGNALS_URL: Redis, for messages and results; SIGNALS_BACKEND: for results, where it is another. SIGNALS_EVENTS: send
events. SIGNALS_SIDE: `celery` or `lightbus`, whose `task` the tasks have.
SIGNALS_LOG: a file; each process appends a line per signal: its pid, the signal, and what was to be seen.
"""

from __future__ import annotations

import json
import os
import threading
from typing import Any

import celery.signals
from celery import Celery, current_task

import lightbus.compat.signals
from lightbus.compat import bridge

SIDE, URL = os.environ["SIGNALS_SIDE"], os.environ["SIGNALS_URL"]

app = Celery("told", broker=URL, backend=os.environ.get("SIGNALS_BACKEND", URL))
app.conf.update(
    broker_connection_retry_on_startup=True, task_track_started=True, worker_prefetch_multiplier=1,
    task_send_sent_event=True, worker_hijack_root_logger=False, worker_send_task_events="SIGNALS_EVENTS" in os.environ,
)  # fmt: skip

if SIDE == "celery":
    from celery.exceptions import Ignore, Reject

    task = app.task
else:
    from lightbus.compat import Ignore, Reject, task  # type: ignore[assignment]

    bridge.install(app)


def note(signal: str, **seen: object) -> None:
    with open(os.environ["SIGNALS_LOG"], "a", encoding="utf-8") as file:
        file.write(json.dumps({"pid": os.getpid(), "signal": signal, **seen}) + "\n")


# Half of them are connected to Celery's signals, half to those of Lightbus: either must do, on either side.
OF_TASKS = (
    "task_received", "task_prerun", "task_postrun", "task_success", "task_failure", "task_retry", "task_revoked",
    "task_internal_error",
)  # fmt: skip
OF_WORKERS = (
    "import_modules", "celeryd_init", "worker_init", "celeryd_after_setup", "worker_before_create_process",
    "worker_process_init", "worker_ready", "worker_shutting_down", "worker_shutdown", "after_setup_logger",
    "after_setup_task_logger",
)  # fmt: skip


def connect(number: int, name: str, receiver: Any) -> None:
    for module in (celery.signals, lightbus.compat.signals)[:: 1 if number % 2 else -1]:
        getattr(module, name).connect(receiver, weak=False)  # to both, and called once all the same
        if number % 3 == 0:
            break  # or to one of them alone


def hear_task(name: str) -> Any:
    def receiver(signal: Any, sender: Any, **named: Any) -> None:
        request = named.get("request")
        task_id = named.get("task_id") or (request.id if request is not None else sender.request.id)
        running = current_task and current_task.request.id == task_id
        einfo = named.get("einfo")
        note(
            name, task=task_id, arguments=sorted(named), sender=getattr(sender, "name", "") or type(sender).__name__,
            state=app.AsyncResult(task_id).state, runs=bool(running), main=_is_main(),
            result=repr(named.get("result", named.get("retval"))), ended=named.get("state"),
            error=repr(named.get("exception") or getattr(named.get("reason"), "exc", None)),
            einfo=einfo and [type(einfo).__name__, einfo.type.__name__, "Traceback" in einfo.traceback],
            fixed={key: named[key] for key in ("terminated", "signum", "expired") if key in named},
        )  # fmt: skip

    return receiver


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def hear_worker(name: str) -> Any:
    def receiver(signal: Any, sender: Any, **named: Any) -> None:
        text = sender if isinstance(sender, str) else getattr(sender, "hostname", "")
        note(name, arguments=sorted(named), node=(text or "").replace("celery@", "lightbus@"))

    return receiver


def hear_publish(name: str) -> Any:
    def receiver(signal: Any, sender: Any, headers: Any, body: Any, **named: Any) -> None:
        if name == "before_task_publish" and body[1].get("mark"):
            headers["mark"] = "written by a receiver"
            body[1]["mark"] = "changed by a receiver"
        parts = [type(body).__name__, list(body[0]), dict(body[1]), sorted(body[2])]
        routing_key = named["routing_key"].removeprefix("lightbus.")
        note(
            name, sender=sender, task=headers["id"], headers=sorted(headers), body=parts,
            arguments=sorted(named), exchange=named["exchange"], routing_key=routing_key, mark=headers.get("mark"),
        )  # fmt: skip

    return receiver


def broken(**named: Any) -> None:
    raise KeyError("the receiver's own mistake")


for number, name in enumerate(OF_TASKS):
    connect(number, name, hear_task(name))
for number, name in enumerate(OF_WORKERS):
    connect(number, name, hear_worker(name))
for number, name in enumerate(("before_task_publish", "after_task_publish")):
    connect(number, name, hear_publish(name))
lightbus.compat.signals.task_prerun.connect(broken)


@celery.signals.task_success.connect(sender="told.nobody", weak=False)
def never(**named: Any) -> None:
    note("never")


@task(name="told.add")
def add(a: int, b: int) -> int:
    return a + b


@task(name="told.fail")
def fail() -> None:
    raise ValueError("no")


@task(name="told.again", bind=True, max_retries=3)
def again(self: Any) -> str:
    if self.request.retries < 1:
        raise self.retry(exc=KeyError("first"), countdown=1)
    return "second"


@task(name="told.ignored")
def ignored() -> None:
    raise Ignore


@task(name="told.rejected")
def rejected() -> None:
    raise Reject("not mine", requeue=False)


@task(name="told.marked", bind=True)
def marked(self: Any, mark: str = "") -> list[str]:
    return [mark, self.request.mark]


@app.task(name="told.unmoved", bind=True)
def unmoved(self: Any) -> list[str]:
    """Celery's on both sides."""
    return [self.request.root_id, self.request.parent_id]


@task(name="told.parent", bind=True)
def parent(self: Any) -> list[Any]:
    sent = unmoved.apply_async(queue="unmoved")
    return [current_task.name, current_task.request.id == self.request.id, sent.id]


@task(name="told.together", bind=True)
def waits(self: Any) -> str:
    try:
        unmoved.apply_async(queue="unmoved").get(timeout=1)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return "it waited"


def run_all() -> dict[str, Any]:
    sent = {
        "add": add.delay(1, 2),
        "fail": fail.delay(),
        "again": again.delay(),
        "ignored": ignored.delay(),
        "rejected": rejected.delay(),
        "expired": add.apply_async((3, 4), expires=-5),
        "marked": marked.delay(mark="plain"),
        "linked": add.apply_async((5, 6), link=add.s(7)),
        "parent": parent.delay(),
        "waits": waits.delay(),
        "last": add.delay(0, 0),
    }  # fmt: skip
    results = {}
    for name, result in sent.items():
        if name not in ("ignored", "rejected", "expired"):
            results[name] = repr(result.get(timeout=60, propagate=False))
    child = app.AsyncResult(sent["parent"].get(timeout=60)[2])
    root, above = child.get(timeout=60)
    results["parent"] = repr([*sent["parent"].get()[:2], root == above == sent["parent"].id])
    results["trail"] = repr([one.id == child.id for one in app.AsyncResult(sent["parent"].id).children or ()])
    return {"results": results, "ids": {result.id: name for name, result in sent.items()}}


if __name__ == "__main__":
    from signals_project import run_all as run  # type: ignore[import-not-found]  # the names of tasks are the module's

    print(json.dumps(run()))
