"""The embedded broker through kombu: what a user of kombu sees, within one process and across several."""

from __future__ import annotations

import gc
import os
import signal
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import amqp
import pytest
from kombu import Connection, Consumer, Exchange, Message, Producer, Queue

import lightbus.drivers.sqlite
from lightbus.drivers.sqlite.database import NotABusFile
from lightbus.drivers.sqlite.sessions import _sweep as sweep
from lightbus.drivers.sqlite.transport import path_from_url
from tests.processes import Process, Processes, cpu_seconds, wait_for

PROGRAM = Path(__file__).with_name("sqlite_program.py")


@pytest.fixture
def connect(sqlite_url: str) -> Iterator[Callable[..., Connection]]:
    """Makes connections to this test's broker, closed at its end."""
    connections: list[Connection] = []

    def connect(**options: object) -> Connection:
        connections.append(Connection(sqlite_url, transport_options=options))
        return connections[-1]

    yield connect
    for connection in connections:
        connection.release()


class Inbox:
    """A consumer that keeps what it gets."""

    def __init__(self, connection: Connection, *queues: Queue, prefetch: int = 0, no_ack: bool = False) -> None:
        self.connection = connection
        self.channel = connection.channel()
        self.channel.basic_qos(prefetch_count=prefetch)
        self.messages: list[Message] = []
        self.consumer = Consumer(self.channel, list(queues), on_message=self.messages.append, no_ack=no_ack)
        self.consumer.consume()

    def receive(self, count: int, seconds: float = 5) -> list[Message]:
        """The next `count` messages."""
        deadline = time.monotonic() + seconds
        while len(self.messages) < count:
            self.connection.drain_events(timeout=max(0.0, deadline - time.monotonic()))
        taken = self.messages[:count]
        del self.messages[:count]
        return taken

    def bodies(self, count: int) -> list[Any]:
        return [message.decode() for message in self.receive(count)]

    def nothing_comes(self, seconds: float = 0) -> bool:
        with pytest.raises(socket.timeout):
            self.connection.drain_events(timeout=seconds)
        return not self.messages


def send(connection: Connection, queue: str, *bodies: object, **options: object) -> None:
    channel = connection.default_channel
    for body in bodies:
        Producer(channel).publish(body, routing_key=queue, **options)


def declare(connection: Connection, name: str, **options: object) -> Queue:
    queue = Queue(name, **options)
    queue(connection.default_channel).declare()
    return queue


# URLs and connections


def test_a_url_names_an_absolute_or_a_relative_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url, path in {
        f"sqlite:///{tmp_path}/a/bus.db": tmp_path / "a" / "bus.db",
        "sqlite:///b/bus.db": tmp_path / "b" / "bus.db",
        "sqlite:///with%20space%3F.db": tmp_path / "with space?.db",
    }.items():
        with Connection(url) as connection:
            connection.connect()
            assert path.exists()
            assert connection.as_uri() == url


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite://bus.db", "sqlite:///bus.db?lease=3"])
def test_a_url_that_names_no_file_is_refused_with_the_right_spelling(url: str) -> None:
    with pytest.raises(ValueError, match="sqlite:////absolute/path"):
        path_from_url(url)


def test_a_settings_only_user_names_the_transport_class_and_fails_over_to_the_path(sqlite_url: str) -> None:
    with Connection(sqlite_url, transport=lightbus.drivers.sqlite.TRANSPORT) as connection:
        declare(connection, "q")
        assert connection.clone().transport.path == path_from_url(sqlite_url)
    with Connection("amqp://127.0.0.1:1//", alternates=[sqlite_url]) as connection:
        connection.switch(sqlite_url)
        assert connection.default_channel.queue_declare("q", passive=True).message_count == 0


