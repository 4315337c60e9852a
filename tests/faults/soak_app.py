"""What the soak's workers serve: a listener, a call and a task. They write into a journal that outlives them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lightbus import Api, Bus, Event, RetryPolicy, current_delivery, rpc
from lightbus.compat import Settings, default_app, task

JOURNAL = Path(os.environ["SOAK_JOURNAL"])
URL = os.environ["SOAK_URL"]
OPTIONS = json.loads(os.environ["SOAK_OPTIONS"])


def note(what: str, entry: str) -> None:
    invocation = current_delivery()
    assert invocation is not None
    flagged = invocation.redelivered
    line = json.dumps({"what": what, "id": entry, "flagged": flagged, "pid": os.getpid()}) + "\n"
    with JOURNAL.open("ab", buffering=0) as file:  # one write: a kill leaves a whole line or none
        file.write(line.encode())


class Soak(Api, name="soak", version="1.0"):
    class happened(Event):
        id: str
        fails_first: bool = False

    @rpc(timeout_seconds=5.0)
    def double(self, *, id: str, number: int) -> int:
        raise NotImplementedError


bus = Bus("soak", url=URL, options=OPTIONS)


@bus.on(Soak.happened, retry=RetryPolicy(max_retries=20, base_seconds=0.1, cap_seconds=1.0))
def heard(event: Soak.happened) -> None:
    invocation = current_delivery()
    if event.fails_first and invocation is not None and invocation.attempt == 1:
        raise RuntimeError("fails at first, to be tried again")
    note("done", event.id)


class OurSoak(Soak):
    @rpc()
    def double(self, *, id: str, number: int) -> int:
        note("called", id)
        return 2 * number


bus.serve(OurSoak())
default_app().configure(Settings(broker_url=URL, broker_transport_options=OPTIONS, task_ignore_result=True))


@task(bind=True, name="soak.late", acks_late=True, max_retries=None)
def late(self: Any, entry: str, retries: int = 0) -> None:
    if self.request.retries < retries:
        raise self.retry(countdown=0.3)
    note("done", entry)
