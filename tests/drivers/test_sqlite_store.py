"""The broker file: its rows, its leases, and what it does when processes die, freeze, fork or come from the future."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightbus.drivers.sqlite.database import NotABusFile
from lightbus.drivers.sqlite.routing import topic_matches
from lightbus.drivers.sqlite.sessions import SessionLost, count_consumers
from lightbus.drivers.sqlite.store import Envelope, Store
from lightbus.drivers.sqlite.topology import Locked, Mismatch, NotFound, QueueSpec
from lightbus.drivers.sqlite.wake import MAX_SOCKET_PATH_BYTES, Waiter, Waker, remove_stale_sockets
from tests.processes import Processes, wait_for

PROGRAM = Path(__file__).with_name("sqlite_program.py")
SHORT_SECONDS = 0.05


@pytest.fixture
def woken() -> list[str]:
    """The sockets that the store had woken."""
    return []


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "bus" / "bus.db")


@pytest.fixture
def store(path: str, woken: list[str]) -> Iterator[Store]:
    store = Store(path, woken.extend)
    store.topology.declare_queue(QueueSpec("q"))
    yield store
    store.close()


def quiet(_: Iterable[str]) -> None:
    """Wakes nobody."""


def put(store: Store, *bodies: bytes, queue: str = "q", priority: int = 0) -> None:
    for body in bodies:
        assert store.publish("", queue, Envelope("{}", body, priority=priority)) == 1


def take(store: Store, session: str, limit: int = 100, queue: str = "q") -> list[bytes]:
    return [leased.body for leased in store.lease(session, [queue], limit)]


def in_child(action: Callable[[], bool]) -> bool:
    """Fork, and tell whether `action` was true in the child."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if action() else 2
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


# Many queues


def many_queues(store: Store, count: int) -> list[str]:
    names = [f"many{number:03}" for number in range(count)]
    for name in names:
        store.topology.declare_queue(QueueSpec(name))
    return names


@pytest.mark.parametrize("count", [3, 50])
def test_each_queue_has_its_turn_and_a_short_one_leaves_its_share_to_the_others(store: Store, count: int) -> None:
    names = many_queues(store, count)
    put(store, *[b"long"] * 20, queue=names[0])
    put(store, b"short", queue=names[1])
    put(store, *[b"last"] * 20, queue=names[-1])
    session = store.sessions.start(30, None)

    come = [leased.queue for leased in store.lease(session, names, 21)]

    assert come.count(names[1]) == 1
    assert come.count(names[0]) + come.count(names[-1]) == 20
    assert min(come.count(names[0]), come.count(names[-1])) >= 7
    assert store.lease(session, names, 1, after=names[0])[0].queue == names[-1]
    assert store.lease(session, names, 1, after=names[-1])[0].queue == names[0]


@pytest.mark.parametrize("foreign", [0, 40, 400])
def test_what_waits_in_the_queues_of_others_hides_nothing(store: Store, foreign: int) -> None:
    names = many_queues(store, foreign + 10)
    for name in names[:foreign]:
        put(store, b"foreign", queue=name)
    put(store, b"own", queue=names[-1])
    put(store, b"own", queue=names[-4])
    session = store.sessions.start(30, None)

    for after in ("", names[0], names[-4], names[-1]):
        leased = store.lease(session, set(names[foreign:]), 10, after)
        assert [one.body for one in leased] == [b"own", b"own"]
        store.release(session, [one.id for one in leased])


