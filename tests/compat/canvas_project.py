"""A project whose tasks exist twice, for Celery under `c.` and moved to Lightbus under `l.`, for test_canvas_interop.

As a program it is the client: it reads canvases, one JSON line each, sends them with Celery or with Lightbus, and
prints what came of them.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from celery import Celery
from celery import canvas as celery

from lightbus import compat
from lightbus.compat.bridge import install

app = Celery(
    "canvas", broker=os.environ["CANVAS_URL"], backend=os.environ.get("CANVAS_RESULTS") or os.environ["CANVAS_URL"]
)
app.conf.update(
    broker_connection_retry_on_startup=True, task_allow_error_cb_on_chord_header=False, result_chord_retry_interval=0.3
)
install(app)


def add(a: Any, b: Any = 0) -> Any:
    return a + b


def total(numbers: Any) -> Any:
    return sum(numbers)


def fail(*args: Any) -> None:
    raise ValueError("no", 7)


for function in (add, total, fail):
    app.task(name=f"c.{function.__name__}", shared=False)(function)
    compat.task(name=f"l.{function.__name__}")(function)


class Tasks:
    """The tasks by their short names; `sides` says of each one in turn whether Celery (c) or Lightbus (l) serves it."""

    def __init__(self, client: Any, sides: str) -> None:
        self._client = client
        self._sides = sides
        self._count = 0

    def __call__(self, name: str, *args: Any, immutable: bool = False) -> Any:
        side = self._sides[self._count % len(self._sides)]
        self._count += 1
        of = {"app": app} if self._client is celery else {}
        return self._client.signature(f"{side}.{name}", args=args, immutable=immutable, **of)


def build(client: Any, sides: str, name: str) -> Any:
    t = Tasks(client, sides)
    chain, group, chord = client.chain, client.group, client.chord
    match name:
        case "chain":
            return chain(t("add", 1, 2), t("add", 3), t("add", 4))
        case "group":
            return group(t("add", n, n) for n in range(4))
        case "chord":
            return chord([t("add", n, n) for n in range(6)], t("total"))
        case "chord then tasks":
            return group(t("add", 1, 1), t("add", 2, 2)) | t("total") | t("add", 1) | t("add", 1)
        case "task then group":
            return t("add", 1, 1) | group(t("add", 1), t("add", 2))
        case "task chord task":
            return t("add", 1, 1) | group(t("add", 1), t("add", 2)) | t("total") | t("add", 10)
        case "two chords":
            first = t("add", 1, 1) | group(t("add", 1), t("add", 2)) | t("total")
            return first | group(t("add", 1), t("add", 2)) | t("total")
        case "chains in a header":
            return chord([t("add", 1, 1) | t("add", 2), t("add", 3, 3) | t("add", 4)], t("total"))
        case "chord in a header":
            return chord([chord([t("add", 1, 1), t("add", 2, 2)], t("total")), t("add", 3, 3)], t("total"))
        case "immutable":
            return t("add", 1, 1) | t("add", 5, 5, immutable=True) | t("add", 1)
        case "map":
            return client.xmap(t("total"), [[1, 2], [3, 4]])
        case "starmap":
            return client.xstarmap(t("add"), [[1, 2], [3, 4]])
        case "failed step":
            return chain(t("add", 1, 1), t("fail"), t("add", 1), t("add", 1))
        case "failed header":
            return chord([t("add", 1, 1), t("fail"), t("add", 2, 2)], t("total"))
        case "failed chain in a header":
            return chord([t("add", 1, 1), t("fail") | t("add", 1)], t("total") | t("add", 1))
        case "failed header of an inner chord":
            return chord([chord([t("fail"), t("add", 1, 1)], t("total")), t("add", 1, 1)], t("total"))
    raise ValueError(name)


def outcome(result: Any) -> Any:
    try:
        return result.get(timeout=float(os.environ.get("CANVAS_WAIT", "30")))
    except Exception as error:  # noqa: BLE001 - what the test compares
        return type(error).__name__


def main() -> None:
    for line in sys.stdin:
        wanted = [tuple(one) for one in json.loads(line)]
        modules = {"celery": celery, "lightbus": compat}
        sent = [build(modules[client], sides, name).apply_async() for client, sides, name in wanted]
        print(json.dumps([outcome(result) for result in sent]), flush=True)


if __name__ == "__main__":
    main()
