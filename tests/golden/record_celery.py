"""Records what the installed Celery writes: task messages and stored results, as files under `celery57/`.

Run by hand when a Celery version is added: `python tests/golden/record_celery.py`. Tests read only the files. A real
worker (solo pool, kombu's in-memory transport) makes the results. Paths, the host and process ids are replaced, so
that the files say nothing about the machine that made them.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import socket
import sys
import uuid
from datetime import date, datetime, time, timezone
from decimal import Decimal
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import celery
import celery.app.amqp
from celery import Celery, chain, signature
from celery.contrib.testing.worker import start_worker

HERE = Path(__file__).parent
RICH = {
    "datetime": datetime(2026, 11, 24, 3, 0, 0, 250000, tzinfo=timezone.utc),
    "naive": datetime(2026, 11, 24, 3, 0),
    "date": date(2026, 11, 24),
    "time": time(3, 30),
    "decimal": Decimal("12.50"),
    "uuid": uuid.UUID("6f1b5f0a-7b1c-4d0e-8a44-0a2b6f0d9e11"),
    "bytes": b"text",
    "base64": b"\xff\x00\xfe",
    "text": "Zürich ✓",
    "float": 0.1,
    "none": None,
}

app = Celery("golden", broker="memory://", backend="cache+memory://")
app.conf.task_default_queue = "golden"
app.conf.broker_connection_retry_on_startup = True


@app.task(name="golden.add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="golden.echo")
def echo(value: Any) -> Any:
    return value


@app.task(name="golden.rich")
def rich() -> Any:
    return RICH


class Refused(Exception):
    """Not builtin, so it is rebuilt only where its module is loaded."""


@app.task(name="golden.fail")
def fail(kind: str) -> None:
    if kind == "builtin":
        raise ValueError("wrong", 3)
    if kind == "unprintable":
        raise Refused(object())
    raise Refused("no", {"code": 7})


@app.task(name="golden.again", bind=True)
def again(self: Any) -> None:
    raise self.retry(exc=KeyError("busy"), countdown=3600)


@app.task(name="golden.started", bind=True, track_started=True)
def started(self: Any) -> None:
    record_result("started", self.request.id, results)


@app.task(name="golden.parent", bind=True)
def parent(self: Any) -> str:
    add.apply_async((1, 2), task_id="child-1")
    return "sent"


messages: list[dict[str, Any]] = []
results: list[dict[str, Any]] = []


def clean(text: str) -> str:
    text = text.replace(str(HERE.parent.parent), "/project").replace(sys.prefix, "/venv")
    text = text.replace(f'"worker": "{socket.gethostname()}"', '"worker": "worker@example"')
    return re.sub(r'"pid": \d+', '"pid": 1', text)


def record_message(name: str, queue: str = "golden") -> None:
    """Take the one message that waits and keep it as it is on the wire."""
    with app.connection_for_write() as connection:
        raw = connection.default_channel._get(queue)
        properties = {
            key: value for key, value in raw["properties"].items() if key not in ("delivery_info", "delivery_tag")
        }
        assert properties.pop("body_encoding") == "base64"
        messages.append(
            {
                "name": name,
                "content_type": raw["content-type"],
                "content_encoding": raw["content-encoding"],
                "headers": raw["headers"],
                "properties": properties,
                "body_base64": raw["body"] if "compression" in raw["headers"] else None,
                "body": None if "compression" in raw["headers"] else base64.b64decode(raw["body"]).decode("utf-8"),
            }
        )


def record_result(name: str, task_id: str, into: list[dict[str, Any]]) -> None:
    stored = app.backend.get(app.backend.get_key_for_task(task_id))
    into.append({"name": name, "document": clean(stored.decode() if isinstance(stored, bytes) else stored)})


def record_messages() -> None:
    eta = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
    step = {"link": add.s(10), "link_error": echo.si("failed").set(queue="errors")}
    calls: list[tuple[str, Any, Any, dict[str, Any]]] = [
        ("plain", (1, 2), {}, {}),
        ("keywords", (), {"x": 1, "y": 2}, {}),
        ("rich values", (RICH,), {}, {}),
        ("eta", (1, 2), {}, {"eta": eta}),
        ("naive eta", (1, 2), {}, {"eta": eta.replace(tzinfo=None)}),
        ("countdown", (1, 2), {}, {"countdown": 3600}),
        ("expires", (1, 2), {}, {"expires": datetime(2036, 1, 1, tzinfo=timezone.utc)}),
        ("priority", (1, 2), {}, {"priority": 7}),
        ("limits", (1, 2), {}, {"time_limit": 30, "soft_time_limit": 20.5}),
        ("headers and properties", (1, 2), {}, {"headers": {"tenant": "a", "n": 3}, "app_id": "shop"}),
        ("ignored result", (1, 2), {}, {"ignore_result": True}),
        ("shadow", (1, 2), {}, {"shadow": "alias"}),
        ("retried", (1, 2), {}, {"retries": 2, "root_id": "root-1", "parent_id": "parent-1"}),
        ("group member", (1, 2), {}, {"group_id": "group-1", "group_index": 3}),
        ("links", (1, 2), {}, step),
        ("stamps", (1, 2), {}, {"stamped_headers": ["customer"], "customer": "c-7"}),
        ("not durable", (1, 2), {}, {"delivery_mode": 1}),
        ("gzip", (1, 2), {}, {"compression": "gzip"}),
        ("bzip2", (1, 2), {}, {"compression": "bzip2"}),
    ]
    for name, args, kwargs, options in calls:
        task = echo if name == "rich values" else add
        task.apply_async(args, kwargs, task_id=f"id-{name}", **options)
        record_message(name)
    chain(add.s(1, 2).set(task_id="s1"), add.s(3).set(task_id="s2"), add.s(4).set(task_id="s3")).apply_async()
    record_message("chain")
    header = signature("golden.add", args=(1, 2), app=app)
    header.apply_async(task_id="m1", chord=echo.s().set(task_id="body"), group_id="group-2", group_index=0)
    record_message("chord member")
    app.conf.task_protocol = 1
    app.amqp.__dict__.pop("create_task_message", None)
    add.apply_async((1,), {"y": 2}, task_id="v1-plain")
    record_message("protocol 1")
    add.apply_async((1, 2), task_id="v1-full", eta=eta, retries=1, group_id="g", headers={"tenant": "a"}, **step)
    record_message("protocol 1 with options")
    app.conf.task_protocol = 2
    app.amqp.__dict__.pop("create_task_message", None)


def record_serialized() -> list[dict[str, Any]]:
    """One message for each serializer of kombu's, with what it may hold; pickle alone writes signatures and tuples."""
    app.conf.accept_content = ["json", "yaml", "msgpack", "pickle"]
    recorded = []
    for serializer in ("yaml", "msgpack", "pickle"):
        rich = {"n": 1, "text": "é", "bytes": b"\x00\xff", "list": [1, 2.5, None, True]}
        links = {"link": add.s(10).set(queue="next")} if serializer != "yaml" else {}
        add.apply_async((1,), {"y": rich}, task_id=f"id-{serializer}", serializer=serializer, **links)
        with app.connection_for_write() as connection:
            raw = connection.default_channel._get("golden")
        properties = {k: v for k, v in raw["properties"].items() if k not in ("delivery_info", "delivery_tag")}
        assert properties.pop("body_encoding") == "base64"
        recorded.append(
            {
                "name": serializer, "content_type": raw["content-type"], "content_encoding": raw["content-encoding"],
                "headers": raw["headers"], "properties": properties, "body_base64": raw["body"],
            }
        )  # fmt: skip
    app.conf.accept_content = ["json"]
    return recorded


