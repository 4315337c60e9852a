"""Chords whose results lie in a database or in files: `celery.chord_unlock` looks for them, on either side.

The same canvases as in test_canvas_interop, sent by and run by Celery, Lightbus, and both in turn.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from celery import __version__ as celery_version

from tests.brokers import Brokers, PostgreSQL
from tests.processes import ROOT, Processes

PROJECT = Path(__file__).parent
NAMES = ("chord", "chord then tasks", "chains in a header", "chord in a header", "failed header")
WAYS = [(client, sides, name) for client in ("celery", "lightbus") for sides in ("c", "l", "cl") for name in NAMES]

Outcomes = dict[tuple[str, str, str], object]


def _outcomes(brokers: Brokers, results: str, folder: Path) -> Outcomes:
    """What came of every canvas in every way; all are under way at the same time."""
    processes = Processes(folder)
    with brokers.redis_database() as url:
        environment = {"CANVAS_URL": url, "CANVAS_RESULTS": results, "PYTHONPATH": str(PROJECT)}
        try:
            processes.start(
                "python", "-m", "celery", "-A", "canvas_project", "worker", "-P", "prefork", "-c", "1", "-l", "INFO",
                name="celery", environment=environment,
            )  # fmt: skip
            processes.start(
                "python", "-m", "lightbus.cli", "worker", "-A", "canvas_project", "-c", "1",
                name="lightbus", environment=environment,
            ).wait_for_log("lightbus worker ready", 60)  # fmt: skip
            paths = os.pathsep.join([str(PROJECT), str(ROOT), str(ROOT / "scheduler")])
            done = subprocess.run(
                [sys.executable, str(PROJECT / "canvas_project.py")],
                env={**os.environ, **environment, "PYTHONPATH": paths, "CANVAS_WAIT": "60"},
                input=json.dumps(WAYS) + "\n", capture_output=True, text=True, timeout=110, check=False,
            )  # fmt: skip
        finally:
            processes.end()
    assert done.returncode == 0, done.stderr
    return dict(zip(WAYS, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("place", ["db", "file"])
def test_chords_come_to_what_celery_alone_makes_of_them(place: str, brokers: Brokers, tmp_path: Path) -> None:
    if place == "file":
        (tmp_path / "results").mkdir()
        outcomes = _outcomes(brokers, f"file://{tmp_path}/results", tmp_path)
    else:
        reachable = Path(tempfile.mkdtemp(prefix="lightbus-postgres-"))  # its user could not reach pytest's folder
        server = PostgreSQL(reachable)
        with server:
            url = server.url.replace("postgresql://", "postgresql+psycopg://")
            outcomes = _outcomes(brokers, f"db+{url}", tmp_path)
        shutil.rmtree(reachable)

    for name in NAMES:
        measure = outcomes["celery", "c", name]
        different = {way: value for way, value in outcomes.items() if way[2] == name and value != measure}
        assert measure != "TimeoutError"
        assert different == {}, f"Celery {celery_version} alone makes {measure!r} of {name!r}"