def test_looking_for_a_message_among_many_queues_is_one_look(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    names = many_queues(store, 200)
    put(store, b"x", queue=names[150])
    reads: list[str] = []
    read = store.database.read
    monkeypatch.setattr(store.database, "read", lambda *given: reads.append(given[0]) or read(*given))

    assert len(store.lease(store.sessions.start(30, None), names, 100)) == 1
    assert len(reads) == 1


# The file


def test_the_file_and_its_folder_are_for_this_user_alone(store: Store, path: str) -> None:
    put(store, b"x")

    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700
    assert {name: os.stat(name).st_mode & 0o777 for name in (path, path + "-wal", path + "-shm")} == {
        path: 0o600,
        path + "-wal": 0o600,
        path + "-shm": 0o600,
    }


def test_a_newer_file_is_refused_with_both_versions(store: Store, path: str) -> None:
    store.database.open().execute("PRAGMA user_version=7")
    store.close()

    with pytest.raises(NotABusFile, match="format 7, this Lightbus reads 1"):
        Store(path, quiet).database.open()


def test_an_sqlite_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "results.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE results(id)")
    connection.close()
    before = other.read_bytes()

    with pytest.raises(NotABusFile, match="of something else"):
        Store(str(other), quiet).database.open()

    assert other.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database, " * 100)

    with pytest.raises(NotABusFile, match="not an SQLite file"):
        Store(str(tmp_path / "notes.txt"), quiet).database.open()


def test_many_processes_create_and_fill_one_file_and_none_sees_it_locked(processes: Processes, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'bus.db'}"
    started = [
        processes.start("python", PROGRAM, "publish", url, "q", "--count", "300", "--first", str(300 * i), name="pub")
        for i in range(5)
    ]
    for process in started:
        assert process.wait(30) == 0, process.read_log()

    store = Store(str(tmp_path / "new" / "bus.db"), quiet)
    assert store.count("q") == (1500, 0)
    store.close()


def test_many_processes_may_create_the_file_at_the_same_moment(tmp_path: Path) -> None:
    for attempt in range(20):
        path = str(tmp_path / str(attempt) / "bus.db")
        start = time.monotonic() + 0.03

        def create(path: str, start: float) -> None:
            code = 1
            try:
                while time.monotonic() < start:
                    pass
                store = Store(path, quiet)
                store.topology.declare_queue(QueueSpec("q"))
                put(store, b"x")
                code = 0
            finally:
                os._exit(code)

        pids = []
        for _ in range(5):
            pids.append(os.fork())
            if pids[-1] == 0:
                create(path, start)
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 5
        store = Store(path, quiet)
        assert store.count("q") == (5, 0)
        store.close()


def test_opening_the_file_again_keeps_the_locks_of_those_who_have_it_open(store: Store, path: str) -> None:
    """Without them, another process that closes the file thinks itself the last, and removes the log under us."""
    put(store, b"1")
    Store(path, quiet).database.open()
    for _ in range(2):  # the first may write the log back into the file, the second finds the log gone
        code = f"import sqlite3; c = sqlite3.connect({path!r}); c.execute('SELECT count(*) FROM messages'); c.close()"
        subprocess.run([sys.executable, "-c", code], check=True)

    assert os.path.exists(path + "-wal")
    put(store, b"2")
    assert store.database.read("PRAGMA integrity_check") == [("ok",)]


def test_threads_of_one_process_share_a_store(store: Store) -> None:
    def publish() -> None:
        put(store, *[b"x"] * 50)

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert store.count("q") == (200, 0)


def test_a_block_that_raises_leaves_nothing_behind(store: Store) -> None:
    def fail() -> None:
        with store.database.transaction() as c:
            c.execute("DELETE FROM queues")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert store.topology.queue_exists("q")


def test_a_writer_waits_for_a_writer(store: Store, path: str) -> None:
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.2, other.execute, ["COMMIT"])
    timer.start()

    put(store, b"after")

    timer.join()
    other.close()
    assert store.count("q") == (1, 0)


def test_a_fork_gives_each_side_its_own_connection(store: Store) -> None:
    session = store.sessions.start(30, None)
    put(store, b"1", b"2")
    assert take(store, session, 1) == [b"1"]

    def child() -> bool:
        put(store, b"3")
        return [m.body for m in store.lease(store.sessions.start(30, None), ["q"], 10)] == [b"2", b"3"]

    assert in_child(child)
    put(store, b"4")
    assert take(store, session) == [b"4"]


def test_a_fork_waits_until_no_other_thread_is_inside_sqlite(store: Store) -> None:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            put(store, b"x")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert all(in_child(lambda: store.count("q")[0] > 0 or True) for _ in range(20))
    finally:
        stop.set()
        thread.join()


