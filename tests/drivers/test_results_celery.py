"""Celery and Lightbus keep results in the same place and wake each other."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import celery
import pytest
from celery import Celery

from lightbus.drivers.redis_results import RedisResults


@pytest.fixture
def task_id() -> str:
    return str(uuid.uuid4())


def test_celery_wakes_for_what_lightbus_stores_and_reads_it(redis_url: str, task_id: str) -> None:
    app = Celery("app", broker="memory://", backend=redis_url)
    backend = RedisResults(redis_url)
    meta = {"status": "SUCCESS", "result": 42, "traceback": None, "children": [], "task_id": task_id}
    document = json.dumps(meta).encode()
    result = app.AsyncResult(task_id)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(result.get, timeout=20)
        backend.store(task_id, document, expires_seconds=60)

        assert waiting.result(20) == 42
    app.backend.result_consumer.stop()
    backend.close()


@pytest.mark.parametrize("prefix", ["", "shop", "shop:"])
def test_lightbus_reads_what_celery_stored(redis_url: str, task_id: str, prefix: str) -> None:
    app = Celery("app", broker="memory://", backend=redis_url)
    app.conf.result_backend_transport_options = {"global_keyprefix": prefix}
    # Before 5.5 Celery put its "_" also behind a prefix that ends in a separator.
    same = f"{prefix}_" if prefix and celery.VERSION < (5, 5) else prefix
    backend = RedisResults(redis_url, {"global_keyprefix": same})

    app.backend.store_result(task_id, 42, "SUCCESS")

    document = backend.fetch(task_id)
    assert document is not None
    assert b'"result": 42' in document
    backend.close()
