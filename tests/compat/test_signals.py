"""Receivers of Celery's signals hear of tasks on Lightbus what they hear on Celery's worker, in its order."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import celery.signals
import pytest

from lightbus.compat import signals
from tests.brokers import Brokers
from tests.processes import ROOT, Processes

PROJECT = Path(__file__).parent
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

Told = dict[tuple[str, str], list[dict[str, Any]]]


def hear(url: str, side: str, processes: Processes, folder: Path) -> tuple[dict[str, Any], Told, list[list[Any]]]:
    """Run all scenarios on one side: what came of them, what receivers heard of each task, and of the worker's life."""
    log = folder / f"{side}.log"
    environment = {
        "SIGNALS_URL": url, "SIGNALS_SIDE": side, "SIGNALS_LOG": str(log), "PYTHONPATH": str(PROJECT),
    }  # fmt: skip
    commands = {
        "celery": ("python", "-m", "celery", "-A", "signals_project", "worker", "-c", "1", "-l", "INFO"),
        "lightbus": ("python", "-m", "lightbus.cli", "worker", "-A", "signals_project", "-c", "1"),
    }
    worker = processes.start(*commands[side], name=side, environment=environment)
    old = processes.start(
        "python", "-m", "celery", "-A", "signals_project", "worker", "-P", "solo", "-Q", "unmoved", "-n", "old@h",
        "-l", "INFO", name=f"{side}-old", environment={**environment, "SIGNALS_LOG": str(folder / "old.log")},
    )  # fmt: skip
    worker.wait_for_log({"celery": "ready.", "lightbus": "lightbus worker ready"}[side], seconds=40)
    old.wait_for_log("ready.", seconds=40)
    sent_log = folder / f"{side}-client.log"
    paths = os.pathsep.join([str(PROJECT), str(ROOT), str(ROOT / "scheduler")])
    done = subprocess.run(
        [sys.executable, str(PROJECT / "signals_project.py")],
        env={**os.environ, **environment, "SIGNALS_LOG": str(sent_log), "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    worker.stop(30)
    old.stop(30)
    told: Told = defaultdict(list)
    life: dict[int, list[Any]] = defaultdict(list)
    for path in (sent_log, log):
        for line in path.read_text(encoding="utf-8").splitlines():
            heard = json.loads(_ID.sub(lambda match: found["ids"].get(match[0], "another"), line))
            pid = heard.pop("pid")
            if "task" in heard:
                told[heard.pop("task"), _where(path is sent_log, heard["signal"])].append(heard)
            elif path is log:
                life[pid].append([heard["signal"], heard["arguments"], heard["node"]])
    return found["results"], told, sorted(life.values())


def _where(client: bool, signal: str) -> str:
    """Which process sends it in Celery; between two of them there is no order."""
    if client:
        return "client"
    if signal in ("task_received", "task_revoked"):
        return "parent"
    return "publish" if "publish" in signal else "child"


def alike(told: Told) -> Told:
    """Without the differences that are meant: see docs/migration/signals.md."""
    same: Told = {}
    for key, several in told.items():
        if key[0] == "another":
            continue  # tasks that the workers sent: of two that run at a time there is no order
        for heard in several:
            if heard["signal"] == "task_received":
                heard["sender"] = "the worker"  # Celery's consumer, or the node
                if key[0] == "again":
                    heard["state"] = ""  # Celery's parent may have the next try before its child has stored RETRY
            if heard["signal"] == "task_revoked":
                heard["runs"] = True  # Celery's parent process has no current task
            heard["result"] = str(heard.get("result")).replace("Retry(Retry(...), ", "Retry(None, ")
        same[key] = several
    if ("rejected", "child") in same:  # Celery's parent stores FAILURE, its child goes on meanwhile
        rejected = sorted(same["rejected", "child"], key=lambda heard: str(heard["signal"]))
        for heard in rejected:
            heard["state"], heard["runs"] = "", True
        same["rejected", "child"] = rejected
    return same


def as_before_5_7(told: Told) -> Told:
    """What Celery says only since 5.7, and Lightbus says whichever is installed, taken out: how long a task took, and
    that one that was rejected has failed."""
    for several in told.values():
        for heard in several:
            if heard["signal"] == "task_success":
                assert "runtime" in heard["arguments"]
                heard["arguments"] = [name for name in heard["arguments"] if name != "runtime"]
    rejected = told["rejected", "child"]
    assert [heard["signal"] for heard in rejected].count("task_failure") == 1
    told["rejected", "child"] = [heard for heard in rejected if heard["signal"] != "task_failure"]
    return told


@pytest.mark.timeout(240)
def test_receivers_hear_what_they_hear_on_celerys_worker(brokers: Brokers, tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    try:
        with brokers.redis_database() as url:
            results, told, life = hear(url, "celery", processes, tmp_path)
        with brokers.redis_database() as url:
            our_results, our_told, our_life = hear(url, "lightbus", processes, tmp_path)
    finally:
        processes.end()

    assert our_results == {**results, "marked": results["marked"]}
    theirs, ours = alike(told), alike(our_told)
    assert ours.keys() == theirs.keys()
    if celery.VERSION < (5, 7):
        ours = as_before_5_7(ours)
    different = {key: (theirs[key], ours[key]) for key in theirs if ours[key] != theirs[key]}
    assert different == {}
    names = [[signal for signal, _, _ in process] for process in life]
    assert [[signal for signal, _, _ in process] for process in our_life] == names
    assert {(signal, tuple(arguments)) for process in our_life for signal, arguments, _ in process} == {
        (signal, tuple(arguments)) for process in life for signal, arguments, _ in process
    }


def test_every_signal_of_celery_has_its_name_here() -> None:
    theirs = {name for name, value in vars(celery.signals).items() if isinstance(value, celery.signals.Signal)}
    assert theirs <= set(signals.__all__)


def test_a_receiver_connected_here_and_there_is_called_once() -> None:
    heard: list[str] = []

    def receiver(sender: Any, **named: Any) -> None:
        heard.append(sender)

    signals.heartbeat_sent.connect(receiver)
    celery.signals.heartbeat_sent.connect(receiver)
    try:
        signals.heartbeat_sent.send("me")
        celery.signals.heartbeat_sent.send("you")
    finally:
        assert signals.heartbeat_sent.disconnect(receiver)
    assert heard == ["me", "you"]
    assert not signals.heartbeat_sent.has_listeners()


def test_without_celery_signals_work_by_themselves() -> None:
    program = """
import sys
from lightbus.compat import TaskApp
from lightbus.compat.signals import task_prerun, before_task_publish

heard = []

@task_prerun.connect
def receiver(sender, **named):
    heard.append((sender, sorted(named)))

@task_prerun.connect(sender="other")
def never(**named):
    heard.append("never")

task_prerun.connect(receiver, weak=True)  # once is enough

def broken(**named):
    raise KeyError("mine")

task_prerun.connect(broken)
answers = task_prerun.send("me", task_id="1")
assert heard == [("me", ["signal", "task_id"])], heard
assert isinstance(answers[1][1], KeyError), answers
assert task_prerun.disconnect(receiver) and not task_prerun.disconnect(receiver)
del broken, answers
import gc
gc.collect()  # what it raised keeps it alive
assert not task_prerun.has_listeners()
try:
    task_prerun.connect(lambda: None)
except ValueError as error:
    assert "keyword" in str(error)
else:
    raise SystemExit("a receiver without **kwargs was taken")
assert "celery" not in sys.modules
print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout == "done\n", done.stderr
