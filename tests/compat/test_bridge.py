"""The bridge, in real Celery workers on real brokers: what reaches them for a moved task goes to Lightbus, unharmed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import Celery
from kombu.compression import decompress

from tests.compat.bridge_project import make_app
from tests.processes import Process, Processes, wait_for

MARK = {"x-lightbus-hops", "x-lightbus-from"}
REPEAT = {"lightbus_repeat", "redelivered"}  #: added to what a broker had handed out before; the second by kombu
NAME = "project.resize"


@dataclass
class Sent:
    """A message as a Celery producer gave it to its channel."""

    body: bytes
    headers: dict[str, Any]
    properties: dict[str, Any]
    routing_key: str


@dataclass
class Project:
    """A Celery project on one broker: producers in this process, workers in others."""

    broker: str
    backend: str
    folder: Path
    processes: Processes
    monkeypatch: pytest.MonkeyPatch
    conf: dict[str, Any] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)

    def described(self, **what: Any) -> dict[str, Any]:
        conf = {**self.conf, **what.pop("conf", {})}
        return {"broker": self.broker, "backend": self.backend, "ran": str(self.ran), "conf": conf, **what}

    @property
    def ran(self) -> Path:
        return self.folder / "ran"

    def app(self, **what: Any) -> Celery:
        return make_app(self.described(**what))

    def worker(self, *arguments: str, pool: str = "solo", **what: Any) -> Process:
        command = [
            "-m",
            "celery",
            "-A",
            "tests.compat.bridge_project:app",
            "worker",
            "-P",
            pool,
            "-c",
            "2",
            "-l",
            "INFO",
        ]
        process = self.processes.start(
            "python", *command, *arguments, name="celery", environment={"PROJECT": json.dumps(self.described(**what))}
        )
        process.wait_for_log("ready.", seconds=30)
        return process

    def record(self) -> None:
        original = kombu.Producer._publish

        def publish(producer: Any, body: Any, *args: Any, **kwargs: Any) -> Any:
            priority, _type, _encoding, headers, properties, routing_key = args[:6]
            data = body.encode() if isinstance(body, str) else bytes(body)
            self.sent.append(Sent(data, dict(headers), {**properties, "priority": priority}, routing_key))
            return original(producer, body, *args, **kwargs)

        self.monkeypatch.setattr(kombu.Producer, "_publish", publish)

    def take(self, queue: str, count: int, seconds: float = 30, *logs: Process) -> list[Any]:
        """The messages of a queue, as soon as there are `count`."""
        got: list[Any] = []
        with kombu.Connection(self.broker) as connection:

            def enough() -> bool:
                message = self._get(connection, queue)
                if message is not None:
                    got.append(message)
                return message is None and len(got) >= count

            wait_for(enough, seconds, f"{count} messages in {queue}, got {len(got)}", [log.log for log in logs])
        return got

    def waiting(self, queue: str) -> int:
        with kombu.Connection(self.broker) as connection:
            try:
                return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
            except connection.channel_errors:
                return 0

    @staticmethod
    def _get(connection: Any, queue: str) -> Any:
        try:
            message = connection.default_channel.basic_get(queue, no_ack=True)
            return None if message is None else connection.default_channel.message_to_python(message)
        except connection.channel_errors:  # there is no such queue yet
            connection.default_channel.close()
            connection._default_channel = None
            return None


@pytest.fixture(params=["redis", "amqp"])
def project(
    request: pytest.FixtureRequest,
    redis_url: str,
    tmp_path: Path,
    processes: Processes,
    monkeypatch: pytest.MonkeyPatch,
) -> Project:
    broker = redis_url if request.param == "redis" else request.getfixturevalue("amqp_vhost_url")
    made = Project(broker, redis_url, tmp_path, processes, monkeypatch)
    made.record()
    return made


def assert_unharmed(sent: list[Sent], got: list[Any], *, may_repeat: bool = False) -> None:
    """Each message arrived exactly once, and is the one that was sent but for the mark."""
    assert Counter(message.headers["id"] for message in got) == Counter(one.headers["id"] for one in sent)
    by_id = {one.headers["id"]: one for one in sent}
    for message in got:
        one = by_id[message.headers["id"]]
        plain = decompress(one.body, one.headers["compression"]) if one.headers.get("compression") else one.body
        body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
        assert body == plain
        allowed = MARK | REPEAT if may_repeat else MARK
        assert {k: v for k, v in message.headers.items() if k not in allowed} == one.headers
        assert message.headers["x-lightbus-hops"] == 1
        for name in ("correlation_id", "reply_to", "priority", "expiration", "delivery_mode"):
            assert message.properties.get(name) == one.properties.get(name), name


def test_everything_sent_before_the_move_reaches_lightbus_once_and_unharmed(project: Project) -> None:
    before = project.app(celery_tasks=[NAME])
    old_worker = project.worker(celery_tasks=[NAME])
    held = [before.send_task(NAME, (n,), countdown=3600) for n in range(5)]
    for result in held:
        old_worker.wait_for_log(result.id)
    assert old_worker.stop() == 0
    results = [before.send_task(NAME, (n, "plain")) for n in range(5)]
    results += [before.send_task(NAME, (n,), countdown=3600, expires=7200, priority=3) for n in range(5)]
    results += [
        before.send_task(NAME, (n,), compression="gzip", shadow="other", headers={"mine": "x"}) for n in range(2)
    ]
    results.append(
        before.send_task(NAME, (1,), link=before.signature("a"), link_error=before.signature("b"), reply_to="r")
    )
    sent = list(project.sent)

    new_worker = project.worker(bridge=True, moved=[NAME])
    got = project.take("lightbus.celery", len(sent), 30, new_worker)

    assert_unharmed(sent, got, may_repeat=True)
    assert project.waiting("celery") == 0
    assert {result.state for result in [*held, *results]} == {"PENDING"}
    assert not project.ran.exists()
    assert new_worker.read_log().count("forwarded name=project.resize") == len(sent)
