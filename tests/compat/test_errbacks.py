"""Errbacks of both kinds: those that are called with the failure, and those that are sent with the failed task's id."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import celery
import pytest
from celery import Celery
from celery.app.task import Context

from lightbus.compat import chord, group
from tests.compat.test_canvas import Sums


@pytest.fixture
def sums() -> Sums:
    return Sums()


Told = list[tuple[Any, ...]]
Errback = Callable[..., None]


def by_failure(told: Told) -> Errback:
    def errback(request: Any, exc: Any, traceback: Any, label: str = "") -> None:
        told.append((request, exc, traceback))

    return errback


def by_id(told: Told) -> Errback:
    def errback(task_id: str) -> None:
        told.append((task_id,))

    return errback


def by_id_with_a_label(told: Told) -> Errback:
    def errback(task_id: str, label: str) -> None:
        told.append((task_id,))

    return errback


def anything(told: Told) -> Errback:
    def errback(*args: Any, label: str = "") -> None:
        told.append(args)

    return errback


def decorated(told: Told) -> Errback:
    return wraps(by_id(told))(anything(told))


@pytest.mark.parametrize(
    "build, given, inline",
    [
        (by_failure, {}, True),
        (by_failure, {"kwargs": {"label": "x"}}, True),
        (by_failure, {"args": ("x",)}, True),
        (by_id, {}, False),
        (by_id_with_a_label, {"args": ("x",)}, False),
        (by_id_with_a_label, {"kwargs": {"label": "x"}}, False),
        (anything, {}, True),
        (decorated, {}, True),
    ],
)
def test_an_errback_is_called_where_celery_calls_it_and_else_sent(
    sums: Sums, build: Callable[[Told], Errback], given: dict[str, Any], inline: bool
) -> None:
    told: Told = []
    errback = sums.task(name="errback")(build(told)).signature(**given)

    result = sums.fail.apply_async(link_error=errback)
    outcomes = sums.work()

    assert len(outcomes) == (1 if inline else 2)
    if inline:
        ((request, error, traceback, *_),) = told
        assert (request.id, error.args, "Traceback" in traceback) == (result.id, ("no", 7), True)
    else:
        assert told == [(result.id,)]
    if celery.VERSION >= (5, 7):  # older ones look at all places of the function, those that are filled too
        assert celery_calls_it(build, dict(errback)) == inline


def celery_calls_it(build: Callable[[Told], Errback], errback: dict[str, Any]) -> bool:
    told: Told = []
    app = Celery("measure", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.task(name="errback", shared=False)(build(told))
    app.backend._call_task_errbacks(Context(id="i", errbacks=[errback], delivery_info={}), ValueError("no"), "text")
    app.close()
    return bool(told)


def test_a_bound_errback_is_sent_and_one_that_fails_keeps_no_other_from_being_told(
    sums: Sums, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []

    @sums.task(name="broken")
    def broken(request: Any, exc: Any, traceback: Any) -> None:
        raise RuntimeError("of the errback")

    bound = sums.task(name="bound", bind=True)(lambda self, *args: told.append(args))
    result = sums.fail.apply_async(link_error=[broken.s(), bound.s()])
    sums.work()

    assert told == [(result.id,)]
    assert "of the errback" in caplog.text
    assert result.state == "FAILURE"


def test_the_errback_of_a_chord_is_called_with_the_request_of_its_body(sums: Sums) -> None:
    told: list[Any] = []

    @sums.task(name="told")
    def tell(request: Any, exc: Any, traceback: Any) -> None:
        told.append((request.id, request.task, type(exc).__name__, traceback))

    result = sums.run(chord([sums.fail.s(), sums.add.s(1, 1)], sums.total.s().on_error(tell.s())))

    assert told == [(result.id, "total", "ChordError", None)]


@pytest.mark.parametrize("body", ["a chain", "a group", "a chord"])
def test_an_errback_of_a_chord_whose_body_is_a_canvas_is_told_once_per_end(sums: Sums, body: str) -> None:
    told: list[Any] = []
    tell = sums.task(name="told")(lambda task_id: told.append(task_id))
    canvas, times = {
        "a chain": (sums.total.s() | sums.add.s(1), 1),
        "a group": (group(sums.total.s(), sums.total.s()), 2),
        "a chord": (chord([sums.total.s(), sums.total.s()], sums.total.s()), 1),
    }[body]

    result = sums.run(chord([sums.add.s(1, 1), sums.fail.s()], canvas), link_error=tell.s())

    assert len(told) == times
    if body == "a chord":
        assert told == [result.id]


def test_the_errbacks_of_a_chord_are_children_of_its_body(sums: Sums) -> None:
    echo = sums.task(name="echo")(lambda task_id: task_id)
    result = sums.run(chord([sums.fail.s(), sums.add.s(1, 1)], sums.total.s().on_error(echo.s())))

    ((errbacks,),) = (result.children,)
    assert [one.get(timeout=1) for one in errbacks.children] == [result.id]


def test_the_tasks_of_a_group_after_a_failed_header_fail_with_what_failed(sums: Sums) -> None:
    result = sums.run(group(sums.add.s(1, 1), sums.fail.s()) | group(sums.total.s(), sums.total.s()))

    assert [repr(one.get(timeout=1, propagate=False)) for one in result.results] == ["ValueError('no', 7)"] * 2
