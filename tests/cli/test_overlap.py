"""What a schedule does when the last firing still runs, and how it knows: workers tell, or results of tasks do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lightbus.beat import Ends
from lightbus.compat import Settings, TaskApp
from lightbus.compat.beat import task_target
from lightbus.compat.results import ResultDocument
from lightbus.core.message import Wire
from lightbus.core.outcome import SLOT_HEADER, Ack, DeadLetter, Forward, Outcome, Requeue, Retry
from lightbus.core.topology import ENDS_QUEUE, Queue, Topology
from lightbus.drivers import open_transport
from lightbus.ports import Transport
from lightbus.worker.settle import Settler
from lightbus_scheduler import ScheduleError
from tests.cli.conftest import Project
from tests.processes import wait_for


@pytest.fixture(params=["sqlite", "redis", "amqp"])
def transport(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Transport]:
    match request.param:
        case "sqlite":
            url = f"sqlite:///{tmp_path}/bus.db"
        case "redis":
            url = str(request.getfixturevalue("redis_url"))
        case _:
            url = str(request.getfixturevalue("amqp_vhost_url"))
    opened = open_transport(url)
    yield opened
    opened.close()


def test_a_worker_tells_when_a_message_is_done_with_and_not_when_it_comes_again(transport: Transport) -> None:
    settler, work = Settler(transport, "dead"), Queue(name="work")
    transport.declare(settler.topology() + Topology(queues=(work, Queue(name=ENDS_QUEUE))))
    outcomes: dict[str, Outcome] = {
        "done": Ack(), "failed": Ack("error"), "dead": DeadLetter("failed", "x"), "again": Retry(60.0, 2, "x"),
        "own retry": Ack("retry"), "back": Requeue(), "elsewhere": Forward(work.route),
    }  # fmt: skip
    for name, outcome in outcomes.items():
        transport.publish(Wire(body=b"", headers={SLOT_HEADER: f"{name.split()[0]} an entry"}), work.route).result(20)
        delivery = wait_for(lambda: transport.get("work"), 20, "the message")
        settler.settle(delivery, outcome)
        settler.drain(20)
        if name in ("back", "elsewhere"):
            wait_for(lambda: transport.get("work"), 20, "its return").ack()
    told: list[tuple[str, str]] = []
    refused: list[bool] = []

    def note(ends: Sequence[tuple[str, str]]) -> bool:
        if not refused:  # the first time nobody could note it
            refused.append(True)
            return False
        told.extend(ends)
        return True

    ends = Ends(lambda: transport)
    wait_for(lambda: ends.pass_on(note) or len(told) >= 3, 30, "all that was told")
    assert sorted(told) == [("an entry", "dead"), ("an entry", "done"), ("an entry", "failed")]
    wait_for(lambda: transport.message_count(ENDS_QUEUE) == 0, 20, "nothing to be left")


def test_what_nobody_could_tell_is_refused_by_entry_and_rule(tmp_path: Path) -> None:
    app = TaskApp(Settings(broker_url=f"sqlite:///{tmp_path}/bus.db", result_backend="redis://127.0.0.1:1/0"))

    @app.task(name="moved", ignore_result=True)
    def moved() -> None:
        pass

    def target(task: str, **options: Any) -> Any:
        return task_target(app, task, (), {}, options)

    target("celerys").check_overlap("skip")  # its result tells
    target("moved").check_overlap("queue-one")  # its worker tells
    with pytest.raises(ScheduleError, match=r"overlap cannot be 'skip'; allowed: allow, for 'celerys'.*result_backend"):
        target("celerys", ignore_result=True).check_overlap("skip")
    with pytest.raises(ScheduleError, match="'celerys'"):
        target("celerys", ignore_result=True).check_overlap("cancel")
    assert target("celerys").may_run("1")  # the results cannot be read: nobody knows


def test_the_result_of_a_task_tells_that_it_is_over(redis_url: str) -> None:
    app = TaskApp(Settings(broker_url=redis_url, result_backend=redis_url))
    one = task_target(app, "celerys", (), {}, {})
    seen = [one.may_run("1")]
    for status in ("STARTED", "RETRY", "SUCCESS"):
        app.results.store(ResultDocument(task_id="1", status=status), reply_to="", correlation_id="")
        seen.append(one.may_run("1"))
    assert seen == [True, True, True, False]
    app.results.close()


PROJECT = """
import os, time
from datetime import timedelta
from pathlib import Path