def record_results() -> None:
    with start_worker(app, pool="solo", perform_ping_check=False, hostname="worker@example", shutdown_timeout=30.0):
        for name, task, args, options in [
            ("success", add, (1, 2), {}),
            ("rich success", rich, (), {}),
            ("builtin failure", fail, ("builtin",), {}),
            ("own failure", fail, ("own",), {}),
            ("unprintable failure", fail, ("unprintable",), {}),
            ("group member", add, (1, 2), {"group_id": "group-1", "root_id": "root-1", "parent_id": "parent-1"}),
            ("with child", parent, (), {}),
            ("revoked", add, (1, 2), {"expires": -10}),
        ]:
            task_id = f"id-{name}"
            result = task.apply_async(args, task_id=task_id, **options)
            result.get(timeout=30, propagate=False, interval=0.01)
            record_result(name, task_id, results)
        started.apply_async(task_id="id-started").get(timeout=30, interval=0.01)
        retry = again.apply_async(task_id="id-retry")
        deadline = monotonic() + 30
        while retry.state != "RETRY":
            assert monotonic() < deadline, "the task was never retried"
            sleep(0.01)
        record_result("retry", "id-retry", results)
        app.conf.result_extended = True
        add.apply_async((1, 2), task_id="id-extended").get(timeout=30, interval=0.01)
        record_result("extended", "id-extended", results)
        add.apply_async((1, 2), task_id="id-stamps", stamped_headers=["customer"], customer="c-7").get(timeout=30)
        record_result("extended with stamps", "id-stamps", results)


def main() -> None:
    logging.disable(logging.CRITICAL)
    celery.app.amqp.anon_nodename = lambda: "gen1@example"
    record_messages()
    record_results()
    folder = HERE / f"celery{''.join(celery.__version__.split('.')[:2])}"
    folder.mkdir(exist_ok=True)
    for name, recorded in (("messages", messages), ("results", results), ("serialized", record_serialized())):
        text = json.dumps(recorded, indent=1, ensure_ascii=False) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    print(f"{len(messages)} messages and {len(results)} results of Celery {celery.__version__} in {folder}")


if __name__ == "__main__":
    main()
