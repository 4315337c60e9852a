"""A schedule that moves entry by entry: a real `celery beat` and a real `lightbus beat` on one broker."""

from __future__ import annotations

import re
import signal
import uuid
from datetime import datetime
from typing import Any

import pytest

from lightbus.compat.beat import HELD
from lightbus.drivers import open_transport
from tests.cli.conftest import Project
from tests.cli.test_beat import beat, expected_ids, listed
from tests.processes import Process, wait_for

PROJECT = """
import os

from celery import Celery
from lightbus.compat.bridge import install

app = Celery("{prefix}", broker=os.environ["BROKER"])
app.conf.task_default_queue = "{prefix}"
app.conf.lightbus_beat_entries = os.environ["MOVED"]
app.conf.beat_schedule = {{
    "tick": {{"task": "proj.tick", "schedule": 0.5}},
    "stay": {{"task": "proj.stay", "schedule": 0.5}},
}}
install(app)


@app.task(name="proj.tick")
def tick():
    pass


@app.task(name="proj.stay")
def stay():
    pass
"""


def is_lightbus(message_id: str) -> bool:
    return uuid.UUID(message_id).version == 5  # of a slot; Celery's are random


@pytest.mark.parametrize("broker", ["redis", "amqp"])
def test_an_entry_goes_to_lightbus_and_back_and_no_run_is_doubled_or_missed(
    empty: Project, prefix: str, broker: str, processes: Any, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("redis_url" if broker == "redis" else "amqp_vhost_url")
    empty.write("proj.py", PROJECT.format(prefix=prefix))
    empty.environment |= {"BROKER": url, "MOVED": ""}

    def celery_beat(moved: str) -> Process:
        process: Process = processes.start(
            "python", "-m", "celery", "-A", "proj", "beat", "-l", "INFO", "-s", "state", name="celery-beat",
            environment={**empty.environment, "MOVED": moved}, folder=empty.folder,
        )  # fmt: skip
        return process

    transport, sent = open_transport(url), []

    def ids(task: str) -> list[str]:
        """Of all that was sent so far, in order."""
        if transport.message_count(prefix) is not None:
            while (delivery := transport.get(prefix)) is not None:
                sent.append((str(delivery.wire.headers["task"]), str(delivery.wire.headers["id"])))
                delivery.ack()
        return [message_id for name, message_id in sent if name == task]

    def count(task: str, *, by_lightbus: bool) -> int:
        return sum(is_lightbus(one) == by_lightbus for one in ids(task))

    try:
        ours = beat(empty)
        theirs = celery_beat("")
        wait_for(lambda: count("proj.tick", by_lightbus=False) >= 2, 60, "Celery's runs", [theirs.log, ours.log])
        end(theirs)

        theirs = celery_beat("tick")
        wait_for(lambda: count("proj.tick", by_lightbus=True) >= 3, 60, "Lightbus's runs", [theirs.log, ours.log])
        stayed = count("proj.stay", by_lightbus=False)
        wait_for(lambda: count("proj.stay", by_lightbus=False) >= stayed + 2, 60, "the entry that stays", [theirs.log])
        let_go = ran_last(theirs.read_log(), "Lightbus's")
        end(theirs)

        before, theirs = count("proj.tick", by_lightbus=False), celery_beat("")
        wait_for(lambda: count("proj.tick", by_lightbus=False) >= before + 2, 60, "the way back", [theirs.log])
        end(theirs)
        assert ours.stop(60) == 0
        row = listed(empty)["tick"]
        ran, stayed_ran = ids("proj.tick"), ids("proj.stay")
    finally:
        transport.close()

    sides = "".join("L" if is_lightbus(one) else "C" for one in ran)
    assert re.fullmatch("C+L+C+", sides), sides
    of_lightbus = [one for one in ran if is_lightbus(one)]
    assert len(ran) == len(set(ran))
    # From Celery's last run to where Celery went on, each slot once.
    assert datetime.fromisoformat(row["schedule"]["anchor"]) == let_go
    assert of_lightbus == expected_ids(row)
    assert ran_last(theirs.read_log(), "Celery's") == datetime.fromisoformat(row["last"])
    assert row["paused"] == HELD
    assert not any(is_lightbus(one) for one in stayed_ran)


def end(celery_beat: Process) -> None:
    """Its signal handler saves its state and then closes its connection, which waits for ever on py-amqp's lock where
    the signal came in the middle of a publish (1 of 72 stops of a Celery 5.7 without Lightbus)."""
    celery_beat.signal(signal.SIGTERM)
    try:
        celery_beat.wait(15)
    except AssertionError:
        celery_beat.kill()


def ran_last(log: str, owner: str) -> datetime:
    """What Celery's beat has logged of the change of the entry to `owner`."""
    found = re.findall(rf"entry 'tick' is {owner} from now on; it ran last at (\S+ \S+)", log)
    return datetime.fromisoformat(found[-1])
