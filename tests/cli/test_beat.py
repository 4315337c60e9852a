"""`lightbus beat` and `lightbus schedule` as processes: a stock Celery project, a killed leader, changes that last."""

from __future__ import annotations

import json
import os
import re
import signal
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from lightbus.drivers import open_transport
from lightbus.ports import Transport
from lightbus_scheduler import Every, between, message_id
from tests.cli.conftest import Project
from tests.processes import wait_for

STOCK = """
import os
from datetime import timedelta

from celery import Celery
from celery.schedules import crontab

app = Celery("{prefix}", broker=os.environ["BROKER"])
app.conf.task_default_queue = "{prefix}"
app.conf.beat_schedule = {{
    "tick": {{"task": "proj.tick", "schedule": timedelta(seconds=0.5), "args": (2,), "kwargs": {{"b": 3}},
              "options": {{"expires": 3600, "priority": 3}}}},
    "nightly": {{"task": "proj.tick", "schedule": crontab(hour=3, minute=30), "args": (4, 5)}},
}}


@app.task(bind=True, name="proj.tick")
def tick(self, a, b):
    with open("ledger.txt", "a") as ledger:
        ledger.write(f"{{self.request.id}} {{a + b}}\\n")
"""


def beat(project: Project, *arguments: str) -> Any:
    process = project.start("beat", "-A", "proj", *arguments, name="beat")
    process.wait_for_log("lightbus beat ready pid=", 60)
    return process


def listed(project: Project) -> dict[str, Any]:
    done = project.run("schedule", "ls", "-A", "proj", "--json", seconds=60)
    assert done.code == 0, done.err
    return {row["id"]: row for row in json.loads(done.out)}


def expected_ids(row: dict[str, Any]) -> list[str]:
    """The ids of all slots from the entry's anchor to its last firing."""
    anchor = datetime.fromisoformat(row["schedule"]["anchor"])
    every = Every(timedelta(seconds=row["schedule"]["every_seconds"]), anchor)
    slots = between(every, anchor, datetime.fromisoformat(row["last"]))
    return [message_id(row["id"], slot) for slot in slots]


def leader_of(beats: list[Any]) -> Any:
    return next((one for one in beats if one.exit_code is None and "leading" in one.read_log()), None)


def ids_in(transport: Transport, queue: str) -> list[str]:
    found: list[str] = []
    if transport.message_count(queue) is None:
        return found
    while (delivery := transport.get(queue)) is not None:
        assert delivery.wire.headers["task"] == "proj.tick"
        assert delivery.wire.headers["celery_beat_task"] is True
        found.append(str(delivery.wire.headers["id"]))
        delivery.ack()
    return found


def test_a_stock_celery_project_runs_on_lightbus_beat_and_its_own_workers(
    empty: Project, prefix: str, redis_url: str, processes: Any
) -> None:
    empty.write("proj.py", STOCK.format(prefix=prefix))
    empty.environment["BROKER"] = redis_url
    worker = processes.start(
        "python", "-m", "celery", "-A", "proj", "worker", "--pool", "solo", "-l", "INFO", name="celery",
        environment=empty.environment, folder=empty.folder,
    )  # fmt: skip
    worker.wait_for_log("ready.", 60)
    beats = [beat(empty), beat(empty)]
    ledger = empty.folder / "ledger.txt"

    def lines() -> list[str]:
        return ledger.read_text().splitlines() if ledger.exists() else []

    wait_for(lambda: len(lines()) >= 3, 60, "three runs", [one.log for one in beats])
    (leader,) = [one for one in beats if "leading" in one.read_log()]
    (other,) = [one for one in beats if one is not leader]
    leader.kill()
    killed_at = len(lines())
    wait_for(lambda: len(lines()) >= killed_at + 5, 60, "runs after the kill", [other.log])
    assert other.stop() == 0
    row = listed(empty)["tick"]
    wait_for(lambda: len(lines()) >= row["fired"], 30, "the last runs")
    assert "nightly" in other.read_log()
    assert [line.split()[1] for line in lines()] == ["5"] * len(lines())
    ran = [line.split()[0] for line in lines()]
    assert len(set(ran)) == len(ran)
    assert set(ran) == set(expected_ids(row))


