"""The brokers of the tests: they answer, nobody shares one's own part of them, and they end with the run."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import kombu
import pytest
import redis

from tests.brokers import Brokers, RabbitMQ, Redis, how_to_get, missing_packages
from tests.processes import ROOT, Process, Processes, is_running, wait_for

NESTED = """
import os, pathlib
import pytest

@pytest.mark.parametrize("n", range(6))
@pytest.mark.parametrize("fixture", {fixtures})
def test_writes_down_what_it_got(n, fixture, request, brokers):
    url = request.getfixturevalue(fixture)
    pids = [path.read_text() for path in brokers.folder.glob("*/*.keep.pid")]
    note = pathlib.Path({notes!r}, f"{{fixture}}-{{n}}")
    note.with_suffix(".part").write_text("\\n".join([str(brokers.folder), url, *pids]))
    note.with_suffix(".part").rename(note)
    {then}
"""


def start_run(processes: Processes, folder: Path, fixtures: list[str], then: str = "") -> Process:
    """Start a test run of its own on two workers, whose tests write down what they got in `folder`/notes."""
    notes = folder / "notes"
    notes.mkdir()
    test = folder / "test_nested.py"
    test.write_text(NESTED.format(fixtures=fixtures, notes=str(notes), then=then or "pass"))
    return processes.start(
        "python", "-m", "pytest", "-p", "tests.conftest", "-c", ROOT / "pyproject.toml", "-n", "2", test,
        name="pytest", folder=ROOT, environment={"TMPDIR": str(folder)},
    )  # fmt: skip


def notes_of(folder: Path) -> list[list[str]]:
    """Of each nested test that has begun: the run's folder, the URL it got, and pids that keep the brokers."""
    return [note.read_text().splitlines() for note in sorted((folder / "notes").iterdir()) if note.suffix != ".part"]


def kept_pids(folder: Path) -> list[int]:
    return sorted({int(pid) for _, _, *pids in notes_of(folder) for pid in pids})


def test_rabbitmq_carries_a_message_in_a_virtual_host_of_its_own(amqp_vhost_url: str) -> None:
    with kombu.Connection(amqp_vhost_url) as connection, connection.SimpleQueue("letters") as queue:
        queue.put("hello")
        assert queue.get(timeout=10).payload == "hello"


def test_redis_begins_empty_and_keeps_what_is_written(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("letter", "hello")
        assert client.get("letter") == b"hello"


def test_a_database_with_data_is_given_to_nobody(
    own_redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTBUS_TEST_REDIS_URL", own_redis.url)  # not the shared one: there it may be a test's by now
    brokers = Brokers(tmp_path / "brokers", os.getpid())
    brokers.folder.mkdir()
    with redis.Redis.from_url(own_redis.url.removesuffix("0") + "3") as client:
        client.set("somebody's", "data")

        given = []
        for _ in range(3):
            with brokers.redis_database() as url:
                given.append(int(url.rpartition("/")[2]))

        assert given == [2, 4, 5]
        assert client.get("somebody's") == b"data"


def test_two_tests_share_nothing_and_the_brokers_end_with_the_run(processes: Processes, tmp_path: Path) -> None:
    run = start_run(processes, tmp_path, ["amqp_vhost_url", "redis_url", "sqlite_url"])
    assert run.wait(55) == 0, run.read_log()
    notes = notes_of(tmp_path)
    assert len({folder for folder, *_ in notes}) == 1, "both workers use one set of brokers"
    vhosts = [url for _, url, *_ in notes if url.startswith("amqp")]
    files = [url for _, url, *_ in notes if url.startswith("sqlite")]
    databases = [url for _, url, *_ in notes if url.startswith("redis")]
    assert [len(set(urls)) for urls in (vhosts, files, databases)] == [6, 6, 6]
    assert len({url.rpartition("/")[0] for url in vhosts}) == 1
    assert len(kept_pids(tmp_path)) == 3, "epmd, rabbitmq-server and redis-server, each started once"
    assert [pid for pid in kept_pids(tmp_path) if is_running(pid)] == []
    assert not Path(notes[0][0]).exists()


@pytest.mark.parametrize("end", [Process.interrupt, Process.kill], ids=["Ctrl-C", "kill -9"])
def test_the_brokers_end_when_the_run_is_ended_early(
    end: Callable[[Process], None], processes: Processes, tmp_path: Path
) -> None:
    run = start_run(processes, tmp_path, ["redis_url"], then="import signal; signal.pause()")
    wait_for(lambda: len(notes_of(tmp_path)) == 2, 30, "a nested test on each worker", [run.log])
    (keeper,) = kept_pids(tmp_path)
    assert is_running(keeper)
    end(run)
    wait_for(lambda: not is_running(keeper), 20, "the broker to end", [run.log])
    run.wait()


def test_a_server_of_ones_own_comes_back_with_its_data(own_redis: Redis) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.set("letter", "hello")
    own_redis.stop()
    assert not own_redis.answers()
    own_redis.start()
    with redis.Redis.from_url(own_redis.url) as client:
        assert client.get("letter") == b"hello"


@pytest.mark.timeout(240)
def test_a_rabbitmq_of_ones_own_comes_back_with_its_data(own_rabbitmq: RabbitMQ) -> None:
    confirmed = {"confirm_publish": True}
    with kombu.Connection(own_rabbitmq.url, transport_options=confirmed) as connection:
        connection.SimpleQueue("letters").put("hello")
    own_rabbitmq.stop()
    assert not own_rabbitmq.answers()
    own_rabbitmq.start()
    with kombu.Connection(own_rabbitmq.url) as connection, connection.SimpleQueue("letters") as queue:
        assert queue.get(timeout=10).payload == "hello"


def test_a_missing_broker_is_an_error_of_one_sentence_and_no_skip(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = missing_packages()  # PostgreSQL is found off the PATH too
    run = processes.start(
        "python", ROOT / "tests/tools/run.py",
        environment={"PATH": str(tmp_path), "LIGHTBUS_TEST_INSTALL": "no"},
    )  # fmt: skip
    assert run.wait() == 2
    assert missing[:2] == ["rabbitmq-server", "redis-server"]
    assert run.read_log().strip() == how_to_get(missing)
    assert re.fullmatch(r"[^\n]*\.", how_to_get(["redis-server"]))
