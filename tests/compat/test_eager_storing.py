"""`task_store_eager_result`: what ran in the caller is in the result backend where Celery would have put it there."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from celery import Celery

from lightbus.compat import Settings, TaskApp
from lightbus.compat.exceptions import EncodeError
from tests.compat.bench import Bench

CASES = [
    {"store_eager_result": store, "ignore_result": ignore, "store_errors_even_if_ignored": errors}
    for store in (False, True)
    for ignore in (False, True)
    for errors in (False, True)
]


def add(a: int, b: int) -> int:
    return a + b


def fail() -> None:
    raise ValueError("no", 7)


def stored_by_celery(url: str, options: dict[str, Any]) -> list[Any]:
    app = Celery("theirs", broker="memory://", backend=url, set_as_current=False)
    tasks = [app.task(name=one.__name__, shared=False, **options)(one) for one in (add, fail)]
    return [run(tasks[0], (1, 2)), run(tasks[1], ())]


def stored_by_lightbus(url: str, options: dict[str, Any]) -> list[Any]:
    app = TaskApp(Settings(broker_url="memory://", result_backend=url))
    tasks = [app.task(name=one.__name__, **options)(one) for one in (add, fail)]
    return [run(tasks[0], (1, 2)), run(tasks[1], ())]


def run(task: Any, args: tuple[Any, ...]) -> Any:
    """What the backend says of a run in the caller."""
    result = task.apply(args, task_id=str(uuid.uuid4()))
    kept = task.AsyncResult(result.id)
    return kept.state, repr(kept.result)


@pytest.mark.parametrize("options", CASES, ids=lambda one: "-".join(key for key in one if one[key]) or "none")
def test_what_ran_in_the_caller_is_stored_where_celery_stores_it(redis_url: str, options: dict[str, Any]) -> None:
    assert stored_by_lightbus(redis_url, options) == stored_by_celery(redis_url, options)


def test_celery_reads_what_ran_in_a_lightbus_caller(redis_url: str) -> None:
    given = {"result_backend": redis_url, "task_always_eager": True, "CELERY_STORE_EAGER_RESULT": True}
    app = TaskApp(Settings.from_mapping({**given, "result_extended": True}))
    theirs = Celery("theirs", broker="memory://", backend=redis_url, set_as_current=False)

    result = app.task(name="add")(add).delay(1, 2)
    failed = app.task(name="fail")(fail).delay()

    read = theirs.AsyncResult(result.id)
    assert (read.get(timeout=10), read.name, read.args) == (3, "add", [1, 2])
    with pytest.raises(ValueError, match="no") as caught:
        theirs.AsyncResult(failed.id).get(timeout=10)
    assert caught.value.args == ("no", 7)
    assert "ValueError" in str(theirs.AsyncResult(failed.id).traceback)
    app.close()


def test_a_retried_task_ends_in_the_state_of_its_last_try() -> None:
    bench = Bench(store_eager_result=True)
    tries = []

    @bench.task(name="t", bind=True, max_retries=2)
    def t(self: Any) -> str:
        tries.append(bench.state(self.request.id))
        if len(tries) < 3:
            raise self.retry(countdown=0)
        return "done"

    result = t.apply()

    assert tries == ["PENDING", "RETRY", "RETRY"]
    assert (bench.state(result.id), result.get()) == ("SUCCESS", "done")


def test_a_result_without_a_form_in_the_serializer_is_a_stored_failure() -> None:
    bench = Bench(store_eager_result=True)
    task = bench.task(name="t")(lambda: object())

    result = task.apply(throw=False)

    assert isinstance(result.result, EncodeError)
    assert (result.state, bench.state(result.id)) == ("FAILURE", "FAILURE")
    with pytest.raises(EncodeError):
        task.apply(throw=True)


def test_what_is_raised_to_the_caller_is_not_stored_as_in_celery(redis_url: str) -> None:
    theirs = Celery("theirs", broker="memory://", backend=redis_url, set_as_current=False)
    theirs.conf.task_store_eager_result = True
    ours = TaskApp(Settings(broker_url="memory://", result_backend=redis_url, store_eager_result=True))
    for task in (theirs.task(name="fail", shared=False)(fail), ours.task(name="fail")(fail)):
        task_id = str(uuid.uuid4())
        with pytest.raises(ValueError, match="no"):
            task.apply(throw=True, task_id=task_id)
        assert task.AsyncResult(task_id).state == "PENDING"
    ours.close()
