"""The process that customers talk to. Here they do it over stdin: one JSON object per line, one line of answer each.

    {"do": "resize", "how": "delay", "count": 3}                  -> {"ids": [...]}
    {"do": "mail", "how": "delay", "count": 3}                    -> {"ids": [...]}
    {"do": "results", "ids": [...], "seconds": 20}                -> {"results": {id: path}}
    {"do": "place", "orders": [1, 2]}                             -> {"placed": 2}
    {"do": "call", "orders": [1, 2]}                              -> {"opened": 2, "listed": 2, "refused": true}

`how` is the way in which the calling code sends: `delay`, `countdown` (with "seconds"), `send_task` (the Celery app's)
and `lightbus` (Lightbus's own `send_task`). None of it changes when a task moves.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import journal
from contracts import Orders, Ticket, Tickets

from lightbus.compat import default_app

from . import tasks
from .bus import bus
from .celery import app

numbers = itertools.count(os.getpid() * 1000)
sent: dict[str, Any] = {}


def send(task: Any, arguments: tuple[object, ...], how: str, seconds: float) -> Any:
    """Send a task and return what its result will come through."""
    match how:
        case "delay":
            return task.delay(*arguments)
        case "countdown":
            return task.apply_async(arguments, countdown=seconds)
        case "send_task":
            return app.send_task(task.name, arguments)
        case "lightbus":
            return default_app().send_task(task.name, arguments)
    raise ValueError(f"there is no way to send called {how!r}")


def send_many(task: Any, arguments: Callable[[int], tuple[object, ...]], request: dict[str, Any]) -> dict[str, Any]:
    ids = []
    for _ in range(request.get("count", 1)):
        seconds = request.get("seconds", 0)
        due = time.time() + seconds
        result = send(task, arguments(next(numbers)), request["how"], seconds)
        # After the call has returned: from here on the message must not get lost.
        journal.note("sent", id=result.id, task=task.name, how=request["how"], due=due)
        sent[result.id] = result
        ids.append(result.id)
    return {"ids": ids}


def resize(request: dict[str, Any]) -> dict[str, Any]:
    return send_many(tasks.resize_image, lambda number: (number, 16), request)


def mail(request: dict[str, Any]) -> dict[str, Any]:
    return send_many(tasks.mail_receipt, lambda number: (number, f"customer-{number}@example.org"), request)


def results(request: dict[str, Any]) -> dict[str, Any]:
    return {"results": {task_id: sent[task_id].get(timeout=request["seconds"]) for task_id in request["ids"]}}


def place(request: dict[str, Any]) -> dict[str, Any]:
    for order in request["orders"]:
        bus.fire(Orders.placed(order=order, email=f"customer-{order}@example.org", cents=1990))
        journal.note("fired", order=order)
    return {"placed": len(request["orders"])}


def call(request: dict[str, Any]) -> dict[str, Any]:
    """Open a ticket for each order, one after the other; list them all at once; ask for an order that is not."""
    support = bus.client(Tickets)
    opened = [support.open(order=order, text="Where is it?") for order in request["orders"]]

    async def list_all() -> list[list[Ticket]]:
        return await asyncio.gather(*(support.of_order.aio(order=order) for order in request["orders"]))

    listed = asyncio.run(list_all())
    try:
        support.open(order=-1, text="Where is it?")
    except Tickets.UnknownOrder as error:
        refused = error.order == -1
    else:
        refused = False
    return {"opened": len(opened), "listed": sum(len(tickets) for tickets in listed), "refused": refused}


ANSWERS = {"resize": resize, "mail": mail, "results": results, "place": place, "call": call}


def main() -> None:
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(ANSWERS[request["do"]](request)), flush=True)


if __name__ == "__main__":
    main()
