"""A Celery project as the tests of the bridge need it; PROJECT, in the environment, is a JSON object that says how.

broker, backend: URLs. conf: Celery settings. bridge: whether `install` is called. moved: its argument.
celery_tasks, compat_tasks: names of tasks that are written for Celery, and for Lightbus.
Each task appends a line to the file `ran` when it runs.
"""

from __future__ import annotations

import json
import os
from typing import Any

from celery import Celery

import lightbus.drivers.sqlite
from lightbus.compat import bridge


def make_app(project: dict[str, Any]) -> Celery:
    app = Celery("project", broker=project["broker"], backend=project["backend"], set_as_current=False)
    if project.get("bridge"):
        bridge.install(app, moved=project.get("moved", ()))
    app.conf.update({"worker_hijack_root_logger": False, "broker_connection_retry_on_startup": True})
    app.conf.update(project.get("conf", {}))
    if project["broker"].startswith("sqlite"):
        app.conf.broker_transport = lightbus.drivers.sqlite.TRANSPORT
    for name in project.get("celery_tasks", ()):
        app.task(name=name, shared=False)(_runs(project, name))
    for name in project.get("compat_tasks", ()):
        from lightbus.compat import task

        task(name=name)(_runs(project, name))
    return app


def _runs(project: dict[str, Any], name: str) -> Any:
    def run(*args: Any) -> str:
        with open(project["ran"], "a", encoding="utf-8") as file:
            file.write(f"{name} {args}\n")
        return f"{name} ran in Celery"

    return run


if "PROJECT" in os.environ:
    app = make_app(json.loads(os.environ["PROJECT"]))
