"""What pytest loads beside Celery's integration tests: a Lightbus worker stands where they start Celery's.

Celery's fixture `celery_session_worker` calls `celery.contrib.testing.worker.start_worker`, which runs a Celery worker
on a thread of the test process; here it runs `lightbus worker --tasks` as a process. The tests, and Celery as their
client, stay what they are. Only tests that ask for that worker are run: the others are Celery alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Collection, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import celery.contrib.testing.worker
import pytest
from celery import Celery
from celery.result import _set_task_join_will_block, allow_join_result
from celery.utils.nodenames import anon_nodename

from tests.celery_suite.known import BETTER, LEFT_OUT, Known, known_failures
from tests.celery_suite.names import BROKER, FOLDER, SETTINGS, WORKER
from tests.processes import ROOT, Process

SUITE = "t/integration"
WORKER_FIXTURE = "celery_session_worker"
SERVING = pytest.StashKey[Process]()
#: For a test that is known to fail: Celery gives most of them 300, and those that wait for ever would use them up.
KNOWN_SECONDS = 60


# The worker


def pytest_configure(config: pytest.Config) -> None:
    """SIGTERM interrupts, as Ctrl-C does: fixtures end what they have started. SIGINT itself may be ignored here."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def lightbus_in_celerys_place(pytestconfig: pytest.Config) -> Iterator[None]:
    @contextlib.contextmanager
    def start_worker(app: Celery, concurrency: int = 1, **_options: Any) -> Iterator[Process]:
        with serving(app, concurrency) as worker:
            pytestconfig.stash[SERVING] = worker
            yield worker

    if os.environ[WORKER] == "celery":
        yield
        return
    celerys = celery.contrib.testing.worker.start_worker
    celery.contrib.testing.worker.start_worker = start_worker
    yield
    celery.contrib.testing.worker.start_worker = celerys


@contextlib.contextmanager
def serving(app: Celery, concurrency: int) -> Iterator[Process]:
    """A Lightbus worker with the name that Celery's would have, ready; its exit code has to be 0."""
    app.finalize()
    app.set_current()
    app.set_default()
    worker = Process(
        [
            "python", "-m", "lightbus.cli", "worker", "-A", "tests.celery_suite.worker_app", "-Q", "celery",
            "--tasks", "*", "-c", str(concurrency), "-n", anon_nodename(),
        ],
        Path(os.environ[FOLDER]) / "worker.log",
        environment={SETTINGS: settings_of(app), "PYTHONPATH": os.pathsep.join([os.getcwd(), str(ROOT)])},
    )  # fmt: skip
    try:
        worker.wait_for_log("lightbus worker ready", 60)
        _set_task_join_will_block(False)  # as Celery's function does
        with allow_join_result():
            assert app.tasks["t.integration.tasks.identity"].delay("pong").get(timeout=30) == "pong"
        yield worker
        assert worker.stop(60) == 0, worker.read_log()
    except AssertionError as error:
        pytest.exit(f"the Lightbus worker did not serve: {error}", returncode=3)
    finally:
        worker.kill_group()


def settings_of(app: Celery) -> str:
    """What was set in the test process, as JSON."""
    return json.dumps(dict(app.conf.without_defaults()), default=list)  # accept_content is a set


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """A failed test shows what the worker said meanwhile; a worker that ended takes the run with it."""
    report = yield
    worker = item.config.stash.get(SERVING, None)
    if worker is not None and report.failed:
        report.sections.append(("end of the worker's log", "\n".join(worker.read_log().splitlines()[-30:])))
    if worker is not None and report.when == "call" and worker.exit_code is not None:
        pytest.exit(f"the Lightbus worker ended with {worker.exit_code} during {item.nodeid}", returncode=3)
    return report


# Which tests


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    return True if collection_path.name in LEFT_OUT else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what needs the worker, before -k and the like choose; expect of what `known.py` lists that it fails."""
    others = [item for item in items if WORKER_FIXTURE not in getattr(item, "fixturenames", ())]
    items[:] = [item for item in items if WORKER_FIXTURE in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=others)
    if os.environ[WORKER] == "celery":
        return
    celerys = version("celery")
    known, better = known_failures(celerys, os.environ[BROKER]), BETTER[celerys]
    if config.args == [SUITE]:
        refuse_stale({*known, *better}, {name_of(item) for item in items})
    for item in items:
        expect(item, known.get(name_of(item)), passes=name_of(item) in better)


def expect(item: pytest.Item, known: Known | None, *, passes: bool) -> None:
    """Mark a test that is on a list; the first mark of a kind counts, and Celery has put some there."""
    if passes:
        item.own_markers[:] = [mark for mark in item.own_markers if mark.name != "xfail"]
    if known is not None:
        item.add_marker(pytest.mark.xfail(reason=known.reason, strict=not known.sometimes), append=False)
        item.add_marker(pytest.mark.timeout(KNOWN_SECONDS), append=False)


def name_of(item: pytest.Item) -> str:
    """As in `known.py`: `test_tasks.py::test_tasks::test_eta`."""
    return item.nodeid.removeprefix(f"{SUITE}/")


def refuse_stale(known: Collection[str], existing: Collection[str]) -> None:
    gone = sorted(set(known) - set(existing))
    if gone:
        raise pytest.UsageError(f"tests/celery_suite/known.py lists tests that do not exist: {', '.join(gone)}")
