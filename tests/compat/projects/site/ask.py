"""Sends what the project has, waits for it, and prints what came of it."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import django

django.setup()

from django.db import transaction  # noqa: E402
from shop import tasks  # noqa: E402
from shopsite.celery import app, debug_task, finalized  # noqa: E402

app.finalize()
TIMEOUT_SECONDS = 60
LACKS = os.environ.get("SITE_LACKS", "").split()  #: what the Celery that the answers are compared with does not have


def got(result: Any) -> Any:
    return result.get(timeout=TIMEOUT_SECONDS)


def on_commit() -> Any:
    sent: list[Any] = []
    tasks.add.apply_async, original = (
        lambda *args, **options: sent.append(original(*args, **options)),
        tasks.add.apply_async,
    )
    with transaction.atomic():
        tasks.add.delay_on_commit(20, 3)
        tasks.add.apply_async_on_commit((20, 4), countdown=0)
        before = len(sent)
    try:
        with transaction.atomic():
            tasks.add.delay_on_commit(0, 0)
            raise KeyError("rolled back")
    except KeyError:
        pass
    tasks.add.apply_async = original
    return [before, [got(one) for one in sent]]


def models() -> Any:
    return [got(tasks.model.delay({"id": 3})), got(tasks.model.delay({"id": 3}, other={"id": 4, "note": "x"}))]


answers = {
    "add": got(tasks.add.delay(1, y=2)),
    "name": [tasks.add.name, debug_task.name],
    "debug": got(debug_task.delay()),
    "counted": [got(tasks.counted.delay(5)), got(app.send_task("shop.tasks.counted", (6,), headers={"sent_by": "me"}))],
    "class": got(app.tasks["shop.class_task"].delay(4)),
    "annotated": got(tasks.annotated.delay()),
    "model": models() if "models" not in LACKS else None,
    "logged": got(tasks.logged.delay()),
    "configuration": got(tasks.configuration.delay()),
    "connections": got(tasks.connections.delay()),
    "extra": got(app.send_task("extra")),
    "on_commit": on_commit() if "on_commit" not in LACKS else None,
    "signature": got(app.signature("shop.tasks.add", args=(1, 1)).apply_async()),
    "result": [app.AsyncResult(tasks.add.delay(1, 1).id).get(timeout=TIMEOUT_SECONDS)],
    "periodic": [finalized, sorted(app.conf.beat_schedule), app.conf.beat_schedule["add every half minute"]["task"]],
    "now": str(app.now().tzinfo),
    "celery": "celery" in sys.modules,
}
print(json.dumps(answers))