# Routing


def brute_force(pattern: list[str], words: list[str]) -> bool:
    """The definition, word by word."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(brute_force(pattern[1:], words[i:]) for i in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and brute_force(pattern[1:], words[1:])


@given(
    st.lists(st.sampled_from(["*", "#", "a", "b", "", "a*"]), min_size=1, max_size=6),
    st.lists(st.sampled_from(["a", "b", "", "a*", "*"]), min_size=1, max_size=6),
)
def test_topic_patterns_match_as_amqp_defines(pattern: list[str], words: list[str]) -> None:
    expected = brute_force(pattern if pattern != [""] else [], words if words != [""] else [])

    assert topic_matches(".".join(pattern), ".".join(words)) == expected


def test_a_hostile_pattern_takes_no_exponential_time() -> None:
    started = time.monotonic()

    assert not topic_matches(".".join(["#", "a"] * 60), ".".join(["a"] * 200 + ["b"]))

    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    "kind, key, reached",
    [
        ("direct", "a.b", {"exact"}),
        ("topic", "a.b", {"exact", "star", "hash"}),
        ("topic", "a.b.c", {"hash"}),
        ("fanout", "zzz", {"exact", "star", "hash"}),
    ],
)
def test_each_kind_of_exchange_reaches_its_queues_once(store: Store, kind: str, key: str, reached: set[str]) -> None:
    store.topology.declare_exchange("x", kind, durable=True, auto_delete=False, arguments={})
    for queue, patterns in {"exact": ["a.b"], "star": ["a.*", "*.b"], "hash": ["#", "a.#"]}.items():
        store.topology.declare_queue(QueueSpec(queue))
        for pattern in patterns:
            store.topology.bind(queue, "x", pattern)

    assert store.publish("x", key, Envelope("{}", b"")) == len(reached)

    assert {queue for queue in ("exact", "star", "hash") if store.count(queue)[0] == 1} == reached


def test_what_no_queue_takes_is_reported_and_an_unknown_exchange_is_an_error(store: Store) -> None:
    assert store.publish("", "nobody", Envelope("{}", b"")) == 0
    assert store.publish("amq.topic", "nobody", Envelope("{}", b"")) == 0
    with pytest.raises(NotFound, match="no exchange 'x'"):
        store.publish("x", "", Envelope("{}", b""))


def test_a_declaration_that_differs_is_refused_and_the_same_one_is_not(store: Store) -> None:
    spec = QueueSpec("args", durable=True, arguments={"x-expires": 60000})
    store.topology.declare_queue(spec)
    store.topology.declare_queue(spec)

    with pytest.raises(Mismatch, match="stands with other properties"):
        store.topology.declare_queue(QueueSpec("args", durable=True))
    with pytest.raises(Mismatch, match="milliseconds"):
        store.topology.declare_queue(QueueSpec("bad", arguments={"x-expires": "soon"}))
    store.topology.declare_exchange("x", "topic", durable=True, auto_delete=False, arguments={})
    with pytest.raises(Mismatch, match="stands as topic"):
        store.topology.declare_exchange("x", "direct", durable=True, auto_delete=False, arguments={})
    with pytest.raises(Mismatch, match="not 'headers'"):
        store.topology.declare_exchange("h", "headers", durable=True, auto_delete=False, arguments={})


def test_an_auto_delete_exchange_goes_with_its_last_binding(store: Store) -> None:
    store.topology.declare_exchange("x", "topic", durable=True, auto_delete=True, arguments={})
    store.topology.bind("q", "x", "a")
    store.topology.bind("q", "x", "b")

    store.topology.unbind("q", "x", "a")
    assert store.topology.exchange_exists("x")

    store.topology.delete_queue("q")
    assert not store.topology.exchange_exists("x")


# Messages


def test_priority_goes_first_then_the_order_of_publishing(store: Store) -> None:
    put(store, b"1", b"2")
    put(store, b"urgent", priority=9)
    put(store, b"3")

    assert take(store, store.sessions.start(30, None)) == [b"urgent", b"1", b"2", b"3"]


def test_a_message_is_held_by_one_session_and_settled_by_no_other(store: Store) -> None:
    first, second = store.sessions.start(30, None), store.sessions.start(30, None)
    put(store, b"x")
    (held,) = store.lease(first, ["q"], 10)

    assert take(store, second) == []
    assert store.ack(second, [held.id]) == 0
    assert store.release(second, [held.id]) == 0
    assert store.ack(first, [held.id]) == 1
    assert store.ack(first, [held.id]) == 0


def test_released_messages_come_back_in_their_old_place_and_count_as_seen_or_not(store: Store) -> None:
    session = store.sessions.start(30, None)
    put(store, b"1", b"2", b"3")
    first, second, _ = store.lease(session, ["q"], 3)

    store.release(session, [first.id])
    store.release(session, [second.id], unseen=True)

    assert [(m.body, m.deliveries) for m in store.lease(session, ["q"], 3)] == [(b"1", 2), (b"2", 1)]


def test_a_lease_of_big_messages_stops_at_its_budget(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightbus.drivers.sqlite.store.LEASE_BYTES", 1000)
    put(store, *[b"x" * 600] * 3)
    session = store.sessions.start(30, None)

    assert [len(take(store, session)) for _ in range(3)] == [2, 1, 0]


def test_a_delayed_message_waits_only_when_it_is_due(store: Store) -> None:
    session = store.sessions.start(30, None)
    store.publish("", "q", Envelope("{}", b"later", delay_seconds=0.3))
    store.publish("", "q", Envelope("{}", b"much later", delay_seconds=600))

    remaining = store.promote()
    assert remaining is not None
    assert 0 < remaining <= 0.3
    assert store.count("q") == (0, 0)
    assert take(store, session) == []

    wait_for(lambda: (store.promote() or 0) > 1, 5, "the first message to be due")
    assert take(store, session) == [b"later"]


@pytest.mark.parametrize("where", ["queue", "message"])
def test_an_expired_message_is_neither_counted_nor_delivered_and_goes(store: Store, where: str) -> None:
    session = store.sessions.start(30, None)
    store.topology.declare_queue(QueueSpec("ttl", arguments={"x-message-ttl": 50} if where == "queue" else {}))
    store.publish("", "ttl", Envelope("{}", b"", lifetime_seconds=0.05 if where == "message" else None))
    assert store.count("ttl") == (1, 0)

    wait_for(lambda: store.count("ttl") == (0, 0), 5, "the message to expire")
    assert take(store, session, queue="ttl") == []
    store.sessions.sweep()
    assert store.database.read("SELECT * FROM messages") == []


def test_purge_leaves_what_is_held(store: Store) -> None:
    session = store.sessions.start(30, None)
    put(store, b"held", b"2", b"3")
    (held,) = store.lease(session, ["q"], 1)
    store.publish("", "q", Envelope("{}", b"", delay_seconds=600))

    assert store.purge("q") == 3
    assert store.ack(session, [held.id]) == 1
    with pytest.raises(NotFound):
        store.purge("nothing")


# Sessions


def test_when_a_lease_runs_out_all_that_it_held_is_free(store: Store, woken: list[str]) -> None:
    alive = store.sessions.start(30, "/alive")
    store.sessions.add_consumer(alive, "c", "q")
    dead = store.sessions.start(SHORT_SECONDS, None)
    store.topology.declare_queue(QueueSpec("mine", exclusive=True), dead)
    store.topology.declare_queue(QueueSpec("auto", auto_delete=True))
    store.sessions.add_consumer(dead, "c", "auto")
    put(store, b"x")
    (held,) = store.lease(dead, ["q"], 1)
    with pytest.raises(Locked):
        store.count("mine", alive)
    woken.clear()

    def swept() -> bool:
        store.sessions.sweep()
        return store.count("q") == (1, 1)

    wait_for(swept, 5, "the lease to run out")

    assert woken == ["/alive"]
    assert not store.topology.queue_exists("mine")
    assert not store.topology.queue_exists("auto")
    assert store.ack(dead, [held.id]) == 0
    with pytest.raises(SessionLost):
        store.lease(dead, ["q"], 1)
    with pytest.raises(SessionLost):
        store.sessions.keep(dead, 30, time.monotonic())
    assert [m.deliveries for m in store.lease(alive, ["q"], 1)] == [2]


def test_consumers_of_a_lease_that_ran_out_do_not_count(store: Store) -> None:
    session = store.sessions.start(SHORT_SECONDS, None)
    store.sessions.add_consumer(session, "c", "q")

    wait_for(lambda: count_consumers(store.database, "q") == 0, 5, "the lease to run out")


def test_who_stood_still_himself_does_not_judge_the_others(store: Store) -> None:
    mine, other = store.sessions.start(30, None), store.sessions.start(SHORT_SECONDS, None)
    wait_for(lambda: count_sessions(store, expired=True) == 1, 5, "the other's lease to run out")

    store.sessions.keep(mine, 4.0, time.monotonic() - 3600)
    store.sessions.keep(other, 30, time.monotonic() - 3600)

    assert count_sessions(store) == 2


def count_sessions(store: Store, *, expired: bool = False) -> int:
    sql = "SELECT count(*) FROM sessions" + (" WHERE lease_until<?" if expired else " WHERE ?")
    return int(store.database.read(sql, (time.monotonic(),))[0][0])


def test_a_lease_from_before_a_reboot_has_ended_though_the_clock_starts_again(store: Store) -> None:
    session = store.sessions.start(4, None)
    put(store, b"x")
    store.lease(session, ["q"], 1)
    with store.database.transaction() as c:
        c.execute("UPDATE sessions SET lease_until=lease_until+100000")

    store.sessions.sweep()

    assert store.count("q") == (1, 0)


def test_a_queue_that_was_unused_for_its_time_goes_and_one_with_a_consumer_stays(store: Store) -> None:
    session = store.sessions.start(30, None)
    for name in ("used", "unused"):
        store.topology.declare_queue(QueueSpec(name, arguments={"x-expires": 50}))
    store.sessions.add_consumer(session, "c", "used")

    def gone(name: str) -> bool:
        store.sessions.sweep()
        return not store.topology.queue_exists(name)

    wait_for(lambda: gone("unused"), 5, "the unused queue to go")
    assert store.topology.queue_exists("used")

    store.sessions.remove_consumer(session, "c")
    wait_for(lambda: gone("used"), 5, "the other queue to go")


# Waking


def test_a_deep_path_gets_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60) / "bus.db"
    deep.parent.mkdir(parents=True)
    waiter, waker = Waiter(), Waker()
    waiter.bind(str(deep), "0123456789abcdef")
    try:
        assert waiter.path is not None
        assert len(waiter.path) <= MAX_SOCKET_PATH_BYTES
        waiter.clear()
        waker([waiter.path])
        started = time.monotonic()
        waiter.wait(5)
        assert time.monotonic() - started < 2
    finally:
        waiter.close(unlink=True)
        waker.close()


def test_waking_the_dead_and_the_sleepy_neither_fails_nor_blocks(tmp_path: Path) -> None:
    waiter, waker = Waiter(), Waker()
    waiter.bind(str(tmp_path / "bus.db"), "sleepy")
    assert waiter.path is not None

    for _ in range(2000):  # many more than a socket holds
        waker([waiter.path, str(tmp_path / "nobody")])

    waiter.close(unlink=True)
    waker.close()


def test_only_old_sockets_without_a_session_are_removed(tmp_path: Path) -> None:
    waiters = [Waiter() for _ in range(3)]
    for waiter, name in zip(waiters, ("live", "stale", "young"), strict=True):
        waiter.bind(str(tmp_path / "bus.db"), name)
    paths = [waiter.path or "" for waiter in waiters]
    for path in paths[:2]:
        os.utime(path, (1, 1))

    remove_stale_sockets(os.path.dirname(paths[0]), {paths[0]})

    assert [os.path.exists(path) for path in paths] == [True, False, True]
    for waiter in waiters:
        waiter.close(unlink=True)
