"""A Django project of Celery's kind that imports `lightbus.compat` instead, where Celery is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import celery
import pytest

from tests.processes import ROOT, Processes

PROJECTS = Path(__file__).parent / "projects"
#: Of what the site does, what an older Celery does not have.
LACKS = [name for name, since in {"on_commit": (5, 4), "models": (5, 5)}.items() if celery.VERSION[:2] < since]


def ask(environment: dict[str, str]) -> dict[str, Any]:
    paths = os.pathsep.join([environment["PYTHONPATH"], str(ROOT), str(ROOT / "scheduler")])
    done = subprocess.run(
        [sys.executable, str(PROJECTS / "site" / "ask.py")], env={**os.environ, **environment, "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.timeout(240)
def test_a_django_project_runs_without_celery_and_comes_to_the_same(redis_url: str, tmp_path: Path) -> None:
    common = {
        "SITE_BROKER": redis_url, "SITE_BACKEND": redis_url, "SITE_DATABASE": str(tmp_path / "db.sqlite3"),
        "DJANGO_SETTINGS_MODULE": "shopsite.settings", "SITE_LACKS": " ".join(LACKS),
    }  # fmt: skip
    site = str(PROJECTS / "site")
    old = {**common, "SITE_ENGINE": "celery", "PYTHONPATH": site}
    new = {
        **common, "SITE_ENGINE": "lightbus", "PYTHONPATH": os.pathsep.join([str(PROJECTS / "without_celery"), site]),
    }  # fmt: skip
    processes = Processes(tmp_path)
    try:
        processes.start("python", "-m", "celery", "-A", "shopsite", "worker", "-c", "1", name="celery", environment=old)
        worker = processes.start(
            "python", "-m", "lightbus.cli", "worker", "-A", "shopsite", "-c", "1", name="lightbus", environment=new
        )  # fmt: skip
        worker.wait_for_log("lightbus worker ready", 60)
        by_celery, by_lightbus = ask(old), ask(new)
    finally:
        processes.end()

    assert (by_celery.pop("celery"), by_lightbus.pop("celery")) == (True, False)
    assert by_lightbus == by_celery
    assert by_celery["annotated"] == [1, 1, 0]
    assert by_celery["on_commit"] == (None if "on_commit" in LACKS else [0, [23, 24]])