def test_a_foreign_file_is_an_error_at_once_and_not_retried(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no database " * 100)

    with Connection(f"sqlite:///{tmp_path / 'x'}") as connection, pytest.raises(NotABusFile):
        connection.ensure_connection(max_retries=3)


# Contents


@pytest.mark.parametrize(
    "body",
    ["nul \x00 in text", b"\x00\xff\xfe not utf-8", {"a": [1, None, "ü"]}, b"x" * 10_000_000],
    ids=["nul", "bytes", "json", "10 MB"],
)
def test_a_body_arrives_as_it_was_sent(connect: Callable[..., Connection], body: object) -> None:
    connection = connect()
    queue = declare(connection, "q")
    inbox = Inbox(connect(), queue)
    inbox.consumer.accept = {"application/json", "text/plain", "application/data"}

    send(connection, "q", body)

    (message,) = inbox.receive(1)
    assert message.decode() == body


def test_headers_and_properties_arrive_as_they_were_sent(connect: Callable[..., Connection]) -> None:
    connection = connect()
    queue = declare(connection, "q")
    headers = {"n": 1, "nested": {"list": [1]}, "lone": "\ud800", "trap": {"__type__": "evil", "__value__": 1}, "": ""}

    send(connection, "q", "x", headers=headers, correlation_id="c", reply_to="r", priority=3, expiration=60)

    (message,) = Inbox(connect(), queue).receive(1)
    assert message.headers == headers
    assert message.properties["correlation_id"] == "c"
    assert message.properties["reply_to"] == "r"
    assert message.properties["expiration"] == "60000"
    assert {name: message.delivery_info[name] for name in ("exchange", "routing_key", "redelivered")} == {
        "exchange": "",
        "routing_key": "q",
        "redelivered": False,
    }


@pytest.mark.parametrize("kind, expected", [("topic", [1, 2]), ("direct", [1]), ("fanout", [1, 2, 3])])
def test_exchanges_reach_queues_that_another_connection_bound(
    connect: Callable[..., Connection], kind: str, expected: list[int]
) -> None:
    exchange = Exchange("events", type=kind)
    queues = [Queue("events.q", exchange, routing_key="a.1"), Queue("events.q", exchange, routing_key="a.*")]
    inbox = Inbox(connect(), *queues[: 1 if kind == "direct" else 2])
    producer = Producer(connect().default_channel, exchange)

    for number, key in ((1, "a.1"), (2, "a.2"), (3, "b")):
        producer.publish(number, routing_key=key)

    assert inbox.bodies(len(expected)) == expected
    assert inbox.nothing_comes()


def test_publishing_says_how_many_queues_took_it_and_returns_what_none_took(connect: Callable[..., Connection]) -> None:
    connection = connect()
    declare(connection, "q")
    returned: list[tuple[object, ...]] = []
    producer = Producer(connection.channel(), on_return=lambda *arguments: returned.append(arguments))

    assert producer.publish("x", routing_key="q", mandatory=True) == 1
    assert producer.publish("x", routing_key="nobody", mandatory=True) == 0

    assert [arguments[1:3] for arguments in returned] == [("", "nobody")]


def test_a_delayed_message_is_delivered_when_due_and_not_by_polling(connect: Callable[..., Connection]) -> None:
    connection = connect()
    inbox = Inbox(connect(), declare(connection, "q"))
    channel = connection.default_channel
    message = channel.prepare_message("later", content_type="text/plain", content_encoding="utf-8")
    started = time.monotonic()

    channel.basic_publish(message, routing_key="q", delay_seconds=0.4)

    inbox.receive(1)
    assert 0.4 <= time.monotonic() - started < 0.9


# Consuming


def test_priority_goes_first(connect: Callable[..., Connection]) -> None:
    connection = connect()
    queue = declare(connection, "q")
    send(connection, "q", 1, 2)
    send(connection, "q", 3, priority=9)

    assert Inbox(connect(), queue).bodies(3) == [3, 1, 2]


def test_prefetch_limits_what_a_channel_holds_and_leaves_the_rest_to_others(connect: Callable[..., Connection]) -> None:
    connection = connect()
    queue = declare(connection, "q")
    send(connection, "q", *range(5))
    first, second = Inbox(connect(), queue, prefetch=2), Inbox(connect(), queue, prefetch=2)

    held = first.receive(2)
    assert first.nothing_comes()
    assert second.bodies(2) == [2, 3]

    held[0].ack()
    assert first.bodies(1) == [4]


def test_settling_acks_requeues_or_drops(connect: Callable[..., Connection]) -> None:
    connection = connect()
    queue = declare(connection, "q")
    send(connection, "q", "ack", "requeue", "drop")
    inbox = Inbox(connect(), queue)
    ack, requeue, drop = inbox.receive(3)

    ack.ack()
    drop.reject()
    requeue.requeue()

    (again,) = inbox.receive(1)
    assert (again.decode(), again.delivery_info["redelivered"]) == ("requeue", True)
    again.ack()
    assert inbox.nothing_comes()
    assert queue(connection.default_channel).delete() == 0


def test_many_are_acknowledged_in_one_go_and_from_any_thread(connect: Callable[..., Connection]) -> None:
    connection = connect()
    queue = declare(connection, "q")
    send(connection, "q", *range(9))
    inbox = Inbox(connect(), queue)
    messages = inbox.receive(9)

    assert inbox.channel.ack_many([message.delivery_tag for message in messages[:3]]) == 3
    assert inbox.channel.ack_many([message.delivery_tag for message in messages[:3]]) == 0
    messages[5].ack(multiple=True)
    threads = [threading.Thread(target=message.ack) for message in messages[6:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert queue(connection.default_channel).delete() == 0


def test_settling_in_another_thread_lets_a_waiting_consumer_take_more(connect: Callable[..., Connection]) -> None:
    connection = connect()
    queue = declare(connection, "q")
    send(connection, "q", *range(20))
    inbox = Inbox(connect(), queue, prefetch=1)
    started = time.monotonic()

    for number in range(20):
        (message,) = inbox.receive(1)
        assert message.decode() == number
        threading.Timer(0.02, message.ack).start()

    assert time.monotonic() - started < 5  # looking once per second would take 20


def test_cancelling_gives_back_what_was_not_handed_out_as_untouched(connect: Callable[..., Connection]) -> None:
    connection = connect()
    queue = declare(connection, "q")
    send(connection, "q", 1, 2, 3)
    first = Inbox(connect(), queue)
    (held,) = first.receive(1)

    first.consumer.cancel()

    rest = Inbox(connect(), queue).receive(2)
    assert [(m.decode(), m.delivery_info["redelivered"]) for m in rest] == [(2, False), (3, False)]
    held.ack()


@pytest.mark.parametrize("close", ["channel", "connection"])
def test_closing_gives_back_what_is_not_settled_at_once(connect: Callable[..., Connection], close: str) -> None:
    connection = connect()
    queue = declare(connection, "q")
    send(connection, "q", 1, 2)
    first = Inbox(connect(), queue)
    first.receive(1)

    (first.channel if close == "channel" else first.connection).close()

    back = Inbox(connect(), queue).receive(2, seconds=0)
    assert [(m.decode(), m.delivery_info["redelivered"]) for m in back] == [(1, True), (2, False)]


def test_an_unacknowledged_consumer_loses_only_what_it_was_handed(connect: Callable[..., Connection]) -> None:
    connection = connect()
    queue = declare(connection, "q")
    send(connection, "q", 1, 2, 3)
    first = Inbox(connect(), queue, no_ack=True)
    (message,) = first.receive(1)
    message.ack()  # as on AMQP, harmless
    first.connection.close()

    assert Inbox(connect(), queue).bodies(2) == [2, 3]


def test_getting_takes_one_or_none_and_an_unknown_queue_is_an_error(connect: Callable[..., Connection]) -> None:
    channel = connect().channel()
    channel.queue_declare("q")
    send(connect(), "q", "x")

    message = channel.basic_get("q")
    assert message.decode() == "x"
    assert channel.basic_get("q") is None
    channel.basic_recover(requeue=True)
    assert channel.basic_get("q", no_ack=True).delivery_info["redelivered"]
    assert channel.queue_delete("q") == 0
    with pytest.raises(amqp.NotFound):
        channel.basic_get("q")


def test_queues_of_one_channel_take_turns(connect: Callable[..., Connection]) -> None:
    connection = connect()
    queues = [declare(connection, name) for name in ("a", "b")]
    send(connection, "a", *["a"] * 200)
    send(connection, "b", *["b"] * 200)
    inbox = Inbox(connect(), *queues, prefetch=10)
    seen = []
    for _ in range(60):
        (message,) = inbox.receive(1)
        seen.append(message.decode())
        message.ack()

    assert {"a", "b"} <= set(seen[:30])


# Declaring


def test_declaring_tells_the_truth_across_connections(connect: Callable[..., Connection]) -> None:
    connection = connect()
    queue = declare(connection, "q")
    send(connection, "q", 1, 2, 3)
    channel = connection.default_channel
    assert tuple(channel.queue_declare("q", passive=True)) == ("q", 3, 0)
    assert not channel.has_consumers("q")

    inbox = Inbox(connect(), queue, prefetch=1)
    inbox.receive(1)

    assert tuple(channel.queue_declare("q", passive=True)) == ("q", 2, 1)
    assert channel.has_consumers("q")
    assert channel.queue_purge("q") == 2
    inbox.connection.close()
    assert tuple(channel.queue_declare("q", passive=True)) == ("q", 1, 0)


def test_amqp_errors_are_raised_as_on_amqp(connect: Callable[..., Connection]) -> None:
    channel, other = connect().channel(), connect().channel()
    name = channel.queue_declare(exclusive=True).queue
    assert name.startswith("amq.gen-")

    for error, action in (
        (amqp.NotFound, lambda: channel.queue_declare("q", passive=True)),
        (amqp.NotFound, lambda: channel.exchange_declare("x", passive=True)),
        (amqp.NotFound, lambda: channel.basic_publish(channel.prepare_message("x"), "x", "y")),
        (amqp.NotFound, lambda: channel.basic_consume("q", callback=print)),
        (amqp.NotFound, lambda: channel.queue_bind(name, "x")),
        (amqp.PreconditionFailed, lambda: channel.queue_declare(name, durable=True)),
        (amqp.PreconditionFailed, lambda: channel.exchange_declare("h", "headers")),
        (amqp.ResourceLocked, lambda: other.queue_declare(name, passive=True)),
        (amqp.ResourceLocked, lambda: other.basic_consume(name, callback=print)),
    ):
        with pytest.raises(error) as caught:
            action()
        assert isinstance(caught.value, channel.connection.channel_errors)


def test_exclusive_and_auto_delete_queues_go_with_their_user(connect: Callable[..., Connection]) -> None:
    watcher = connect().channel()
    inbox = Inbox(connect(), Queue("exclusive", exclusive=True), Queue("auto", auto_delete=True))
    for name in ("exclusive", "auto"):
        inbox.channel.queue_declare(name, passive=True)

    inbox.connection.close()

    for name in ("exclusive", "auto"):
        with pytest.raises(amqp.NotFound):
            watcher.queue_declare(name, passive=True)


# Waiting


def test_draining_without_a_message_times_out(connect: Callable[..., Connection]) -> None:
    connection = connect()
    for timeout in (0, 0.1):
        started = time.monotonic()
        with pytest.raises(socket.timeout):
            connection.drain_events(timeout=timeout)
        assert timeout <= time.monotonic() - started < timeout + 1


@pytest.mark.parametrize("consuming", [False, True])
def test_another_thread_ends_a_drain_at_once_or_the_next_one(
    connect: Callable[..., Connection], consuming: bool
) -> None:
    connection = connect()
    if consuming:
        Inbox(connection, declare(connection, "q"))
    connection.connect()
    timer = threading.Timer(0.1, connection.transport.wake)

    for start in (timer.start, connection.transport.wake):
        started = time.monotonic()
        start()
        with pytest.raises(socket.timeout):
            connection.drain_events(timeout=30)
        assert time.monotonic() - started < 5
    timer.join()


def test_a_waiting_consumer_is_woken_and_does_not_look_again_and_again(
    processes: Processes, sqlite_url: str, connect: Callable[..., Connection]
) -> None:
    process = processes.start("python", PROGRAM, "consume", sqlite_url, "q", name="consumer")
    process.wait_for_log("ready")
    connection = connect()
    before = cpu_seconds(process.pid)
    started = time.monotonic()
    with pytest.raises(socket.timeout):
        connection.drain_events(timeout=4)
    share = (cpu_seconds(process.pid) - before) / (time.monotonic() - started)
    assert share < 0.01  # a tick of the measure is 0.25 %

    for number in range(30):
        send(connection, "q", f"{number} at {time.time()}")
        process.wait_for_log(f"got {number} ")
    late = [float(line.split()[3]) for line in process.read_log().splitlines() if line.startswith("got")]
    assert statistics.median(late) < 0.05  # 1 ms on an idle machine; looking once per second would be 500


# Death, freezing, forks


def got(process: Process) -> list[tuple[str, bool]]:
    """(body, redelivered) of what a program was handed."""
    lines = [line.split() for line in process.read_log().splitlines() if line.startswith("got ")]
    return [(line[1], line[2] == "True") for line in lines]


def test_a_killed_consumer_gives_its_messages_back_within_five_seconds_flagged(
    processes: Processes, sqlite_url: str, connect: Callable[..., Connection]
) -> None:
    connection = connect()
    declare(connection, "q")
    send(connection, "q", *[f"{n}" for n in range(5)])
    victim = processes.start("python", PROGRAM, "hold", sqlite_url, "q", name="victim")
    victim.wait_for_log("got 4 ")
    heir = Inbox(connect(), Queue("q"))
    assert heir.nothing_comes()

    victim.kill()

    messages = heir.receive(5, seconds=5)
    assert sorted(m.decode() for m in messages) == list("01234")
    assert all(m.delivery_info["redelivered"] for m in messages)


def test_a_process_that_ends_without_closing_gives_back_at_once(
    processes: Processes, sqlite_url: str, connect: Callable[..., Connection]
) -> None:
    connection = connect()
    queue = declare(connection, "q")
    send(connection, "q", "x")

    process = processes.start("python", PROGRAM, "leave", sqlite_url, "q", name="leaver")

    assert process.wait() == 0, process.read_log()
    assert "holds x" in process.read_log()
    assert Inbox(connect(), queue).receive(1, seconds=0.5)[0].delivery_info["redelivered"]


def test_a_frozen_consumer_loses_its_messages_and_cannot_settle_them(
    processes: Processes, sqlite_url: str, connect: Callable[..., Connection]
) -> None:
    connection = connect()
    queue = declare(connection, "q")
    send(connection, "q", *range(10))
    frozen = processes.start("python", PROGRAM, "hold", sqlite_url, "q", "--prefetch", "3", name="frozen")
    frozen.wait_for_log("got 2 ")
    frozen.signal(signal.SIGSTOP)
    heir = Inbox(connect(), queue)
    messages = heir.receive(10, seconds=8)
    assert sorted(m.decode() for m in messages) == list(range(10))

    frozen.signal(signal.SIGCONT)
    frozen.wait_for_log("lost: ")

    wait_for(lambda: frozen.read_log().count("ready") == 2, 5, "the frozen consumer to connect again")
    assert heir.channel.ack_many([m.delivery_tag for m in messages]) == 10
    assert queue(connection.default_channel).delete() == 0
    assert len(got(frozen)) == 3


def test_an_acknowledgement_after_the_lease_was_lost_does_nothing(
    connect: Callable[..., Connection], caplog: pytest.LogCaptureFixture
) -> None:
    connection = connect()
    queue = declare(connection, "q")
    send(connection, "q", "x")
    inbox = Inbox(connect(), queue)
    (message,) = inbox.receive(1)
    with inbox.connection.transport._store.database.transaction() as c:
        c.execute("UPDATE sessions SET lease_until=0")
        sweep(c, time.monotonic())  # at once: the keeper would renew the lease before the next one
    other = Inbox(connect(), queue)

    message.ack()

    # Said by the acknowledgement, unless the keeper noticed first: the connection then knows that it has no session.
    assert "lease was lost" in caplog.text or inbox.connection.transport.session_or_none() is None
    (again,) = other.receive(1)
    assert again.delivery_info["redelivered"]
    with pytest.raises(amqp.RecoverableConnectionError, match="connect again"):
        inbox.connection.drain_events(timeout=10)
    with pytest.raises(amqp.RecoverableConnectionError):
        inbox.channel.basic_get("q")


def test_a_message_may_be_held_for_many_leases(connect: Callable[..., Connection]) -> None:
    connection = connect()
    queue = declare(connection, "q")
    send(connection, "q", "x")
    holder = Inbox(connect(lease_seconds=0.5), queue)
    (message,) = holder.receive(1)
    other = Inbox(connect(lease_seconds=0.5), queue)

    assert other.nothing_comes(seconds=2.5)

    message.ack()
    assert queue(connection.default_channel).delete() == 0


def test_a_forgotten_connection_gives_back_what_it_held(sqlite_url: str, connect: Callable[..., Connection]) -> None:
    queue = declare(connect(), "q")
    send(connect(), "q", "x")

    def forget() -> None:
        Connection(sqlite_url).channel().basic_get("q")

    forget()

    gc.collect()
    Inbox(connect(), queue).receive(1, seconds=3)


def test_a_forked_child_publishes_but_neither_consumes_nor_settles_nor_closes_for_its_parent(
    connect: Callable[..., Connection],
) -> None:
    connection = connect()
    queue = declare(connection, "q")
    send(connection, "q", "held")
    inbox = Inbox(connection, queue)
    (held,) = inbox.receive(1)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            send(connection, "q", "from the child")
            held.ack()
            with pytest.raises(amqp.RecoverableConnectionError, match="before the fork"):
                connection.drain_events(timeout=1)
            connection.release()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0

    assert inbox.bodies(1) == ["from the child"]
    assert inbox.channel.ack_many([held.delivery_tag]) == 1


def test_two_consumers_and_two_publishers_lose_nothing_and_double_nothing(
    processes: Processes, sqlite_url: str, connect: Callable[..., Connection]
) -> None:
    declare(connect(), "q")
    consumers = [processes.start("python", PROGRAM, "consume", sqlite_url, "q", name="consumer") for _ in range(2)]
    for process in consumers:
        process.wait_for_log("ready")
    publishers = [
        processes.start(
            "python", PROGRAM, "publish", sqlite_url, "q", "--count", "2500", "--first", str(first), name="p"
        )
        for first in (0, 2500)
    ]
    for process in publishers:
        assert process.wait(40) == 0, process.read_log()

    wait_for(lambda: sum(len(got(process)) for process in consumers) >= 5000, 40, "all messages to be consumed")

    handed = [int(body) for process in consumers for body, _ in got(process)]
    assert sorted(handed) == list(range(5000))
    assert all(len(got(process)) > 250 for process in consumers)
    channel = connect().channel()
    assert tuple(channel.queue_declare("q", passive=True)) == ("q", 0, 2)
    wait_for(lambda: queue_is_empty(channel, "q"), 5, "the last acknowledgements")


def queue_is_empty(channel: Any, name: str) -> bool:
    """Nothing waits, and nobody holds anything."""
    try:
        channel.queue_delete(name, if_empty=True)
    except amqp.PreconditionFailed:
        return False
    return True
