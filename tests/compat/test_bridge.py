"""The bridge, in real Celery workers on real brokers: what reaches them for a moved task goes to Lightbus, unharmed."""

from __future__ import annotations

import json
import socket
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kombu
import pytest
from celery import Celery, chain, signature
from kombu.compression import decompress

import lightbus.drivers.sqlite  # noqa: F401 - makes its URLs known to kombu
from lightbus.compat import app as compat_app
from lightbus.compat import bridge, default_app, task
from lightbus.core.errors import ConfigError
from lightbus.drivers import open_transport
from tests.compat.bridge_project import make_app
from tests.processes import Process, Processes, wait_for

MARK = {"x-lightbus-hops", "x-lightbus-from"}
REPEAT = {"lightbus_repeat", "redelivered"}  #: added to what a broker had handed out before; the second by kombu
PROPERTIES = ("correlation_id", "reply_to", "priority", "delivery_mode")
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
    conf: dict[str, Any] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)

    @property
    def ran(self) -> Path:
        return self.folder / "ran"

    def described(self, **what: Any) -> dict[str, Any]:
        conf = {**self.conf, **what.pop("conf", {})}
        return {"broker": self.broker, "backend": self.backend, "ran": str(self.ran), "conf": conf, **what}

    def app(self, **what: Any) -> Celery:
        return make_app(self.described(**what))

    def worker(self, *, pool: str = "solo", **what: Any) -> Process:
        process = self.processes.start(
            *("python", "-m", "celery", "-A", "tests.compat.bridge_project:app"),
            *("worker", "-P", pool, "-c", "2", "-l", "INFO"),
            name="celery",
            environment={"PROJECT": json.dumps(self.described(**what))},
        )
        process.wait_for_log("ready.", seconds=30)
        return process

    def take(self, queue: str, count: int, seconds: float, *watched: Process) -> list[Any]:
        """All messages of a queue, as soon as there are `count`; acknowledged."""
        got: list[Any] = []
        with kombu.Connection(self.broker) as connection:

            def enough() -> bool:
                message = _get(connection, queue)
                if message is not None:
                    got.append(message)
                return message is None and len(got) >= count

            wait_for(enough, seconds, f"{count} messages in {queue}", [process.log for process in watched])
        return got

    def waiting(self, queue: str) -> int:
        with closing(open_transport(self.broker)) as transport:
            return transport.message_count(queue) or 0

    def put(self, queue: str, name: str, **headers: Any) -> None:
        """A task message for `name`, as somebody else's producer might send it."""
        with kombu.Connection(self.broker) as connection, connection.Producer() as producer:
            producer.publish(
                [[1], {}, None],
                serializer="json",
                routing_key=queue,
                declare=[kombu.Queue(queue, kombu.Exchange(queue), queue)],
                headers={"task": name, "id": f"id-{name}", **headers},
            )


def _get(connection: Any, queue: str) -> Any:
    with connection.channel() as channel:
        try:
            message = channel.basic_get(queue, no_ack=True)
        except connection.channel_errors:  # there is no such queue yet
            return None
        return None if message is None else channel.message_to_python(message)


@pytest.fixture(autouse=True)
def _own_compat_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat_app, "_default", None)


def make_project(broker: str, backend: str, tmp_path: Path, processes: Processes, patch: pytest.MonkeyPatch) -> Project:
    project = Project(broker, backend, tmp_path, processes)
    original = kombu.Producer._publish

    def publish(producer: Any, body: Any, *args: Any, **kwargs: Any) -> Any:
        priority, _type, _encoding, headers, properties, routing_key = args[:6]
        data = body.encode() if isinstance(body, str) else bytes(body)
        project.sent.append(Sent(data, dict(headers), {**properties, "priority": priority}, routing_key))
        return original(producer, body, *args, **kwargs)

    patch.setattr(kombu.Producer, "_publish", publish)
    return project


