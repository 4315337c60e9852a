"""What a task does besides its function: trying again by itself, its class's hooks, and standing aside for another."""

from __future__ import annotations

from typing import Any

import celery.exceptions
import celery.utils.time
import pytest

from lightbus.compat import Ignore, Reject, Retry, Task, chain, chord, group
from lightbus.compat.autoretry import backoff_seconds
from lightbus.compat.exceptions import ImproperlyConfigured, soft_limit_error
from tests.compat.bench import DEAD, Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


# Trying again


def test_a_task_is_tried_again_after_what_it_said_and_then_fails_with_it(bench: Bench) -> None:
    tries = []

    @bench.task(name="t", bind=True, autoretry_for=(OSError,), max_retries=2, default_retry_delay=0)
    def t(self: Any) -> None:
        tries.append(self.request.retries)
        raise OSError("away")

    result = t.delay()
    bench.work()

    assert tries == [0, 1, 2]
    with pytest.raises(OSError, match="away"):
        result.get(timeout=1)


def test_the_options_of_the_retry_are_the_tasks_own(bench: Bench) -> None:
    @bench.task(name="t", autoretry_for=(OSError,), retry_kwargs={"countdown": 33, "max_retries": 9})
    def t() -> None:
        raise OSError

    t.delay()
    bench.work()

    assert round(bench.published[1][2]) == 33
    assert bench.published[1][1].retries == 1


@pytest.mark.parametrize("error", [ValueError("other"), Ignore(), Reject(), Retry()], ids=repr)
def test_what_it_did_not_say_is_not_tried_again(bench: Bench, error: Exception) -> None:
    @bench.task(name="t", autoretry_for=(Exception,), dont_autoretry_for=(ValueError,))
    def t() -> None:
        raise error

    t.delay()
    bench.work()

    assert [route.routing_key for route, _, _ in bench.published if route.routing_key != DEAD] == ["lightbus.celery"]


def test_a_base_class_and_a_coroutine_are_tried_again_too(bench: Bench) -> None:
    class Stubborn(Task):
        autoretry_for = (OSError,)
        retry_backoff = True
        retry_jitter = False

    @bench.task(name="t", base=Stubborn)
    async def t() -> None:
        raise OSError

    t.delay()
    bench.work()

    assert round(bench.published[1][2]) == 1
    assert bench.published[1][1].retries == 1


@pytest.mark.parametrize("backoff", [True, 2, 3.7, 0.5])
@pytest.mark.parametrize("retries", [0, 1, 5, 40])
def test_the_delay_grows_as_celerys(bench: Bench, backoff: float, retries: int) -> None:
    task = bench.task(name="t", retry_backoff=backoff, retry_jitter=False, retry_backoff_max=500)(lambda: None)
    celerys = celery.utils.time.get_exponential_backoff_interval(int(max(1.0, backoff)), retries, 500, False)

    assert backoff_seconds(task, retries, lambda limit: 0) == celerys
    task.retry_jitter = True
    assert backoff_seconds(task, retries, lambda limit: limit - 1) == celerys


# Hooks


class Watched(Task):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def before_start(self, task_id: Any, args: Any, kwargs: Any) -> None:
        self.seen.append(("before", task_id, list(args), dict(kwargs), self.request.id))

    def on_success(self, retval: Any, task_id: Any, args: Any, kwargs: Any) -> None:
        self.seen.append(("success", retval, task_id))

    def on_failure(self, exc: BaseException, task_id: Any, args: Any, kwargs: Any, einfo: Any) -> None:
        self.seen.append(("failure", repr(exc), task_id, "ZeroDivisionError" in str(einfo)))

    def on_retry(self, exc: BaseException, task_id: Any, args: Any, kwargs: Any, einfo: Any) -> None:
        self.seen.append(("retry", repr(exc), task_id))

    def after_return(self, status: str, retval: Any, task_id: Any, args: Any, kwargs: Any, einfo: Any) -> None:
        self.seen.append(("after", status, task_id, einfo is None))


def test_the_hooks_of_a_class_are_called_in_celerys_order(bench: Bench) -> None:
    good = bench.task(name="good", base=Watched)(lambda n: n)
    bad = bench.task(name="bad", base=Watched)(lambda: 1 / 0)
    again = bench.task(name="again", base=Watched, bind=True)(lambda self: self.retry(exc=KeyError("k"), countdown=60))
    for task, args in ((good, (5,)), (bad, ()), (again, ())):
        task.apply_async(args, task_id="i")
        bench.work()

    assert good.seen == [("before", "i", [5], {}, "i"), ("success", 5, "i"), ("after", "SUCCESS", "i", True)]
    assert bad.seen[1:] == [
        ("failure", "ZeroDivisionError('division by zero')", "i", True), ("after", "FAILURE", "i", False),
    ]  # fmt: skip
    assert [one[:2] for one in again.seen] == [("before", "i"), ("retry", "KeyError('k')")]


