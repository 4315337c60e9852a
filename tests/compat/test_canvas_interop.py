"""The same canvases sent by Celery and by Lightbus, run by Celery, by Lightbus, and by both in turn, on one Redis.

What Celery alone makes of each is the measure: all other ways must come to the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import __version__ as celery_version

from tests.brokers import Brokers
from tests.processes import ROOT, Processes

NAMES = (
    "chain", "group", "chord", "chord then tasks", "task then group", "task chord task", "two chords",
    "chains in a header", "chord in a header", "immutable", "map", "starmap", "failed step", "failed header",
    "failed chain in a header", "failed header of an inner chord",
)  # fmt: skip
PROJECT = Path(__file__).parent
SIDES = ("c", "l", "cl", "lc", "llc")

Outcomes = dict[tuple[str, str, str], object]


@pytest.fixture(scope="module")
def outcomes(brokers: Brokers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcomes]:
    """What came of every canvas in every way, by client, sides and name; all are under way at the same time."""
    ways = [(client, sides, name) for client in ("celery", "lightbus") for sides in SIDES for name in NAMES]
    processes = Processes(tmp_path_factory.mktemp("canvas"))
    with brokers.redis_database() as url:
        environment = {"CANVAS_URL": url, "PYTHONPATH": str(PROJECT)}
        try:
            processes.start(
                "python", "-m", "celery", "-A", "canvas_project", "worker", "-P", "prefork", "-c", "1", "-l", "INFO",
                name="celery", environment=environment,
            )  # fmt: skip
            worker = processes.start(
                "python", "-m", "lightbus.cli", "worker", "-A", "canvas_project", "-c", "1",
                name="lightbus", environment=environment,
            )  # fmt: skip
            worker.wait_for_log("lightbus worker ready")
            yield _ask(url, ways)
        finally:
            processes.end()


def _ask(url: str, ways: list[tuple[str, str, str]]) -> Outcomes:
    paths = os.pathsep.join([str(PROJECT), str(ROOT), str(ROOT / "scheduler")])
    done = subprocess.run(
        [sys.executable, str(PROJECT / "canvas_project.py")],
        env={**os.environ, "CANVAS_URL": url, "PYTHONPATH": paths},
        input=json.dumps(ways) + "\n", capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(zip(ways, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_it_comes_to_what_celery_alone_makes_of_it(outcomes: Outcomes, name: str) -> None:
    measure = outcomes["celery", "c", name]
    different = {way: value for way, value in outcomes.items() if way[2] == name and value != measure}

    assert measure != "TimeoutError"
    assert different == {}, f"Celery {celery_version} alone makes {measure!r} of it"
