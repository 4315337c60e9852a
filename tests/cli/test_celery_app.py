"""A Celery project on the command line: its app is found, its tasks are loaded, its broker is used."""

from __future__ import annotations

import pytest

from tests.cli.conftest import CONTRACTS, Project

CELERY = """
from celery import Celery

from lightbus.compat.bridge import install

app = Celery("proj", broker={url!r}, backend="rpc://")
app.conf.update(task_default_queue="{prefix}", imports=["proj.jobs"])
install(app)
"""

JOBS = """
from lightbus.compat import task


@task(name="{prefix}.add")
def add(a, b):
    return a + b
"""

BUS = """
from contracts import Tickets
from lightbus import Bus

bus = Bus("{prefix}")


@bus.on(Tickets.created)
def remember(event: Tickets.created) -> None:
    print(f"heard of {{event.id}}", flush=True)
"""


@pytest.fixture
def proj(empty: Project, redis_url: str, prefix: str) -> Project:
    """A Celery project on Redis with one task that moved, and a bus that names no broker."""
    empty.write("contracts.py", CONTRACTS.format(prefix=prefix))
    empty.write("proj/__init__.py", "from .celery import app as celery_app\n")
    empty.write("proj/celery.py", CELERY.format(url=redis_url, prefix=prefix))
    empty.write("proj/jobs.py", JOBS.format(prefix=prefix))
    empty.write("proj/bus.py", BUS.format(prefix=prefix))
    return empty


def test_the_tasks_of_a_celery_app_are_loaded_and_its_broker_serves_the_bus_too(proj: Project, prefix: str) -> None:
    worker = proj.worker("-A", "proj", "-c", "1")
    log = worker.read_log()
    result = proj.run("send", f"{prefix}.add", "1", "2", "--wait", "-A", "proj")
    fired = proj.run("fire", f"{prefix}.tickets.created", "id=5", "-A", "proj")

    assert f"lightbus.{prefix}: tasks" in log
    assert f"{prefix}.on.remember: listener" in log
    assert "embedded" not in log
    assert (result.code, result.out) == (0, "3\n"), result.err
    assert fired.code == 0, fired.err
    worker.wait_for_log("heard of 5")
    assert worker.stop() == 0


def test_a_queue_of_celery_can_be_served_by_its_name(proj: Project, prefix: str) -> None:
    log = proj.worker("-A", "proj.celery", "-c", "1", "-Q", prefix).read_log()

    assert f"  {prefix}: tasks" in log


def test_a_task_module_that_cannot_be_imported_is_named(proj: Project) -> None:
    proj.write("proj/jobs.py", "import no_such_library\n")
    ended = proj.run("worker", "-A", "proj.celery")

    assert ended.code == 78
    assert "no_such_library" in ended.sentence
    assert "jobs.py" in ended.sentence


def test_doctor_knows_the_celery_app(proj: Project, prefix: str) -> None:
    proj.worker("-A", "proj", "-c", "1")
    well = proj.run("doctor", "-A", "proj", "--json")

    assert well.json()["findings"] == []
    assert well.json()["celery"]["bridge_installed"] is True
    assert well.json()["queues"][f"lightbus.{prefix}"] == 0

    text = (proj.folder / "proj" / "celery.py").read_text()
    proj.write("proj/celery.py", text.replace("\ninstall(app)\n", ""))
    ended = proj.run("doctor", "-A", "proj")
    assert ended.code == 1
    assert "has no bridge" in ended.out


def test_a_serializer_that_nobody_has_registered_is_said(proj: Project) -> None:
    text = (proj.folder / "proj" / "celery.py").read_text()
    proj.write("proj/celery.py", text.replace("imports=", 'task_serializer="nonesuch", imports='))
    ended = proj.run("worker", "-A", "proj")

    assert ended.code == 78
    assert "serializer 'nonesuch' is not known" in ended.err


def test_an_app_of_events_alone_needs_nothing_of_its_celery_app_but_the_broker(proj: Project, prefix: str) -> None:
    text = (proj.folder / "proj" / "celery.py").read_text()
    text = text.replace("\ninstall(app)\n", "").replace('imports=["proj.jobs"]', 'task_serializer=["pickle"]')
    proj.write("proj/celery.py", text.replace("from lightbus.compat.bridge import install\n", ""))
    log = proj.worker("-A", "proj", "-c", "1").read_log()

    assert f"{prefix}.on.remember: listener" in log
    assert "redis://" in log
    assert ": tasks" not in log
