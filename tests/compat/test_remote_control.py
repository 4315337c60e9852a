"""Celery's own tools see and steer a Lightbus worker: its commands and its clients run here as they are, against real
brokers, and beside a worker of Celery's."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery
import kombu
import pytest

from lightbus.compat import GroupResult, Settings, TaskApp
from lightbus.compat.exceptions import TaskRevokedError
from tests.processes import ROOT, Process, Processes, wait_for

HOST = socket.gethostname()
SECONDS = 60.0

pytestmark = pytest.mark.timeout(300)


class Project:
    """A Celery project in `folder`, its workers, and Celery's commands for it.

    Attributes:
        app: sends tasks, and steers, with Lightbus; celery_app: with Celery.
    """

    def __init__(self, broker: str, backend: str, queue: str, folder: Path, processes: Processes) -> None:
        self.folder = folder
        self.ran = folder / "ran"
        self.ran.touch()
        self._processes = processes
        self.told = {"broker": broker, "backend": backend, "queue": queue, "ran": str(self.ran)}
        self.queue = queue
        self.app = TaskApp(
            Settings(
                broker_url=broker, result_backend=backend, default_queue=queue,
                moved=frozenset({"add", "hold", "hold_async"}),
            )
        )  # fmt: skip
        self.celery_app = celery.Celery("steers", broker=broker, backend=backend, set_as_current=False)

    def worker(self, node: str, *options: str, pool_restarts: bool = False) -> Process:
        """A Lightbus worker that answers."""
        worker = self._start("lightbus.cli", "worker", *options, pool_restarts=pool_restarts)
        worker.wait_for_log(f"remote control: node {node}", SECONDS)
        return worker

    def celery_worker(self) -> Process:
        worker = self._start("celery", "worker", "-P", "threads", "-c", "1", "-l", "INFO")
        worker.wait_for_log(" ready.", SECONDS)
        return worker

    def _start(self, program: str, command: str, *options: str, pool_restarts: bool = False) -> Process:
        app = ("-A", "tests.compat.remote_project")
        line = [*app, command] if program == "celery" else [command, *app]
        return self._processes.start(
            "python", "-m", program, *line, *options, name=program.partition(".")[0],
            environment={"PROJECT": json.dumps({**self.told, "conf": {"worker_pool_restarts": pool_restarts}})},
        )  # fmt: skip

    def celery(self, *arguments: str) -> tuple[int, str]:
        """Run Celery's command; its exit code and its output."""
        paths = os.pathsep.join((str(ROOT), str(ROOT / "scheduler")))
        done = subprocess.run(
            [sys.executable, "-m", "celery", "-A", "tests.compat.remote_project", *arguments], cwd=self.folder,
            env={**os.environ, "PROJECT": json.dumps(self.told), "PYTHONPATH": paths}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def heartbeat(self, node: str) -> dict[str, Any]:
        """What Celery's receiver of events hears of a node that is asked for a heartbeat."""
        found: list[dict[str, Any]] = []
        with self.celery_app.connection_for_read() as connection:
            receiver = self.celery_app.events.Receiver(connection, {"worker-heartbeat": found.append})
            with receiver.consumer_context(wakeup=False) as (used, _, _):

                def heard() -> list[dict[str, Any]]:
                    self.celery_app.control.heartbeat(destination=[node])  # again: Redis keeps none for who comes late
                    with contextlib.suppress(TimeoutError):
                        used.drain_events(timeout=1)
                    return found

                return wait_for(heard, SECONDS, "a heartbeat")[0]

    def lines(self) -> list[str]:
        return self.ran.read_text().splitlines()

    def wait_ran(self, line: str) -> None:
        wait_for(lambda: line in self.lines(), SECONDS, f"{line!r} in what ran", list(self.folder.glob("*.log")))

    def close(self) -> None:
        self.app.close()
        self.celery_app.close()


@pytest.fixture(params=["redis", "amqp"])
def project(
    request: pytest.FixtureRequest, redis_url: str, prefix: str, tmp_path: Path, processes: Processes
) -> Iterator[Project]:
    broker = redis_url if request.param == "redis" else request.getfixturevalue("amqp_vhost_url")
    project = Project(broker, redis_url, prefix, tmp_path, processes)
    yield project
    project.close()


def test_the_commands_of_celery_see_and_steer_a_worker(project: Project, tmp_path: Path) -> None:
    node = f"shop@{HOST}"
    worker = project.worker(node, "-c", "1", "--prefetch", "2", "-n", "shop@%h", "--heartbeat-interval", "3600")
    inspect, control = project.app.control.inspect(destination=[node], timeout=30), project.app.control
    gate = tmp_path / "gate"
    patient = ("-d", node, "--timeout", "60")  # with a destination it waits no longer than for its answer

    code, out = project.celery("status", *patient)
    assert code == 0, out
    assert re.search(rf"{node}: +OK", out), out

    first = project.app.send_task("hold", ("first", str(gate)))
    second = project.app.send_task("hold", ("second", str(gate)))
    project.wait_ran("began first")
    code, out = project.celery("inspect", "active", "--json", *patient)
    assert code == 0, out
    (active,) = json.loads(out)[node]
    assert (active["id"], active["name"], active["args"]) == (first.id, "hold", ["first", str(gate)])
    assert active["acknowledged"] is True
    assert wait_for(lambda: inspect.query_task(first.id, second.id)[node].get(first.id), SECONDS, "it")[0] == "active"
    assert sorted(inspect.registered()[node]) == ["add", "hold", "hold_async"]
    assert [queue["name"] for queue in inspect.active_queues()[node]] == [f"lightbus.{project.queue}"]
    assert inspect.scheduled()[node] == []
    assert inspect.stats()[node]["total"] == {"hold": 1}

    # `celery control` waits for its whole timeout; what it did shows whether the node heard it.
    project.celery("control", "revoke", second.id, "--timeout", "0.5")
    wait_for(lambda: inspect.revoked()[node] == [second.id], SECONDS, "the revoke to be known")
    project.celery("control", "terminate", "SIGKILL", first.id, "--timeout", "0.5")
    for one in (first, second):
        with pytest.raises(TaskRevokedError):
            one.get(timeout=SECONDS)
    assert project.app.send_task("add", (1, 2)).get(timeout=SECONDS) == 3  # by the process that came instead
    assert "began second" not in project.lines()

    def told(command: str, arguments: dict[str, Any] | None = None) -> Any:
        """By Celery's client."""
        (answer,) = project.celery_app.control.broadcast(command, arguments, [node], reply=True, timeout=30)
        return answer[node]

    assert told("pool_grow", {"n": 1}) == {"ok": "pool will grow"}
    wait_for(lambda: len(inspect.stats()[node]["pool"]["processes"]) == 2, SECONDS, "two processes")
    assert control.pool_shrink(1, destination=[node], reply=True, timeout=30) == [{node: {"ok": "pool will shrink"}}]
    assert "error" in told("pool_shrink", {"n": 5})
    assert told("time_limit", {"task_name": "hold", "soft": 70, "hard": 90}) == {"ok": "time limits set successfully"}
    assert told("enable_events") == {"ok": "task events enabled"}
    assert told("enable_events") == {"ok": "task events already enabled"}
    assert told("disable_events") == {"ok": "task events disabled"}
    # What is refused, and how: as Celery's worker does.
    assert told("pool_restart") == {"error": "ValueError('Pool restarts not enabled')"}
    assert told("autoscale", {"max": 5, "min": 1}) == {"error": "ValueError('Autoscale not enabled')"}
    assert told("nothing") == {"error": "KeyError('nothing')"}
    assert told("rate_limit", {"task_name": "add", "rate_limit": "5/x"})["error"].startswith("Invalid rate limit")
    assert told("rate_limit", {"task_name": "other", "rate_limit": "5/m"}) == {"error": "unknown task"}
    assert told("revoke", {"task_id": "x", "signal": "NOSUCH"})["error"].startswith("ValueError")
    with kombu.Connection(project.told["broker"]) as connection, connection.channel() as channel:
        kombu.Producer(channel, kombu.Exchange("celery.pidbox", "fanout", durable=False)).publish([5])
    assert told("ping") == {"ok": "pong"}  # it outlives what is no command

    beat = project.heartbeat(node)
    assert (beat["hostname"], beat["pid"], beat["active"], beat["freq"]) == (node, worker.pid, 0, 3600)
    assert set(beat) >= {"clock", "processed", "loadavg", "sw_ident", "sw_ver", "sw_sys", "timestamp", "utcoffset"}
    assert told("memsample").endswith("MB")

    # A queue more, and one less.
    more = f"{project.queue}-more"
    assert told("add_consumer", {"queue": more}) == {"ok": f"add consumer {more}"}
    assert project.app.send_task("add", (2, 2), queue=more).get(timeout=SECONDS) == 4
    assert told("cancel_consumer", {"queue": more}) == {"ok": f"no longer consuming from {more}"}
    wait_for(lambda: len(inspect.active_queues()[node]) == 1, SECONDS, "the queue to be left")

    # A rate: what is over it is passed over, by one process and thus in their order.
    wait_for(lambda: len(inspect.stats()[node]["pool"]["processes"]) == 1, SECONDS, "one process")
    assert told("rate_limit", {"task_name": "add", "rate_limit": "1/h"}) == {"ok": "new rate limit set successfully"}
    gate.touch()
    project.app.send_task("add", (10, 0)).get(timeout=SECONDS)
    project.app.send_task("add", (11, 0))
    project.app.send_task("hold", ("last", str(gate))).get(timeout=SECONDS)
    assert "add 11" not in project.lines()
    assert "add [rate_limit=1/h]" in inspect.registered()[node]

    control.shutdown(destination=[node])
    assert worker.wait(SECONDS) == 0


def test_commands_of_the_projects_own_are_answered_by_nodes_of_both_kinds(project: Project) -> None:
    node, other = f"lightbus@{HOST}", f"celery@{HOST}"
    project.celery_worker()
    project.worker(node)
    control = project.app.control
    nodes, patient = [node, other], ("--timeout", "30", "-d", f"{node},{other}")

    def answers(command: str, **arguments: Any) -> dict[str, Any]:
        replies = control.broadcast(command, arguments, destination=nodes, reply=True, timeout=30, limit=2) or []
        return {name: answer for reply in replies for name, answer in reply.items()}

    # Celery's worker may say that it is ready before it has subscribed on Redis, which keeps nothing for it.
    wait_for(lambda: set(answers("ping")) == set(nodes), SECONDS, "both to answer")

    expected = {one: {"twice": 8, "app": "project", "host": one, "ids": ["a", "b"]} for one in nodes}
    code, out = project.celery("inspect", *patient, "--json", "twice", "4")
    assert code == 0, out
    assert json.loads(out[out.index("{") : out.rindex("}") + 1]) == expected
    assert answers("doubled", number=4) == expected
    code, out = project.celery("control", *patient, "note", "hello")
    assert code == 0, out
    assert out.count("noted hello") == 2
    assert project.lines().count("noted hello") == 2

    prefetched = answers("prefetched")
    assert isinstance(prefetched[other], int)
    assert "'prefetched' asks for state.consumer" in prefetched[node]["error"]
    assert "state.app, state.hostname and state.tset" in prefetched[node]["error"]
    assert set(answers("nonesuch")[node]) == set(answers("nonesuch")[other]) == {"error"}

    vote = {"id": "1", "topic": "t"}
    assert control.broadcast("election", vote, destination=[node], reply=True, timeout=30, limit=1) == [{node: None}]


def test_nodes_of_both_kinds_answer_alike_and_share_revokes(project: Project, tmp_path: Path) -> None:
    """A revoke that only a Celery worker knows reaches a Lightbus worker that starts later, and outlives restarts."""
    node, other = f"lightbus@{HOST}", f"celery@{HOST}"
    project.celery_worker()
    control = project.app.control
    # Celery's worker may say that it is ready before it has subscribed on Redis, which keeps nothing for it.
    told = lambda: control.revoke("elsewhere", destination=[other], reply=True, timeout=5)  # noqa: E731
    wait_for(told, SECONDS, "Celery's worker to answer")

    options = ("--autoscale", "1,1", "--prefetch", "2", "-S", str(tmp_path / "state-%n"))
    worker = project.worker(node, *options, pool_restarts=True)
    both = control.inspect(destination=[node, other], timeout=30)
    names = (
        "ping", "clock", "stats", "active", "reserved", "scheduled", "revoked", "registered", "conf", "report",
        "active_queues",
    )  # fmt: skip
    answers = {name: getattr(both, name)() for name in names}
    by_celery = project.celery_app.control.inspect(destination=[node, other], timeout=30)
    for name, answer in answers.items():
        assert set(answer) == {node, other}, name
        assert type(answer[node]) is type(answer[other]), name
        assert set(getattr(by_celery, name)()) == {node, other}, name
    for name in ("stats", "ping", "clock", "report"):
        assert set(answers[name][other]) <= set(answers[name][node]), name
    stats = answers["stats"]
    assert set(stats[other]["rusage"]) == set(stats[node]["rusage"])
    assert set(stats[other]["broker"]) == set(stats[node]["broker"])
    assert set(answers["active_queues"][other][0]) == set(answers["active_queues"][node][0])
    assert answers["conf"][node]["task_default_queue"] == project.queue
    assert set(answers["conf"][node]["include"]) == {"tests.compat.remote_project"}
    assert "tests.compat.remote_project" in answers["conf"][other]["include"]  # among modules of Celery's own tasks
    assert answers["revoked"][node] == answers["revoked"][other] == ["elsewhere"]

    # Each side runs a task and holds others, which are revoked on both by one call.
    gate = tmp_path / "gate"
    project.app.send_task("in_celery", (str(gate),))
    project.app.send_task("hold", ("here", str(gate)))
    project.wait_ran("began here")
    shapes = wait_for(lambda: _shape_of_one(both.active(), node, other), SECONDS, "Celery's worker to run its task")
    assert shapes[node] == shapes[other]
    delayed = project.app.send_task("add", (5, 5), countdown=1, task_id="elsewhere")
    waiting = [project.app.send_task("in_celery", (str(gate),), countdown=600), project.app.send_task("add", (6, 6))]
    held = GroupResult("both", waiting, app=project.app)
    held.revoke(wait=True, timeout=1)
    ids = {one.id for one in held}
    wait_for(lambda: all(ids <= set(known) for known in both.revoked().values()), SECONDS, "both to know")
    gate.touch()
    project.wait_ran("ended here")
    for one in (*held, delayed):
        with pytest.raises(TaskRevokedError):
            one.get(timeout=SECONDS)

    assert control.autoscale(2, 1, destination=[node], reply=True, timeout=30) == [
        {node: {"ok": "autoscale now max=2 min=1"}}
    ]
    (refused,) = control.pool_grow(1, destination=[node], reply=True, timeout=30) or []
    assert refused[node]["error"].startswith("pool_grow is not supported with autoscale")

    # New code, and later a new worker: what was revoked stays revoked.
    assert control.revoke("stays", destination=[node], reply=True, timeout=30)
    assert control.pool_restart(destination=[node], reply=True, timeout=30) == [{node: {"ok": "reload started"}}]
    heard = f"remote control: node {node}"
    wait_for(lambda: worker.read_log().count(heard) == 2, SECONDS, "the new code to answer", [worker.log])
    assert "stays" in control.inspect(destination=[node], timeout=30).revoked()[node]
    assert worker.stop(SECONDS) == 0
    assert (tmp_path / "state-lightbus").exists()
    project.worker(node, *options)
    assert {"elsewhere", "stays", *ids} <= set(control.inspect(destination=[node], timeout=30).revoked()[node])
    stays = project.app.send_task("add", (7, 7), task_id="stays")
    with pytest.raises(TaskRevokedError):
        stays.get(timeout=SECONDS)
    assert not {"add 5", "add 6", "add 7"} & set(project.lines())


def _shape_of_one(active: dict[str, list[dict[str, Any]]], *nodes: str) -> dict[str, dict[str, object]] | None:
    if not all(active[node] for node in nodes):
        return None
    return {node: {name: type(value).__name__ for name, value in active[node][0].items()} for node in nodes}
