"""Result backends: documents that wake those who wait, in Celery's form."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from lightbus.core.errors import AccessRefused, BrokerUnreachable, ConfigError
from lightbus.drivers import open_result_backend
from lightbus.drivers.redis_chords import EARLY_SECONDS
from lightbus.drivers.redis_results import RedisResults
from lightbus.result_ports import ChordParts, ResultBackend
from lightbus.testing.bench import eventually
from tests.brokers import Redis


@pytest.fixture(params=["redis", "memory"])
def backend(request: pytest.FixtureRequest) -> Iterator[ResultBackend]:
    url = request.getfixturevalue("redis_url") if request.param == "redis" else "memory://"
    backend = open_result_backend(url)
    yield backend
    backend.close()


@pytest.fixture
def task_id() -> str:
    return str(uuid.uuid4())


def test_a_document_is_kept_replaced_and_forgotten(backend: ResultBackend, task_id: str) -> None:
    assert backend.fetch(task_id) is None
    backend.store(task_id, b"\x00first", expires_seconds=60)
    backend.store(task_id, b"second", expires_seconds=None)
    assert backend.fetch(task_id) == b"second"

    backend.forget(task_id)
    backend.forget(task_id)

    assert backend.fetch(task_id) is None


def test_a_success_that_is_kept_is_not_replaced_and_nobody_is_woken(redis_url: str, task_id: str) -> None:
    backend = RedisResults(redis_url)
    success, other = b'{"status": "SUCCESS", "result": 1}', b'{"status": "FAILURE", "result": null}'
    with redis.Redis.from_url(redis_url) as client, client.pubsub(ignore_subscribe_messages=True) as notices:
        notices.subscribe(f"celery-task-meta-{task_id}")

        assert backend.store_unless_success(task_id, other, expires_seconds=None) is None
        assert backend.store_unless_success(task_id, success, expires_seconds=60) is None
        assert backend.store_unless_success(task_id, other, expires_seconds=60) is None
        backend.store(task_id, b"strange", expires_seconds=None)
        assert backend.store_unless_success(task_id, other, expires_seconds=60) == b"strange"

        heard = []
        eventually(
            lambda: heard.append(notices.get_message(timeout=0.1)) or [one["data"] for one in heard if one is not None],
            lambda found: found[-1:] == [b"strange"], "all notices", 10,
        )  # fmt: skip
        assert [one["data"] for one in heard if one is not None] == [other, success, b"strange"]
    assert backend.fetch(task_id) == b"strange"
    backend.close()


def test_the_parts_of_a_chord_that_failed_stay_and_it_is_not_counted_anew(redis_url: str) -> None:
    backend = RedisResults(redis_url)
    backend.begin_chord("g", 1, None, expires_seconds=60)
    found = backend.count_part("g", "t", 0, b"part", expires_seconds=60)
    assert found is not None
    backend.end_chord("g", found.claim, keeps_parts=True)

    assert backend.count_part("g", "t", 0, b"part", expires_seconds=60) is None
    with redis.Redis.from_url(redis_url) as client:
        assert client.zrange("celery-taskset-meta-g.j", 0, -1) == [b"part"]
    backend.close()


@pytest.mark.parametrize("expires_seconds, kept", [(None, [-1, -1]), (1000, [1000, 1000])], ids=["for ever", "a while"])
def test_a_chord_that_is_sent_again_counts_what_ended_before_its_size_was_told(
    redis_url: str, expires_seconds: float | None, kept: list[int]
) -> None:
    backend = RedisResults(redis_url)

    def count(task: str, part: bytes) -> ChordParts | None:
        return backend.count_part("g", task, "ab".index(task), part, expires_seconds=expires_seconds)

    backend.begin_chord("g", 2, None, expires_seconds=expires_seconds)
    count("a", b"1")
    first = count("b", b"2")
    assert first is not None
    backend.end_chord("g", first.claim)

    assert count("a", b"3") is None
    with redis.Redis.from_url(redis_url) as client:  # it may have been a repeat, which is then soon forgotten
        assert 0 < client.ttl("celery-taskset-meta-g.j") <= EARLY_SECONDS
        assert 0 < client.ttl("celery-taskset-meta-g.d") <= EARLY_SECONDS
        backend.begin_chord("g", 2, None, expires_seconds=expires_seconds)
        again = count("b", b"4")
        assert [client.ttl("celery-taskset-meta-g.j"), client.ttl("celery-taskset-meta-g.d")] == kept

    assert again is not None
    assert again.parts == [b"3", b"4"]
    backend.close()


def test_a_document_expires(backend: ResultBackend, task_id: str) -> None:
    backend.store(task_id, b"x", expires_seconds=1)

    eventually(lambda: backend.fetch(task_id), lambda document: document is None, "the document to expire", 5)


def test_waiting_ends_when_a_document_is_stored(backend: ResultBackend, task_id: str) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(backend.wait, task_id, timeout_seconds=20)
        started = time.monotonic()
        numbers = itertools.count()
        while not waiting.done():  # the first may come before the wait begins, and is then no news
            backend.store(task_id, b"%d" % next(numbers), expires_seconds=60)
            threading.Event().wait(0.02)

        assert waiting.result() is not None
        assert time.monotonic() - started < 10


def test_waiting_passes_over_what_was_there_before(backend: ResultBackend, task_id: str) -> None:
    backend.store(task_id, b"STARTED", expires_seconds=60)
    stop = threading.Event()

    def store_until_seen() -> None:
        while not stop.wait(0.05):
            backend.store(task_id, b"SUCCESS", expires_seconds=60)

    first = backend.wait(task_id, timeout_seconds=0.2)
    storing = threading.Thread(target=store_until_seen)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(backend.wait, task_id, timeout_seconds=20)
        storing.start()
        document = waiting.result(20)
        stop.set()
        storing.join()

    assert (first, document) == (b"STARTED", b"SUCCESS")


def test_waiting_for_nothing_ends_at_the_timeout(backend: ResultBackend, task_id: str) -> None:
    started = time.monotonic()

    assert backend.wait(task_id, timeout_seconds=0.3) is None
    assert 0.25 < time.monotonic() - started < 5


def test_no_wake_up_is_lost_when_many_wait_and_store_at_once(backend: ResultBackend) -> None:
    ids = [str(uuid.uuid4()) for _ in range(20)]

    def wait(task_id: str) -> bytes | None:
        return backend.wait(task_id, timeout_seconds=20)

    with ThreadPoolExecutor(20) as threads:
        waiting = {task_id: threads.submit(wait, task_id) for task_id in ids}
        for task_id in ids:
            backend.store(task_id, task_id.encode(), expires_seconds=60)
        # One that began to wait after its document was there returns that at its timeout; store again to free it.
        repeat: Callable[[str], None] = lambda task_id: backend.store(task_id, b"again", expires_seconds=60)  # noqa: E731
        for task_id, future in waiting.items():
            while not future.done():
                repeat(task_id)
                threading.Event().wait(0.02)

        assert all(future.result() in (task_id.encode(), b"again") for task_id, future in waiting.items())


def test_results_come_back_with_the_server(own_redis: Redis, task_id: str) -> None:
    backend = RedisResults(own_redis.url)
    backend.store(task_id, b"kept", expires_seconds=60)

    own_redis.stop()
    own_redis.start()

    assert backend.fetch(task_id) == b"kept"
    backend.close()


def test_what_is_wrong_with_the_way_is_said(redis_url: str, task_id: str) -> None:
    refused = redis_url.replace("redis://", "redis://nobody:wrong@")

    with pytest.raises(BrokerUnreachable, match=r"127\.0\.0\.1:1"):
        RedisResults("redis://127.0.0.1:1/0").fetch(task_id)
    with pytest.raises(AccessRefused) as caught:
        RedisResults(refused).fetch(task_id)
    assert "wrong@" not in str(caught.value)
    with pytest.raises(ConfigError):
        open_result_backend("rdis://localhost")


def test_celerys_words_for_certificates_are_understood(redis_url: str) -> None:
    backend: Any = RedisResults("rediss://localhost:1/0?ssl_cert_reqs=CERT_NONE")

    assert isinstance(backend._redis, redis.Redis)
    assert backend._redis.connection_pool.connection_kwargs["ssl_cert_reqs"] == "none"