from lightbus import Bus
from lightbus.compat import Settings, default_app, task
from lightbus_scheduler import Every

bus = Bus("{prefix}")
default_app().configure(Settings(broker_url=os.environ["LIGHTBUS_URL"], default_queue="{prefix}"))


def note(what):
    with open("journal.txt", "a") as journal:
        journal.write(what + "\\n")


@bus.schedule(Every(timedelta(seconds=0.2)), overlap="skip")
def slow(slot):
    note("slow begins")
    while not Path("gate").exists():
        time.sleep(0.01)
    note("slow ends")


@task(name="{prefix}.stuck", ignore_result=True)
def stuck():
    note("stuck begins")
    while True:
        time.sleep(0.01)


@task(name="{prefix}.again", bind=True, ignore_result=True, max_retries=3)
def again(self):
    note(f"again {{self.request.id}} {{self.request.retries}}")
    if self.request.retries < 2:
        self.retry(countdown=0.3)
    note(f"again {{self.request.id}} ends")
"""
SETTINGS = """
[tool.lightbus.schedule.again]
every_seconds = 0.2
task = "{prefix}.again"
overlap = "queue-one"
"""
STUCK = """
[tool.lightbus.schedule.stuck]
every_seconds = 1
task = "{prefix}.stuck"
overlap = "cancel"
"""


def test_no_firing_begins_before_the_last_one_ended_and_a_repetition_is_not_its_end(
    empty: Project, prefix: str, redis_url: str
) -> None:
    empty.write("proj.py", PROJECT.format(prefix=prefix))
    empty.write("pyproject.toml", SETTINGS.format(prefix=prefix))
    empty.environment["LIGHTBUS_URL"] = redis_url
    worker = empty.worker("-A", "proj", "-c", "4")
    beat = empty.start("beat", "-A", "proj", name="beat")
    journal = empty.folder / "journal.txt"

    def lines(word: str) -> list[str]:
        return [one for one in journal.read_text().splitlines() if word in one] if journal.exists() else []

    wait_for(lambda: len([one for one in lines("again") if one.endswith("ends")]) >= 2, 60, "two runs",
             [worker.log, beat.log])  # fmt: skip
    beat.wait_for_log(f"skipped entry='{prefix}.slow'", 60)
    assert lines("slow") == ["slow begins"]
    (empty.folder / "gate").touch()
    wait_for(lambda: len(lines("slow ends")) >= 3, 60, "further runs", [worker.log, beat.log])
    beat.stop()
    worker.stop()
    runs: list[list[str]] = []  # of the task: what belongs to one id stands together
    for line in lines("again"):
        _, task_id, step = line.split()
        if not runs or runs[-1][0] != task_id:
            runs.append([task_id])
        runs[-1].append(step)
    assert len({run[0] for run in runs}) == len(runs)
    assert [run[1:] for run in runs[:-1]] == [["0", "1", "2", "ends"]] * (len(runs) - 1)
    done = empty.run("schedule", "ls", "-A", "proj", "--json", seconds=60)
    rows = {row["id"]: row for row in json.loads(done.out)}
    assert rows["again"]["skipped"] > 0  # one waits, those after it are left out


def test_the_last_firing_of_a_task_is_ended_for_the_next_one(empty: Project, prefix: str, redis_url: str) -> None:
    empty.write("proj.py", PROJECT.format(prefix=prefix))
    empty.write("pyproject.toml", STUCK.format(prefix=prefix))
    empty.environment["LIGHTBUS_URL"] = redis_url
    worker = empty.worker("-A", "proj", "-c", "1", "-Q", f"lightbus.{prefix}")
    beat = empty.start("beat", "-A", "proj", name="beat")
    journal = empty.folder / "journal.txt"
    wait_for(lambda: journal.exists() and journal.read_text().count("stuck begins") >= 3, 100, "three runs in one slot",
             [worker.log, beat.log])  # fmt: skip
    beat.stop()
    worker.kill_group()
