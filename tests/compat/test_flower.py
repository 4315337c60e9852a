"""Flower, as it is installed, shows a Lightbus worker and its tasks, and steers it."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from lightbus.compat import Settings, TaskApp
from lightbus.compat.exceptions import TaskRevokedError
from tests.processes import Processes, wait_for

NODE = f"lightbus@{socket.gethostname()}"
SECONDS = 90.0

pytestmark = pytest.mark.timeout(300)


def test_flower_shows_a_worker_and_its_tasks_and_revokes_one(
    redis_url: str, prefix: str, tmp_path: Path, processes: Processes
) -> None:
    ran = tmp_path / "ran"
    ran.touch()
    told = {"broker": redis_url, "backend": redis_url, "queue": prefix, "ran": str(ran)}
    environment = {"PROJECT": json.dumps(told), "FLOWER_UNAUTHENTICATED_API": "true"}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flower = processes.start(
        "python", "-m", "celery", "-A", "tests.compat.remote_project", "flower", "--address=127.0.0.1",
        f"--port={port}", "--inspect_timeout=10000", name="flower", environment=environment,
    )  # fmt: skip
    worker = processes.start(
        "python", "-m", "lightbus.cli", "worker", "-A", "tests.compat.remote_project", "-c", "1",
        name="worker", environment=environment,
    )  # fmt: skip
    flower.wait_for_log("Visit me at", SECONDS)
    worker.wait_for_log(f"remote control: node {NODE}", SECONDS)

    def ask(path: str, data: dict[str, str] | None = None) -> str:
        body = None if data is None else urllib.parse.urlencode(data).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=SECONDS) as answer:
            text: str = answer.read().decode()
            return text

    def workers() -> Any:
        return json.loads(ask(f"/api/workers?refresh=true&workername={NODE}")).get(NODE)

    # From the node's answers.
    shown = wait_for(lambda: (found := workers()) and "stats" in found and found, SECONDS, "Flower to ask the node")
    assert shown["stats"]["pool"]["max-concurrency"] == 1
    assert [queue["name"] for queue in shown["active_queues"]] == [f"lightbus.{prefix}"]
    assert sorted(shown["registered"]) == ["add", "hold", "hold_async"]
    # From its heartbeats.
    wait_for(lambda: json.loads(ask("/api/workers?status=true")).get(NODE) is True, SECONDS, "a heartbeat")
    assert NODE in ask("/workers")
    assert prefix in ask(f"/worker/{NODE}")

    # From the events of its tasks, which Flower switches on itself every few seconds.
    app = TaskApp(
        Settings(broker_url=redis_url, result_backend=redis_url, default_queue=prefix, moved=frozenset({"add", "hold"}))
    )

    def of_task(task_id: str) -> Any:
        try:
            return json.loads(ask(f"/api/task/info/{task_id}"))
        except urllib.error.HTTPError:
            return {}

    def a_task_is_shown() -> str:
        sent = app.send_task("add", (1, 2))
        sent.get(timeout=SECONDS)
        return sent.id if of_task(sent.id) else ""

    wait_for(a_task_is_shown, SECONDS, "Flower to hear of a task", [flower.log])
    gate = tmp_path / "gate"
    held = app.send_task("hold", ("here", str(gate)))
    began = wait_for(lambda: of_task(held.id).get("state") == "STARTED" and of_task(held.id), SECONDS, "its start")
    assert (began["name"], began["worker"]) == ("hold", NODE)
    assert held.id in ask("/api/tasks")
    assert held.id in ask(f"/task/{held.id}")

    assert f"Revoked '{held.id}'" in ask(f"/api/task/revoke/{held.id}", {"terminate": "true"})
    with pytest.raises(TaskRevokedError):
        held.get(timeout=SECONDS)
    wait_for(lambda: of_task(held.id).get("state") == "REVOKED", SECONDS, "Flower to show the revoke", [worker.log])
    assert "message" in ask(f"/api/worker/pool/grow/{NODE}", {"n": "1"})
    wait_for(lambda: workers()["stats"]["pool"]["max-concurrency"] == 2, SECONDS, "a second process", [worker.log])
    app.close()
    ask(f"/api/worker/shutdown/{NODE}", {})
    assert worker.wait(SECONDS) == 0
