"""A Celery project whose tasks run on Lightbus, for the tests of remote control. PROJECT: JSON of broker, backend,
queue and conf; `ran` is a file that each task appends its argument to."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from celery import Celery
from celery.worker.control import Panel, control_command, inspect_command

import lightbus.drivers.sqlite
from lightbus.compat import task
from lightbus.compat.bridge import install

project = json.loads(os.environ["PROJECT"])
app = Celery("project", broker=project["broker"], backend=project["backend"])
app.conf.update(
    task_default_queue=project["queue"], worker_hijack_root_logger=False, broker_connection_retry_on_startup=True,
    **project.get("conf", {}),
)  # fmt: skip
if project["broker"].startswith("sqlite"):
    app.conf.broker_transport = lightbus.drivers.sqlite.TRANSPORT
install(app)


def ran(word: str) -> None:
    with Path(project["ran"]).open("a", encoding="utf-8") as file:
        file.write(f"{word}\n")


@task(name="add")
def add(a: int, b: int) -> int:
    ran(f"add {a}")
    return a + b


@task(name="hold")
def hold(word: str, gate: str) -> str:
    """Runs until the file `gate` is there."""
    ran(f"began {word}")
    while not Path(gate).exists():
        time.sleep(0.02)
    ran(f"ended {word}")
    return word


@task(name="hold_async")
async def hold_async(word: str, gate: str) -> str:
    ran(f"began {word}")
    while not os.path.exists(gate):  # noqa: ASYNC110, ASYNC240 - a gate for another process
        await asyncio.sleep(0.02)
    ran(f"ended {word}")
    return word


@inspect_command(args=[("number", int)], signature="[number=1]", alias="doubled")
def twice(state: Any, number: int = 1) -> dict[str, Any]:
    """Twice a number, with what the state offers."""
    return {"twice": 2 * number, "app": state.app.main, "host": state.hostname, "ids": sorted(state.tset(["b", "a"]))}


@control_command(args=[("word", str)], signature="[word]")
def note(state: Any, word: str = "") -> dict[str, str]:
    """Write a word down."""
    ran(f"noted {word}")
    return {"ok": f"noted {word}"}


@Panel.register(type="inspect")
def prefetched(state: Any) -> Any:
    """What only Celery's worker can say."""
    return state.consumer.qos.value


@app.task(name="in_celery")
def in_celery(gate: str) -> None:
    """Is run by Celery's own worker."""
    while not Path(gate).exists():
        time.sleep(0.02)