@pytest.mark.parametrize("broker", ["sqlite", "amqp"])
def test_the_leader_is_killed_and_no_slot_is_sent_twice_or_left_out(
    empty: Project, prefix: str, broker: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/bus.db" if broker == "sqlite" else request.getfixturevalue("amqp_vhost_url")
    empty.write("proj.py", "import lightbus.drivers.sqlite\n" + STOCK.format(prefix=prefix))
    empty.environment["BROKER"] = url
    beats = [beat(empty), beat(empty)]
    transport, sent = open_transport(url), []
    try:
        for _ in range(2):
            leader, seen = wait_for(lambda: leader_of(beats), 60, "a leader"), len(sent)
            wait_for(lambda: sent.extend(ids_in(transport, prefix)) or len(sent) >= seen + 2, 60, "sendings")  # noqa: B023
            leader.kill()
            beats.append(beat(empty))
        wait_for(lambda: leader_of(beats), 60, "a leader")
        for one in [one for one in beats if one.exit_code is None]:
            assert one.stop() == 0
        row = listed(empty)["tick"]
        sent += ids_in(transport, prefix)
    finally:
        transport.close()
    assert len(sent) == len(set(sent)) == row["fired"]
    assert set(sent) == set(expected_ids(row))


FUNCTIONS = """
from datetime import timedelta

from lightbus import Bus
from lightbus_scheduler import Every

bus = Bus("{prefix}")


@bus.schedule(Every(timedelta(seconds=0.5)))
def sweep(slot):
    print("swept at", slot.isoformat(), flush=True)


@bus.schedule("0 3 * * *", tz="Europe/Lisbon")
async def report():
    print("reported", flush=True)
"""


def test_functions_under_a_schedule_run_in_the_workers_and_commands_change_the_schedule_for_good(
    empty: Project, prefix: str, amqp_vhost_url: str
) -> None:
    empty.write("proj.py", FUNCTIONS.format(prefix=prefix))
    empty.environment["LIGHTBUS_URL"] = amqp_vhost_url
    sweep, report = f"{prefix}.sweep", f"{prefix}.report"
    paused = empty.run("schedule", "pause", sweep, "--note", "spring", "-A", "proj", seconds=60)
    assert paused.code == 0, paused.err
    first = beat(empty)
    worker = empty.worker("-A", "proj", "-c", "1")
    triggered = empty.run("schedule", "trigger", report, "-A", "proj", seconds=60)
    assert triggered.code == 0, triggered.err
    worker.wait_for_log("reported")
    definition = {
        "every_seconds": 0.5,
        "event": f"{prefix}.schedule.report.due",
        "fields": {"slot": "2026-01-01T00:00:00Z"},
    }
    added = empty.run("schedule", "add", "extra", "--definition", json.dumps(definition), "-A", "proj", seconds=60)
    assert added.code == 0, added.err
    assert first.stop() == 0
    rows = listed(empty)
    assert (rows[sweep]["paused"], rows[sweep]["fired"], rows[sweep]["next"]) == ("spring", 0, None)
    assert rows["extra"]["source"] == "stored"
    second = beat(empty)
    wait_for(lambda: listed(empty)["extra"]["fired"] > 0, 60, "the added entry to fire", [second.log])
    refused = empty.run("schedule", "rm", sweep, "-A", "proj", seconds=60)
    assert "remove it there, or pause it" in refused.err
    for command in (("resume", sweep), ("rm", "extra")):
        done = empty.run("schedule", *command, "-A", "proj", seconds=60)
        assert done.code == 0, done.err
    worker.wait_for_log("swept at ", 60)
    assert "extra" not in listed(empty)
    assert second.stop() == 0


def test_wrong_words_are_refused_at_once_by_entry_field_and_value(empty: Project, prefix: str) -> None:
    empty.write("proj.py", FUNCTIONS.format(prefix=prefix))
    for arguments, words in [
        (("pause", f"{prefix}.swep"), f"did you mean '{prefix}.sweep'?"),
        (("add", "x", "--definition", '{"cron": "0 3 31 2 *", "task": "t"}'), "31 2"),
        (("add", "x", "--definition", '{"every_second": 3, "task": "t"}'), "every_seconds"),
    ]:
        done = empty.run("schedule", *arguments, "-A", "proj")
        assert done.code == 2, done.err
        assert words in done.err
    explained = empty.run("schedule", "explain", "0 0 13 * 5", "--tz", "Europe/Lisbon", "-n", "2")
    assert "other dialect fires at other times" in explained.out
    empty.write("proj.py", FUNCTIONS.format(prefix=prefix).replace("0 3 * * *", "0 25 * * *"))
    done = empty.run("beat", "-A", "proj", "--check")
    assert done.code == 78
    assert "hour cannot be '25'" in done.err


MOVED = """
import os
from datetime import timedelta

from lightbus.compat import Celery

app = Celery("{prefix}", broker=os.environ["BROKER"])
app.conf.task_default_queue = "{prefix}"


@app.task(bind=True, name="proj.tick", ignore_result=True)
def tick(self, a, b):
    with open("ledger.txt", "a") as ledger:
        ledger.write(f"{{self.request.id}} {{a + b}}\\n")


@app.on_after_finalize.connect
def schedule(sender, **_):
    sender.add_periodic_task(timedelta(seconds=0.5), tick.s(2, 3), name="tick")
"""


def beats_of(worker: Any) -> list[int]:
    """The pids of the beats that have run beside a worker, the oldest first."""
    return [int(pid) for pid in re.findall(r"lightbus beat ready pid=(\d+)", worker.read_log())]


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("broker", ["sqlite", "redis"])
def test_of_the_beats_beside_the_workers_one_fires_and_each_lives_as_long_as_its_worker(
    empty: Project, prefix: str, broker: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    empty.environment["BROKER"] = (
        f"sqlite:///{tmp_path}/bus.db" if broker == "sqlite" else request.getfixturevalue("redis_url")
    )
    empty.write("proj.py", MOVED.format(prefix=prefix))
    ledger = empty.folder / "ledger.txt"

    def runs() -> list[str]:
        return ledger.read_text().splitlines() if ledger.exists() else []

    first, second = (empty.worker("-A", "proj", "-B", "-c", "1") for _ in range(2))
    logs = [first.log, second.log]
    wait_for(lambda: beats_of(first) and beats_of(second) and len(runs()) >= 2, 60, "two beats and runs", logs)

    (killed,) = beats_of(first)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: len(beats_of(first)) == 2, 60, "another beat beside the first worker", logs)
    assert "the beat beside this worker ended with -9; another starts" in first.read_log()
    seen = len(runs())
    wait_for(lambda: len(runs()) >= seen + 2, 60, "runs after the kill", logs)

    first.kill()  # its supervisor alone: what it started has to see that for itself
    wait_for(lambda: not is_alive(beats_of(first)[1]), 60, "the beat of the killed worker to end", logs)
    seen = len(runs())
    wait_for(lambda: len(runs()) >= seen + 2, 60, "runs that the other beat sends", logs)
    wait_for(lambda: leads(second), 60, "the other beat to lead", logs)
    assert beats_of(second) == beats_of(second)[:1]
    assert second.stop(60) == 0
    assert not is_alive(beats_of(second)[0])

    row = listed(empty)["tick"]
    last = empty.worker("-A", "proj", "-c", "1")  # what was sent and not yet run
    wait_for(lambda: len(runs()) >= row["fired"], 60, "the last runs", [last.log])
    ran = [line.split()[0] for line in runs()]
    assert len(ran) == len(set(ran))
    assert set(ran) == set(expected_ids(row))


def leads(worker: Any) -> bool:
    return "leading" in worker.read_log()


def test_intervals_go_on_where_celery_beat_left_them(
    empty: Project, prefix: str, tmp_path: Path, processes: Any
) -> None:
    url = f"sqlite:///{tmp_path}/bus.db"
    empty.write("proj.py", "import lightbus.drivers.sqlite\n" + STOCK.format(prefix=prefix).replace("0.5", "3600"))
    empty.environment["BROKER"] = url
    old = processes.start(
        "python", "-c",
        "import proj, celery.beat, datetime\n"
        "s = celery.beat.PersistentScheduler(proj.app, schedule_filename='celerybeat-schedule')\n"
        "s.schedule['tick'].last_run_at = datetime.datetime.now(datetime.timezone.utc)-datetime.timedelta(minutes=20)\n"
        "s.close()", environment=empty.environment, folder=empty.folder,
    )  # fmt: skip
    assert old.wait(60) == 0
    done = empty.run("beat", "-A", "proj", "--celery-state", "celerybeat-schedule", "--check", seconds=60)
    assert done.code == 0, done.err
    beat(empty, "--celery-state", "celerybeat-schedule")
    row = wait_for(
        lambda: {**listed(empty)["tick"]} if "not yet" not in listed(empty)["tick"]["source"] else None, 60, "it"
    )
    left = datetime.fromisoformat(row["next"]) - datetime.now(timezone.utc)
    assert timedelta(minutes=35) < left <= timedelta(minutes=40)
