"""Tasks that are still written for Celery, run by `lightbus worker --tasks`: they come to what Celery makes of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery._state
import pytest
from celery import Celery
from celery.app.trace import reset_worker_optimizations

from lightbus.compat import Settings, TaskApp
from lightbus.compat.bridge import adopt
from lightbus.compat.endpoint import TaskEndpoint
from lightbus.core.errors import ConfigError
from lightbus.core.rate import Rate
from lightbus.drivers.memory import MemoryTransport
from tests.processes import ROOT, Processes

PROJECT = Path(__file__).parent


def client(environment: dict[str, str], queue: str) -> dict[str, Any]:
    paths = os.pathsep.join([str(PROJECT), str(ROOT), str(ROOT / "scheduler")])
    done = subprocess.run(
        [sys.executable, str(PROJECT / "adopted_project.py"), queue],
        env={**os.environ, **environment, "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(params=["redis", "amqp"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    backend = request.getfixturevalue("redis_url")
    broker = backend if request.param == "redis" else request.getfixturevalue("amqp_url")
    return {
        "ADOPT_BROKER": broker, "ADOPT_BACKEND": backend, "ADOPT_LOG": str(tmp_path / "{queue}.log"),
        "PYTHONPATH": str(PROJECT),
    }  # fmt: skip


@pytest.mark.timeout(180)
def test_an_adopted_project_comes_to_what_celerys_worker_makes_of_it(
    environment: dict[str, str], tmp_path: Path
) -> None:
    processes = Processes(tmp_path)
    try:
        processes.start(
            "python", "-m", "celery", "-A", "adopted_project", "worker", "-c", "1", "-Q", "by-celery",
            name="celery", environment=environment,
        )  # fmt: skip
        worker = processes.start(
            "python", "-m", "lightbus.cli", "worker", "-A", "adopted_project", "-c", "1", "-Q", "by-lightbus",
            "--tasks", "adopted_project.*", name="lightbus", environment=environment,
        )  # fmt: skip
        worker.wait_for_log("lightbus worker ready")
        by_celery = client(environment, "by-celery")
        by_lightbus = client(environment, "by-lightbus")
    finally:
        processes.end()

    assert by_lightbus == by_celery
    assert by_celery["chord"] == [12, "SUCCESS"]


@pytest.mark.timeout(120)
def test_the_bridge_brings_an_adopted_task_its_messages_and_takes_them_back(
    redis_url: str, tmp_path: Path, processes: Processes
) -> None:
    project = {
        "broker": redis_url, "backend": redis_url, "ran": str(tmp_path / "ran"), "bridge": True,
        "moved": ["project.resize"], "celery_tasks": ["project.resize", "project.mail"],
    }  # fmt: skip
    environment = {"PROJECT": json.dumps(project)}
    module = "tests.compat.bridge_project:app"
    old = processes.start(
        *("python", "-m", "celery", "-A", module, "worker", "-P", "solo", "-l", "INFO"),
        name="celery", environment=environment,
    )  # fmt: skip
    adopting_worker = processes.start(
        *("python", "-m", "lightbus.cli", "worker", "-A", module, "-c", "1", "--tasks", "project.resize"),
        name="adopting", environment=environment,
    )  # fmt: skip
    old.wait_for_log("ready.", seconds=30)
    adopting_worker.wait_for_log("lightbus worker ready", seconds=30)
    unaware = Celery("unaware", broker=redis_url, backend=redis_url, set_as_current=False)  # sends to Celery's queue

    resized = unaware.send_task("project.resize", (1,))
    assert resized.get(timeout=30) == "project.resize ran in Celery"
    adopting_worker.wait_for_log(f"handled name=project.resize id={resized.id}")
    assert adopting_worker.stop(30) == 0

    again = unaware.send_task("project.resize", (2,))
    plain = processes.start(
        *("python", "-m", "lightbus.cli", "worker", "-A", module, "-c", "1"), name="plain", environment=environment
    )
    assert again.get(timeout=30) == "project.resize ran in Celery"
    old.wait_for_log(f"project.resize[{again.id}] succeeded")
    assert (tmp_path / "ran").read_text(encoding="utf-8").splitlines() == ["project.resize (1,)", "project.resize (2,)"]
    assert "adopted" not in plain.read_log()
    unaware.close()


@pytest.fixture(autouse=True)
def celery_as_before() -> Iterator[None]:
    """What adoption changes in Celery for the whole process, as its own worker does, is undone."""
    current, default = celery._state._tls.current_app, celery._state.default_app
    yield
    reset_worker_optimizations(Celery("any", set_as_current=False))
    celery._state._tls.current_app, celery._state.default_app = current, default


def adopting(**options: Any) -> tuple[TaskApp, Celery]:
    """A Celery app with one task `proj.resize`, made with `options`, and a Lightbus app to adopt it."""
    celery_app = Celery("proj", set_as_current=False)

    def resize(photo: str) -> str:
        return photo

    celery_app.task(name="proj.resize", shared=False, **options)(resize)
    return TaskApp(Settings(), transport=MemoryTransport()), celery_app


def test_a_pattern_that_names_no_task_is_refused_with_the_nearest_name() -> None:
    app, celery_app = adopting()

    with pytest.raises(ConfigError, match=r"'proj.resise': did you mean 'proj.resize'\?"):
        adopt(app, celery_app, ["proj.resise"])
    with pytest.raises(ConfigError, match="celery"):
        adopt(app, celery_app, ["celery.*"])
    assert app.adopted == {}


def test_a_task_that_only_celerys_worker_can_run_is_refused_by_name() -> None:
    app, celery_app = adopting(Strategy="celery.worker.strategy:default2")
    with pytest.raises(ConfigError, match=r"'proj\.resize' has a Strategy or Request class"):
        adopt(app, celery_app, ["proj.*"])

    async def coroutine() -> None: ...

    celery_app.task(name="proj.coroutine", shared=False)(coroutine)
    with pytest.raises(ConfigError, match=r"'proj\.coroutine' is a coroutine function"):
        adopt(app, celery_app, ["proj.coroutine"])


def test_adoption_says_nothing_of_where_messages_are_sent() -> None:
    app, celery_app = adopting()

    assert adopt(app, celery_app, ["proj.*"]) == ("proj.resize",)

    assert app.find("proj.resize") is not None
    assert not app.serves("proj.resize")
    assert "proj.resize" not in app.tasks


def test_where_nothing_has_moved_celerys_queue_gets_what_ends_a_group_that_stands_for_a_task() -> None:
    app, celery_app = adopting()
    assert app.serves("celery.accumulate")

    adopt(app, celery_app, ["proj.*"])
    assert not app.serves("celery.accumulate")

    app.task(name="proj.moved")(lambda: None)
    assert app.serves("celery.accumulate")


def test_an_adopted_task_keeps_its_rate() -> None:
    app, celery_app = adopting(rate_limit="10/m")
    adopt(app, celery_app, ["proj.resize"])

    assert TaskEndpoint(app).rates() == {"proj.resize": Rate.parse("10/m")}