@pytest.fixture
def project(
    broker_url: str, redis_url: str, tmp_path: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """On each broker; results are in Redis."""
    return make_project(broker_url, redis_url, tmp_path, processes, monkeypatch)


@pytest.fixture
def on_redis(redis_url: str, tmp_path: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch) -> Project:
    return make_project(redis_url, redis_url, tmp_path, processes, monkeypatch)


@pytest.fixture
def on_rabbitmq(
    amqp_vhost_url: str, redis_url: str, tmp_path: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> Project:
    return make_project(amqp_vhost_url, redis_url, tmp_path, processes, monkeypatch)


def assert_unharmed(sent: list[Sent], got: list[Any], *, repeated: bool = False) -> None:
    """Each message arrived exactly once, and is the one that was sent but for the mark."""
    ids = Counter(one.properties["correlation_id"] for one in sent)
    assert Counter(message.properties["correlation_id"] for message in got) == ids
    by_id = {one.properties["correlation_id"]: one for one in sent}
    for message in got:
        one = by_id[message.properties["correlation_id"]]
        plain = decompress(one.body, one.headers["compression"]) if one.headers.get("compression") else one.body
        body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
        assert (body, message.errors) == (plain, [])
        allowed = MARK | REPEAT if repeated else MARK
        assert {k: v for k, v in message.headers.items() if k not in allowed} == one.headers
        assert message.headers["x-lightbus-hops"] == 1
        assert {p: message.properties.get(p) for p in PROPERTIES} == {p: one.properties.get(p) for p in PROPERTIES}
        # The worker judges by the header, and stores REVOKED; the broker would drop it.
        judged = one.headers.get("expires") is not None
        assert message.properties.get("expiration") == (None if judged else one.properties.get("expiration"))


def send_one_of_each(before: Celery) -> list[Any]:
    """Messages of the task in every form in which they may wait in a queue."""
    send = before.send_task
    chord = before.signature("project.body", args=(1,))
    return [
        *(send(NAME, (n, "plain", "ß")) for n in range(5)),
        *(send(NAME, (n,), countdown=3600, expires=7200, priority=3) for n in range(5)),
        send(NAME, (1,), compression="gzip", shadow="other", headers={"mine": "x"}),
        send(NAME, (1,), link=signature("project.a"), link_error=signature("project.b"), reply_to="somewhere"),
        send(NAME, (1,), chord=chord, group_id="group", group_index=0, root_id="root", parent_id="parent"),
        send(NAME, (1,), chain=[signature("project.next")]),
    ]


# Celery's workers


@pytest.mark.timeout(120)
def test_all_that_was_sent_before_the_move_reaches_lightbus_once_and_unharmed(project: Project) -> None:
    before = project.app(celery_tasks=[NAME])
    version1 = project.app(celery_tasks=[NAME], conf={"task_protocol": 1})
    old_worker = project.worker(celery_tasks=[NAME])
    results = [before.send_task(NAME, (n,), countdown=3600) for n in range(5)]
    for result in results:
        old_worker.wait_for_log(result.id)  # it holds the message now
    assert old_worker.stop() == 0
    results += send_one_of_each(before)
    if project.broker.startswith("redis"):  # the others drop by themselves what has expired
        results.append(before.send_task(NAME, expires=0.001))
    results += [version1.send_task(NAME, (n,), countdown=3600) for n in range(2)]

    new_worker = project.worker(bridge=True, moved=[NAME])
    got = project.take("lightbus.celery", len(project.sent), 30, new_worker)

    assert_unharmed(project.sent, got, repeated=True)
    assert project.waiting("celery") == 0
    assert {result.state for result in results} == {"PENDING"}
    assert not project.ran.exists()
    assert new_worker.read_log().count(f"forwarded name={NAME}") == len(results)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_that_imports_the_moved_task_forwards_it_from_every_pool(on_redis: Project, pool: str) -> None:
    before = on_redis.app(celery_tasks=[NAME])
    results = send_one_of_each(before)

    worker = on_redis.worker(pool=pool, bridge=True, compat_tasks=[NAME], celery_tasks=["project.stays"])
    got = on_redis.take("lightbus.celery", len(results), 30, worker)

    assert_unharmed(on_redis.sent, got)
    assert before.send_task("project.stays").get(timeout=20) == "project.stays ran in Celery"
    (registered,) = before.control.inspect(timeout=5).registered().values()
    assert {NAME, "project.stays"} <= set(registered)
    assert {result.state for result in results} == {"PENDING"}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("broker", ["on_redis", "on_rabbitmq"])
def test_what_a_killed_worker_held_is_forwarded_and_marked_as_a_repeat(
    broker: str, request: pytest.FixtureRequest
) -> None:
    project: Project = request.getfixturevalue(broker)
    if broker == "on_redis":  # as soon as kombu gives the messages of a dead consumer out again
        quick = {"visibility_timeout": 1, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
        project.conf["broker_transport_options"] = quick
    before = project.app(celery_tasks=[NAME])
    old_worker = project.worker(celery_tasks=[NAME])
    result = before.send_task(NAME, (1,), countdown=3600)
    old_worker.wait_for_log(result.id)
    old_worker.kill_group()

    new_worker = project.worker(bridge=True, moved=[NAME])
    got = project.take("lightbus.celery", 1, 30, new_worker)

    assert_unharmed(project.sent, got, repeated=True)
    assert got[0].headers["lightbus_repeat"] == 1
    assert project.waiting("celery") == 0


@pytest.mark.timeout(120)
def test_a_name_that_nobody_here_knows_is_forwarded_and_parked_after_three_hops(project: Project) -> None:
    worker = project.worker(bridge=True)
    project.put("celery", "project.unknown")
    (forwarded,) = project.take("lightbus.celery", 1, 20, worker)
    project.put("celery", "project.nowhere", **{"x-lightbus-hops": 3})
    (parked,) = project.take("lightbus.dead", 1, 20, worker)

    assert forwarded.headers["task"] == "project.unknown"
    assert forwarded.headers["x-lightbus-hops"] == 1
    assert forwarded.headers["x-lightbus-from"].startswith("celery@")
    assert parked.headers["task"] == "project.nowhere"
    assert parked.headers["lightbus_dead_reason"] == "unknown-name"
    backend = project.app().backend
    assert {backend.get_state("id-project.unknown"), backend.get_state("id-project.nowhere")} == {"PENDING"}


@pytest.mark.timeout(120)
def test_a_moved_task_that_celery_still_has_runs_there_when_lightbus_returns_it(on_redis: Project) -> None:
    worker = on_redis.worker(bridge=True, moved=[NAME], celery_tasks=[NAME])
    on_redis.put("celery", NAME)
    (forwarded,) = on_redis.take("lightbus.celery", 1, 20, worker)
    assert not on_redis.ran.exists()

    on_redis.put("celery", NAME, **{key: forwarded.headers[key] for key in MARK})
    wait_for(on_redis.ran.exists, 20, "the task to run in Celery", [worker.log])


class OneByOne:
    """As much of Celery's consumer as the forwarder touches."""

    hostname = "celery@test"
    connection_errors = ()

    def __init__(self, project: Project, app: Celery) -> None:
        self.project, self.acked = project, 0
        self.strategy = bridge.forward_strategy(None, app, self)

    def forward_next(self) -> None:
        (message,) = self.project.take("celery", 1, 20)
        self.strategy(message, None, self.ack, None, ())

    def ack(self, _logger: object, _errors: object) -> None:
        self.acked += 1


def test_a_dead_connection_is_replaced_and_what_is_forwarded_is_counted_by_origin(on_rabbitmq: Project) -> None:
    app = on_rabbitmq.app(bridge=True, moved=[NAME])
    consumer = OneByOne(on_rabbitmq, app)
    on_rabbitmq.put("celery", NAME, origin="gen1@web")
    consumer.forward_next()
    bridge.bridge_of(app)._publisher._connection.connection.transport.sock.shutdown(socket.SHUT_RDWR)
    for origin in ("gen1@web", "gen2@cron"):
        on_rabbitmq.put("celery", NAME, origin=origin)
        consumer.forward_next()

    got = on_rabbitmq.take("lightbus.celery", 3, 10)
    assert ["lightbus_repeat" in message.headers for message in got] == [False, True, False]
    assert bridge.forwarded(app) == {(NAME, "gen1@web"): 2, (NAME, "gen2@cron"): 1}
    assert consumer.acked == 3


@pytest.mark.timeout(120)
def test_a_message_that_cannot_be_published_stays_with_the_broker_until_it_can(on_rabbitmq: Project) -> None:
    refusing = {"x-max-length": 0, "x-overflow": "reject-publish"}
    with kombu.Connection(on_rabbitmq.broker) as connection:
        connection.default_channel.queue_declare("lightbus.celery", durable=True, auto_delete=False, arguments=refusing)
    worker = on_rabbitmq.worker(bridge=True, moved=[NAME])
    on_rabbitmq.put("celery", NAME)
    worker.wait_for_log(f"could not forward name={NAME}")
    with kombu.Connection(on_rabbitmq.broker) as connection:
        connection.default_channel.queue_delete("lightbus.celery")

    (got,) = on_rabbitmq.take("lightbus.celery", 1, 30, worker)
    assert got.headers["task"] == NAME
    assert worker.read_log().count("could not forward") < 5, "it must pause between its tries"


@pytest.mark.timeout(120)
def test_a_queue_with_priorities_keeps_them_and_stands_as_lightbus_declares_it(on_rabbitmq: Project) -> None:
    on_rabbitmq.conf["task_queue_max_priority"] = 10
    before = on_rabbitmq.app(celery_tasks=[NAME])
    for priority in (1, 9, 5):
        before.send_task(NAME, (priority,), priority=priority)
    worker = on_rabbitmq.worker(bridge=True, moved=[NAME])
    wait_for(lambda: on_rabbitmq.waiting("lightbus.celery") == 3, 20, "3 forwarded messages", [worker.log])

    settings = bridge.settings_from(on_rabbitmq.app(bridge=True))
    with closing(open_transport(on_rabbitmq.broker)) as transport:
        transport.declare(settings.celery_queue("celery").lightbus_topology())  # a difference would be an error
    got = on_rabbitmq.take("lightbus.celery", 3, 10, worker)
    assert [message.properties["priority"] for message in got] == [9, 5, 1]


# Celery's producers


def route_by_code(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_rest: Any) -> Any:
    return {"queue": "images", "routing_key": "ignored", "priority": 4} if name == NAME else None


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "routes, queue",
    [
        (None, "lightbus.celery"),
        ({"project.*": "images"}, "lightbus.images"),
        ([[("project.resize", {"queue": "images"}), ("x.*", {"queue": "other"})]], "lightbus.images"),
        (route_by_code, "lightbus.images"),
        ({"project.*": {"exchange": "special", "routing_key": "key"}}, "lightbus.special"),
    ],
    ids=["no routes", "mapping", "list", "function", "exchange and key"],
)
def test_celery_sends_a_moved_task_to_lightbus_whatever_its_routes(project: Project, routes: Any, queue: str) -> None:
    app = project.app(bridge=True, moved=[NAME], celery_tasks=[NAME])
    app.conf.task_routes = routes
    app.conf.task_queues = [
        kombu.Queue("celery", kombu.Exchange("celery"), "celery"),
        kombu.Queue("images", kombu.Exchange("images", type="topic"), "images.#"),
        kombu.Queue("special", kombu.Exchange("special"), "key"),
    ]

    app.send_task(NAME, (1,))
    app.tasks[NAME].delay(1)
    app.signature(NAME, args=(1,)).apply_async(countdown=3600)
    chain(app.signature(NAME, args=(1,)), app.signature("project.next"), app=app).apply_async()

    assert [one.routing_key for one in project.sent] == [queue] * 4
    wait_for(lambda: project.waiting(queue) == 4, 20, "the messages, which Celery sent without a confirm")
    assert project.waiting("celery") + project.waiting("images") == 0


def test_what_the_caller_asks_for_wins_over_the_move_and_the_tasks_own_queue_does_not(on_redis: Project) -> None:
    app = on_redis.app(bridge=True, moved=[NAME, "project.own"])

    @app.task(name="project.own", queue="images", shared=False)
    def own() -> None: ...

    app.send_task(NAME, queue="elsewhere")
    app.send_task("project.stays")
    app.tasks["project.own"].delay()
    app.send_task("anything", queue="lightbus.celery")

    assert [one.routing_key for one in on_redis.sent] == ["elsewhere", "celery", "lightbus.images", "lightbus.celery"]


def test_an_app_finds_tasks_of_lightbus_whenever_they_were_imported(on_redis: Project) -> None:
    app = on_redis.app(bridge=True)

    @task(name="project.early", queue="images", priority=3)
    def early(number: int, *, flag: bool = False) -> tuple[int, bool]:
        return number, flag

    app.finalize()

    @task(name="project.late", bind=True)
    def late(self: Any, number: int) -> tuple[str, int]:
        return self.name, number

    assert app.tasks["project.early"](1, flag=True) == (1, True)
    assert app.tasks["project.late"](2) == ("project.late", 2)
    with pytest.raises(TypeError):
        app.tasks["project.late"].delay("too", "many")
    app.tasks["project.early"].delay(1)
    app.send_task("project.late", (1,))
    assert [(one.routing_key, one.properties["priority"]) for one in on_redis.sent] == [
        ("lightbus.images", 3),
        ("lightbus.celery", 0),
    ]


@pytest.mark.timeout(120)
def test_the_task_object_itself_sends_to_the_broker_and_queues_of_the_celery_app(project: Project) -> None:
    project.conf.update(task_queue_max_priority=10, task_routes={"project.*": "images"})
    app = project.app(bridge=True)

    @task(name="project.mine")
    def mine(number: int) -> int:
        return number

    with closing(default_app()):
        mine.delay(1)  # Lightbus declares the queue, and Celery declares it again
        app.send_task("project.mine", (2,))
        mine.delay(3)
        got = project.take("lightbus.images", 3, 20)

    # sorted: two connections wrote them, and Celery's waits for no confirmation
    assert sorted(json.loads(message.body)[0] for message in got) == [[1], [2], [3]]
    assert len({tuple(sorted(message.headers)) for message in got}) == 1


# Settings


def test_install_reads_no_configuration_twice_is_once_and_names_add_up(redis_url: str) -> None:
    app = Celery("project", set_as_current=False)
    bridge.install(app, moved=["a"])
    bridge.install(app, moved=["b"])
    assert not app.configured

    app.config_from_object({"broker_url": redis_url, "lightbus_moved": ["c"], "task_default_queue": "work"})
    settings = default_app().settings
    assert (settings.broker_url, settings.moved, settings.default_queue) == (redis_url, {"a", "b", "c"}, "work")
    assert len(app.steps["consumer"]) == 1
    assert [type(app.amqp).__mro__[1].__name__, type(app.amqp).__mro__[2].__name__] == ["_Routed", "AMQP"]


def test_an_app_that_was_used_before_install_is_bridged_all_the_same(on_redis: Project) -> None:
    app = on_redis.app(celery_tasks=[NAME])
    app.send_task(NAME)
    bridge.install(app, moved=[NAME])
    app.send_task(NAME)
    assert [one.routing_key for one in on_redis.sent] == ["celery", "lightbus.celery"]


def test_settings_carry_queues_and_routes_as_celery_has_them() -> None:
    app = Celery("project", broker="amqp://me:secret@host//", backend="redis://host/1", set_as_current=False)
    app.conf.update(
        task_queue_max_priority=10,
        task_routes=(route_by_code,),
        timezone="Europe/Berlin",
        result_expires=60,
        broker_transport_options={"max_retries": 3},
        task_acks_late=True,
        task_queues=[
            kombu.Queue("celery", kombu.Exchange("celery"), "celery"),
            kombu.Queue("images", kombu.Exchange("pictures", type="topic"), "images.#", max_length=5),
            kombu.Queue("safe", kombu.Exchange("safe"), "safe", queue_arguments={"x-queue-type": "quorum"}),
        ],
    )
    settings = bridge.settings_from(app)
    assert (settings.broker_url, settings.result_backend) == ("amqp://me:secret@host//", "redis://host/1")
    assert (settings.timezone, settings.result_expires_seconds, settings.acks_late) == ("Europe/Berlin", 60.0, True)
    assert settings.celery_serves_others
    assert settings.broker_transport_options == {"max_retries": 3}
    assert settings.route(NAME, {}) == "images"
    assert settings.route("other", {}) == "celery"
    assert settings.route("other", {"queue": "safe"}) == "safe"
    images, safe = settings.celery_queue("images"), settings.celery_queue("safe")
    assert (images.exchange, images.exchange_type, images.routing_key) == ("pictures", "topic", "images.#")
    assert images.arguments == {"x-max-priority": 10, "x-max-length": 5}
    assert safe.arguments == {"x-max-priority": 10, "x-queue-type": "quorum"}


def test_settings_that_lightbus_cannot_honour_are_refused_when_they_are_needed() -> None:
    app = Celery("project", broker="redis://", set_as_current=False)
    bridge.install(app)
    app.conf.task_serializer = ["pickle"]
    with pytest.raises(ConfigError, match="task_serializer"):
        default_app().settings  # noqa: B018 - reading it is what fails
    with pytest.raises(ConfigError, match="task_serializer"):
        default_app().settings  # noqa: B018 - and again: there are no others to go on with