def test_the_result_is_stored_before_the_hooks_are_called(bench: Bench) -> None:
    class Looks(Task):
        def on_success(self, retval: Any, task_id: Any, args: Any, kwargs: Any) -> None:
            states.append(bench.state(task_id))

    states: list[str] = []
    bench.task(name="t", base=Looks)(lambda: None).delay()
    bench.work()

    assert states == ["SUCCESS"]


def test_a_hook_that_fails_is_logged_and_changes_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Task):
        def on_success(self, retval: Any, task_id: Any, args: Any, kwargs: Any) -> None:
            raise RuntimeError("hook")

    result = bench.task(name="t", base=Broken)(lambda: 5).delay()
    bench.work()

    assert result.get(timeout=1) == 5
    assert "a hook of task t" in caplog.text


def test_what_before_start_raises_is_the_tasks_failure(bench: Bench) -> None:
    class Picky(Task):
        def before_start(self, task_id: Any, args: Any, kwargs: Any) -> None:
            raise PermissionError("not today")

    ran: list[int] = []
    result = bench.task(name="t", base=Picky)(lambda: ran.append(1)).delay()
    bench.work()

    with pytest.raises(PermissionError, match="not today"):
        result.get(timeout=1)
    assert ran == []


def test_hooks_are_called_when_the_caller_runs_the_task(bench: Bench) -> None:
    task = bench.task(name="t", base=Watched)(lambda n: n)
    task.apply((5,), task_id="i")

    assert [one[0] for one in task.seen] == ["before", "success", "after"]


# Standing aside


@pytest.fixture
def sums(bench: Bench) -> Bench:
    bench.add = bench.task(name="add")(lambda a, b=0: a + b)  # type: ignore[attr-defined]
    bench.total = bench.task(name="total")(lambda numbers: sum(numbers))  # type: ignore[attr-defined]
    return bench


@pytest.mark.parametrize(
    "build, expected",
    [
        (lambda b: b.add.s(1, 1), 2),
        (lambda b: b.add.s(1, 1) | b.add.s(2), 4),
        (lambda b: group(b.add.s(1, 1), b.add.s(2, 2)), [2, 4]),
        (lambda b: b.add.s(1, 1) | group(b.add.s(1), b.add.s(2)), [3, 4]),
        (lambda b: chord([b.add.s(1, 1), b.add.s(2, 2)], b.total.s()), 6),
    ],
    ids=["task", "chain", "group", "chain that ends in a group", "chord"],
)
@pytest.mark.parametrize("place", ["alone", "in a chain", "in a header"])
def test_what_replaces_a_task_brings_its_result(sums: Any, build: Any, expected: Any, place: str) -> None:
    stand_in = sums.task(name="stand_in", bind=True)(lambda self: self.replace(build(sums)))
    wrap = sums.task(name="wrap")(lambda value, n=None: [value, n])
    if place == "alone":
        result = stand_in.delay()
    elif place == "in a chain":
        result, expected = (stand_in.s() | wrap.s(7)).delay(), [expected, 7]
    else:
        result, expected = chord([stand_in.s(), sums.add.s(5, 5)], wrap.s(7)).delay(), [[expected, 10], 7]
    sums.work()

    assert result.get(timeout=1) == expected


def test_the_callbacks_of_a_replaced_task_follow_its_replacement(sums: Any) -> None:
    seen: list[Any] = []
    note = sums.task(name="note")(lambda *args: seen.append(args))
    stand_in = sums.task(name="stand_in", bind=True)(lambda self: self.replace(chain(sums.add.s(1, 1), sums.add.s(2))))
    result = stand_in.apply_async(link=note.s("done"))
    sums.work()

    assert result.get(timeout=1) == 4
    assert seen == [(4, "done")]
    with pytest.raises(ImproperlyConfigured, match="empty chain"):
        stand_in.replace(chain())


def test_a_task_may_add_another_to_its_chord(sums: Any) -> None:
    @sums.task(name="more", bind=True)
    def more(self: Any) -> int:
        self.add_to_chord(sums.add.s(100, 0))
        return 1

    result = chord([more.s(), sums.add.s(10, 0)], sums.total.s()).delay()
    sums.work()

    assert result.get(timeout=1) == 111
    with pytest.raises(ValueError, match="no chord"):
        more.add_to_chord(sums.add.s(1))


def test_a_soft_limit_is_a_reason_to_try_again_like_any_other(bench: Bench) -> None:
    @bench.task(name="t", autoretry_for=(celery.exceptions.SoftTimeLimitExceeded,), retry_kwargs={"countdown": 5})
    def t() -> None:
        raise soft_limit_error()

    t.delay()
    bench.work()

    assert bench.published[1][1].retries == 1
