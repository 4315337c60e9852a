"""What runs Celery's integration tests is held here by a small suite of the same form: the real one takes too long."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.celery_suite.known import BETTER, KNOWN
from tests.celery_suite.names import BROKER, FOLDER, WORKER
from tests.celery_suite.sdist import SHA256, SuiteUnavailable, fetch
from tests.processes import ROOT, wait_for

CONFTEST = """
import os
import pytest
from celery.contrib.pytest import celery_app, celery_session_app, celery_session_worker

@pytest.fixture(scope="session")
def celery_config():
    return {"broker_url": os.environ["TEST_BROKER"], "result_backend": os.environ["TEST_BACKEND"]}

@pytest.fixture(scope="session")
def celery_includes():
    return {"t.integration.tasks"}

@pytest.fixture
def manager(celery_session_app, celery_session_worker):
    return celery_session_app
"""

TASKS = """
import os
from celery import Task, shared_task

@shared_task
def identity(x):
    return x

@shared_task(bind=True)
def where(self):
    return self.request.hostname, os.getpid()

class ClassBasedAutoRetryTask(Task):
    name = "auto_retry_class_task"
"""

TESTS = """
import os
import pytest
from lightbus.compat import states
from t.integration.tasks import where

def test_a_process_of_lightbus_serves(manager):
    result = where.delay()
    name, pid = result.get(timeout=20)
    assert result.state == states.SUCCESS
    assert name.startswith("gen") and pid != os.getpid()

def test_listed_and_fails(manager):
    assert False

def test_listed_and_passes(manager):
    pass

def test_listed_for_the_other_broker(manager):
    assert False

def test_fails_and_is_not_listed(manager):
    assert False

@pytest.mark.xfail(reason="Celery's")
def test_passes_where_celerys_mark_says_that_it_fails(manager):
    pass

def test_needs_no_worker():
    assert False
"""

STUCK = """
import time
from pathlib import Path
from t.integration.tasks import where

def test_does_not_end(manager):
    name, pid = where.delay().get(timeout=20)
    Path("worker.part").write_text(str(pid))
    Path("worker.part").rename("worker.pid")
    time.sleep(300)
"""

LISTS = """
from importlib.metadata import version
from tests.celery_suite import known
from tests.celery_suite.known import Known

listed = [
    Known("test_small.py::test_listed_and_fails", "of course"),
    Known("test_small.py::test_listed_and_passes", "not any more"),
    Known("test_small.py::test_listed_for_the_other_broker", "there", broker="rabbitmq"),
]
better = {"test_small.py::test_passes_where_celerys_mark_says_that_it_fails"}
known.KNOWN, known.BETTER = {version("celery"): listed + EXTRA}, {version("celery"): better}
"""


def written(folder: Path, redis_url: str, tests: str, lists: str) -> dict[str, Any]:
    """A suite with `tests`; what to start its pytest with."""
    suite = folder / "suite"
    files = {"conftest.py": CONFTEST, "tasks.py": TASKS, "test_small.py": tests, "__init__.py": ""}
    (suite / "t" / "integration").mkdir(parents=True)
    (suite / "t" / "__init__.py").touch()
    (suite / "pytest.ini").write_text("[pytest]\nxfail_strict = true\n")
    (suite / "lists.py").write_text(lists)
    for name, text in files.items():
        (suite / "t" / "integration" / name).write_text(text)
    paths = os.pathsep.join(map(str, [suite, ROOT, ROOT / "scheduler"]))
    told = {"TEST_BROKER": redis_url, "TEST_BACKEND": redis_url, FOLDER: str(folder), BROKER: "redis"}
    return {"cwd": suite, "env": {**os.environ, **told, WORKER: "lightbus", "PYTHONPATH": paths}}


COMMAND = [
    sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "celery.contrib.pytest", "-p", "lists",
    "-p", "tests.celery_suite.plugin", "-rA", "--tb=short", "t/integration",
]  # fmt: skip


NO_LISTS = """
from importlib.metadata import version
from tests.celery_suite import known

known.KNOWN, known.BETTER = {version("celery"): []}, {version("celery"): set()}
"""


def run(folder: Path, redis_url: str, extra: str = "[]") -> subprocess.CompletedProcess[str]:
    suite = written(folder, redis_url, TESTS, LISTS.replace("EXTRA", extra))
    return subprocess.run(COMMAND, **suite, capture_output=True, text=True, timeout=100, check=False)


def outcomes(report: str) -> dict[str, str]:
    """Test to its outcome, from pytest's short summary."""
    return {name: word for word, name in re.findall(r"^([A-Z]+) t/integration/test_small\.py::(\w+)", report, re.M)}


def test_a_run_that_is_ended_by_sigterm_ends_its_worker(tmp_path: Path, redis_url: str) -> None:
    suite = written(tmp_path, redis_url, STUCK, NO_LISTS)
    tests = subprocess.Popen(COMMAND, **suite)
    told = suite["cwd"] / "worker.pid"
    wait_for(told.exists, 60, "a task to run")
    pid = int(told.read_text())

    tests.terminate()
    tests.wait(60)

    wait_for(lambda: not psutil.pid_exists(pid), 10, "the worker's process to end")


def test_a_test_has_to_come_out_as_the_list_says(tmp_path: Path, redis_url: str) -> None:
    done = run(tmp_path, redis_url)

    assert outcomes(done.stdout) == {
        "test_a_process_of_lightbus_serves": "PASSED",
        "test_listed_and_fails": "XFAIL",
        "test_listed_and_passes": "FAILED",
        "test_listed_for_the_other_broker": "FAILED",
        "test_fails_and_is_not_listed": "FAILED",
        "test_passes_where_celerys_mark_says_that_it_fails": "PASSED",
    }, done.stdout + done.stderr
    assert "[XPASS(strict)] not any more" in done.stdout
    assert "lightbus worker ready" in done.stdout  # the end of the worker's log, with what failed
    assert done.returncode == 1


def test_a_list_that_names_what_is_not_there_is_refused(tmp_path: Path, redis_url: str) -> None:
    done = run(tmp_path, redis_url, '[Known("test_small.py::test_gone", "was removed")]')

    assert "known.py lists tests that do not exist: test_small.py::test_gone" in done.stdout + done.stderr
    assert done.returncode == pytest.ExitCode.USAGE_ERROR


def test_another_archive_than_the_one_that_is_known_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "celery-5.7.0.tar.gz"
    archive.write_bytes(b"something else")

    with pytest.raises(SuiteUnavailable, match=rf"has the SHA-256 \w+, and not {SHA256['5.7.0']}: delete it"):
        fetch("5.7.0", tmp_path)
    with pytest.raises(
        SuiteUnavailable, match=r"the tests of Celery 4\.0\.0 are not known here, only those of 5\.7\.0"
    ):
        fetch("4.0.0", tmp_path)


def test_each_version_with_a_hash_has_lists_and_each_listed_test_a_reason() -> None:
    assert SHA256.keys() == KNOWN.keys() == BETTER.keys()
    for listed in KNOWN.values():
        assert len({(one.test, one.broker) for one in listed}) == len(listed)
        assert all(len(one.reason.split()) > 5 for one in listed)
