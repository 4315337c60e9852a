"""One line in a file for each thing that was done, so that the demo can count afterwards. Used by both applications.

A line is written by one `write` to a file opened for appending: lines of several processes never mix, and what a
process had written before `kill -9` is there.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

#: Where both applications keep their files.
FOLDER = Path(os.environ.get("SHOP_FOLDER", "var")).absolute()
FILE_NAME = "journal.jsonl"


def note(what: str, **facts: object) -> None:
    """Append a line: what happened, when, in which process, and `facts`."""
    line = json.dumps({"what": what, "at": time.time(), "pid": os.getpid(), **facts}) + "\n"
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = os.open(FOLDER / FILE_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def note_run(task: Any) -> None:
    """Append the line of a task that has just run. `task` is the `self` of a bound task, Celery's or Lightbus's."""
    request = task.request
    headers, delivery = request.headers or {}, request.delivery_info or {}
    note(
        "ran",
        id=request.id,
        task=task.name,
        engine=str(request.hostname).partition("@")[0],  # celery@host, lightbus@host
        hops=headers.get("x-lightbus-hops", 0),  # how often one handed the message to the other
        redelivered=bool(delivery.get("redelivered")),
    )
