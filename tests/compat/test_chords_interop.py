"""Chords whose results lie in a database or in files: `celery.chord_unlock` looks for them, on either side.

Some of the canvases of test_matrix, sent by and run by Celery, Lightbus, and both in turn.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from celery import __version__ as celery_version

from tests.brokers import Brokers, PostgreSQL
from tests.compat.test_matrix import CLIENTS, Outcomes, play, workers

NAMES = ("chord", "chord then tasks", "chains in a header", "chord in a header", "failed header")
WAYS = [(client, sides, name) for client in CLIENTS for sides in ("c", "l", "cl") for name in NAMES]


def _outcomes(brokers: Brokers, results: str, folder: Path) -> Outcomes:
    with brokers.redis_database() as url:
        environment = {"MATRIX_BROKER": url, "MATRIX_RESULTS": results, "MATRIX_NOTES": url}
        with workers(environment, folder):
            return play(WAYS, environment)


@pytest.mark.timeout(200)
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
        assert "TimeoutError" not in str(measure)
        assert different == {}, f"Celery {celery_version} alone makes {measure!r} of {name!r}"
