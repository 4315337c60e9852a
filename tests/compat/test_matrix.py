"""The same scenarios sent by Celery and by Lightbus, and run by Celery, by Lightbus, and where there are several tasks
by both in turn. What Celery alone makes of each is the measure: all other ways must come to the same. Of what an older
Celery does not do, what Lightbus makes of Celery's message is.

One Celery worker and one Lightbus worker per broker serve all of them; the results lie in Redis.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import VERSION
from celery import __version__ as celery_version

from tests.brokers import Brokers
from tests.compat.matrix_scenarios import CANVASES, SCENARIOS, SINCE
from tests.processes import ROOT, Processes

PROJECT = "tests.compat.matrix_project"
BROKERS = ("redis", "amqp")
CLIENTS = ("celery", "lightbus")
SIDES = ("c", "l")
MIXED = {"celery": "cl", "lightbus": "lc"}  #: of several tasks, by who sends them

#: What the Celery that is installed does not do itself yet.
NOT_YET = {name for name, (since, _) in SINCE.items() if VERSION[:2] < since}

Outcomes = dict[tuple[str, str, str], object]


def play(ways: list[tuple[str, str, str]], environment: dict[str, str]) -> Outcomes:
    """What came of every way, by client, sides and name; all are under way at the same time."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "scheduler")])
    done = subprocess.run(
        [sys.executable, "-m", "tests.compat.matrix_scenarios"],
        env={**os.environ, **environment, "PYTHONPATH": paths},
        input=json.dumps(ways), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(ways, json.loads(done.stdout.splitlines()[-1]), strict=True))


@contextlib.contextmanager
def workers(environment: dict[str, str], folder: Path) -> Iterator[Processes]:
    """A worker of each side, ready."""
    processes = Processes(folder)
    try:
        celery = processes.start(
            "python", "-m", "celery", "-A", PROJECT, "worker", "-P", "prefork", "-c", "1", "-l", "INFO",
            name="celery", environment=environment,
        )  # fmt: skip
        lightbus = processes.start(
            "python", "-m", "lightbus.cli", "worker", "-A", PROJECT, "-c", "1",
            name="lightbus", environment=environment,
        )  # fmt: skip
        lightbus.wait_for_log("lightbus worker ready", seconds=60)
        celery.wait_for_log("ready.", seconds=60)
        yield processes
    finally:
        processes.end()


@pytest.fixture(
    scope="module", params=[pytest.param(kind, marks=pytest.mark.xdist_group(f"matrix-{kind}")) for kind in BROKERS]
)
def outcomes(
    request: pytest.FixtureRequest, brokers: Brokers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outcomes]:
    ways = [(client, sides, name) for name in SCENARIOS for client in CLIENTS for sides in SIDES]
    ways += [(client, sides, name) for name in CANVASES for client in CLIENTS for sides in (*SIDES, MIXED[client])]
    ways = [(client, sides, name) for client, sides, name in ways if sides == "l" or name not in NOT_YET]
    with brokers.redis_database() as redis_url, contextlib.ExitStack() as stack:
        broker = redis_url if request.param == "redis" else stack.enter_context(brokers.vhost())
        environment = {"MATRIX_BROKER": broker, "MATRIX_RESULTS": redis_url, "MATRIX_NOTES": redis_url}
        with workers(environment, tmp_path_factory.mktemp("matrix")):
            yield play(ways, environment)


@pytest.mark.timeout(300)  # the first of them plays all
@pytest.mark.parametrize("name", [*SCENARIOS, *CANVASES])
def test_it_comes_to_what_celery_alone_makes_of_it(outcomes: Outcomes, name: str) -> None:
    served = "l" if name in NOT_YET else "c"
    measure = outcomes["celery", served, name]
    different = {way: value for way, value in outcomes.items() if way[2] == name and value != measure}

    assert "TimeoutError" not in json.dumps(measure)
    assert different == {}, f"sent by Celery {celery_version} and run by {served!r} it comes to {measure!r}"
