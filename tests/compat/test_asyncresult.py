"""Results as objects: all that Celery's have, under the same names, with the same outcome."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

import celery.result
import pytest

from lightbus import compat
from lightbus.compat import (
    AsyncResult,
    EagerResult,
    GroupResult,
    IncompleteStream,
    ResultSet,
    TaskRevokedError,
    allow_join_result,
    chain,
    group,
    result_from_tuple,
)
from lightbus.compat.joining import denied_join_result
from lightbus.compat.results import ResultDocument, exception_triple
from tests.compat.bench import Bench
from tests.compat.test_canvas import Sums

PAIRS = [
    (celery.result.AsyncResult, AsyncResult), (celery.result.ResultSet, ResultSet),
    (celery.result.GroupResult, GroupResult), (celery.result.EagerResult, EagerResult),
]  # fmt: skip


@pytest.fixture
def sums() -> Sums:
    return Sums(result_extended=True)


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


@pytest.mark.parametrize("theirs, ours", PAIRS, ids=lambda cls: cls.__name__)
def test_every_public_attribute_of_celerys_class_is_here(theirs: type, ours: type) -> None:
    instance: Any = {
        AsyncResult: lambda: AsyncResult("i"), EagerResult: lambda: EagerResult("i", 1, "SUCCESS"),
        ResultSet: lambda: ResultSet([]), GroupResult: lambda: GroupResult("g", []),
    }[ours]()  # fmt: skip
    here = public(ours) | set(vars(instance))

    assert public(theirs) - here == set()


@pytest.mark.parametrize("theirs, ours", PAIRS, ids=lambda cls: cls.__name__)
def test_methods_take_the_arguments_that_celerys_take(theirs: type, ours: type) -> None:
    for name in public(theirs):
        expected = inspect.getattr_static(theirs, name)
        if not inspect.isfunction(expected):
            continue
        found = inspect.signature(getattr(ours, name))
        if any(one.kind is one.VAR_KEYWORD for one in found.parameters.values()):
            continue
        wanted = {key for key, one in inspect.signature(expected).parameters.items() if one.kind is not one.VAR_KEYWORD}
        if name == "throw":
            continue  # a traceback that nobody has here
        renamed = {"add": {"result"}, "remove": {"result"}}.get(name, set())
        assert wanted - set(found.parameters) - renamed == set(), name


def test_what_is_stored_is_what_the_attributes_say(sums: Sums) -> None:
    @sums.task(name="spread", bind=True, queue="heavy")
    def spread(self: Any, a: int) -> int:
        sums.add.delay(a, 1)
        return a

    result = sums.app.tasks["spread"].delay(3)
    assert (result.state, result.result, result.children, result.exists()) == ("PENDING", None, None, False)
    sums.work("lightbus.heavy")
    sums.work()

    assert result.get(timeout=5) == result.result == result.info == 3
    assert (result.status, result.ready(), result.successful(), result.failed()) == ("SUCCESS", True, True, False)
    assert (result.name, result.args, result.kwargs) == ("spread", [3], {})
    assert (result.worker, result.retries, result.queue) == ("lightbus@bench", 0, "lightbus.heavy")
    assert isinstance(result.date_done, datetime)
    assert result.date_done.tzinfo is not None
    assert result.date_done <= datetime.now(timezone.utc)
    assert (result.traceback, result.exists(), result.task_id) == (None, True, result.id)
    (child,) = result.children or []
    assert child.get(timeout=5) == 4


def test_get_hears_of_states_looks_and_the_value(sums: Sums) -> None:
    result = sums.add.delay(1, 2)
    heard: list[Any] = []
    looks = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(
            result.get, timeout=60, interval=0.01, no_ack=True, follow_parents=True,
            callback=lambda task_id, value: heard.append((task_id, value)),
            on_message=lambda meta: heard.append((meta["status"], meta["result"])), on_interval=looks.set,
        )  # fmt: skip
        assert looks.wait(60)
        sums.work()
        assert waiting.result(60) == 3

    assert heard == [("SUCCESS", 3), (result.id, 3)]


def test_a_failure_is_raised_returned_or_passed_on(sums: Sums) -> None:
    result = sums.run(sums.fail.s())

    with pytest.raises(ValueError, match="no"):
        result.get(timeout=5)
    with pytest.raises(ValueError, match="no"):
        result.maybe_throw()
    assert repr(result.get(timeout=5, propagate=False)) == repr(result.maybe_reraise(propagate=False))
    heard: list[Any] = []
    result.get(timeout=5, propagate=False, callback=lambda *one: heard.append(one))
    assert [(task_id, repr(error)) for task_id, error in heard] == [(result.id, "ValueError('no', 7)")]


def test_the_error_of_a_parent_is_raised_unless_nobody_follows(sums: Sums) -> None:
    result = sums.run(chain(sums.fail.s(), sums.add.s(1)))
    store = sums.app.results
    store.forget(result.id)
    other = exception_triple(KeyError("its own"))
    store.store(ResultDocument(task_id=result.id, status="FAILURE", result=other), reply_to="", correlation_id="")

    with pytest.raises(ValueError, match="no"):
        AsyncResult(result.id, app=sums.app, parent=result.parent).get(timeout=5)
    with pytest.raises(KeyError, match="its own"):
        AsyncResult(result.id, app=sums.app, parent=result.parent).get(timeout=5, follow_parents=False)
    assert result.as_list() == [result.id, result.parent.id]
    assert result.as_tuple() == ((result.id, ((result.parent.id, None), None)), None)
    again = result_from_tuple(result.as_tuple(), sums.app)
    assert (again, again.parent) == (result, result.parent)
    result.forget()
    assert (result.state, result.parent.state) == ("PENDING", "PENDING")


def test_the_tree_of_tasks_can_be_walked(sums: Sums) -> None:
    sums.task(name="pow2")(lambda i: i**2)
    sums.task(name="B")(lambda i: sums.app.tasks["pow2"].delay(i).id and None)
    sums.task(name="A")(lambda n: group(sums.app.tasks["B"].s(i) for i in range(n)).delay() and None)
    result = sums.app.tasks["A"].delay(4)
    with pytest.raises(IncompleteStream):
        list(result.iterdeps())
    assert list(result.iterdeps(intermediate=True)) == [(None, result)]
    sums.work()

    leaves = [value for one, value in result.collect(timeout=5) if not one.children]

    assert leaves == [0, 1, 4, 9]
    assert result.get_leaf() == 9
    assert [parent is None for parent, _ in result.iterdeps()][:2] == [True, False]
    graph = result.graph
    assert (len(graph), graph.valency_of(result), graph.topsort()[-1]) == (10, 10, result)
    assert graph[result] == result.children
    text = io.StringIO()
    graph.to_dot(text)
    assert text.getvalue().count("->") == 9


def test_then_is_called_once_when_the_result_is_known(sums: Sums) -> None:
    early, late, failed = sums.add.delay(1, 1), sums.add.delay(2, 2), sums.fail.delay()
    together = ResultSet([early, late], app=sums.app)
    heard: list[Any] = []
    early.then(lambda result: heard.append(result.result))
    together.then(lambda found: heard.append(len(found)))
    failed.then(lambda result: heard.append(result.state))

    class Listener:
        def hear(self, result: Any) -> None:
            heard.append("never")

    late.then(Listener().hear, weak=True)
    sums.work()
    assert heard == []

    assert (early.ready(), early.get(timeout=5)) == (True, 2)
    assert late.get(timeout=5) == 4
    late.then(lambda result: heard.append("at once"))
    assert together.get(timeout=5) == [2, 4]
    assert failed.ready()

    assert heard == [2, "at once", 2, "FAILURE"]
    errors: list[Any] = []
    failed.on_ready.then(lambda _: None, errors.append)
    eager = EagerResult("e", 5, "SUCCESS")
    eager.then(lambda result: heard.append(result.get()))
    assert heard[-1] == 5


def test_results_are_equal_by_their_ids_and_can_be_copied_and_pickled(sums: Sums) -> None:
    one, same = AsyncResult("i", app=sums.app), AsyncResult("i", app=sums.app)
    of_group = GroupResult("g", [one], app=sums.app)

    assert one == same == "i"
    assert one != AsyncResult("other", app=sums.app)
    assert {one, same} == {one}
    assert (str(one), repr(one)) == ("i", "<AsyncResult: i>")
    assert copy.copy(one) == one
    assert copy.copy(one).app is sums.app
    assert pickle.loads(pickle.dumps(one)) == one
    assert pickle.loads(pickle.dumps(AsyncResult("i", parent=same))).parent == "i"
    assert of_group == GroupResult("g", [same], app=sums.app) == "g"
    assert pickle.loads(pickle.dumps(of_group)) == of_group
    assert not GroupResult()
    assert AsyncResult[int] is not None
    with pytest.raises(ValueError, match="valid id"):
        AsyncResult(None)  # type: ignore[arg-type]


def test_a_set_is_changed_as_celerys_is(sums: Sums) -> None:
    a, b, c = (AsyncResult(name, app=sums.app) for name in "abc")
    found = ResultSet([a], app=sums.app)
    found.add(b)
    found.add(b)
    found.update([b, c])
    assert [one.id for one in found] == ["a", "b", "c"]
    found.remove("b")
    found.discard("none")
    with pytest.raises(KeyError):
        found.remove("b")
    assert (len(found), found[1], found.waiting()) == (2, c, True)
    found.clear()
    assert list(found) == []


@pytest.mark.parametrize("way", ["get", "join", "join_native"])
def test_many_are_joined_in_their_order_or_called_back(sums: Sums, way: str) -> None:
    result = group(sums.add.s(n, n) for n in range(20)).apply_async()
    nested = ResultSet([result.results[0], GroupResult("inner", result.results[1:3], app=sums.app)], app=sums.app)
    heard: list[Any] = []
    with pytest.raises(compat.TimeoutError):
        getattr(result, way)(timeout=0)
    sums.work()

    assert getattr(result, way)(timeout=5) == [2 * n for n in range(20)]
    assert getattr(nested, way)(timeout=5) == [0, [2, 4]]
    assert not getattr(result, way)(timeout=5, callback=lambda *one: heard.append(one))
    assert sorted(heard) == sorted((one.id, one.result) for one in result)
    assert {task_id for task_id, meta in result.iter_native(timeout=5) if meta["status"] == "SUCCESS"} == {
        one.id for one in result
    }
    assert sorted(result.iterate(timeout=5)) == [2 * n for n in range(20)]


def test_many_threads_wait_for_many_results(sums: Sums) -> None:
    results = [sums.add.delay(n, 0) for n in range(50)]
    with ThreadPoolExecutor(25) as threads:
        waiting = [threads.submit(one.get, timeout=60) for one in results]
        sums.work()
        assert [one.result(60) for one in waiting] == list(range(50))


def test_waiting_inside_a_task_is_refused_unless_it_is_allowed(sums: Sums) -> None:
    done = sums.run(sums.add.s(1, 1))
    group_of = ResultSet([done], app=sums.app)
    sums.task(name="get")(lambda: done.get(timeout=5))
    sums.task(name="join")(lambda: group_of.join(timeout=5))
    sums.task(name="native")(lambda: group_of.join_native(timeout=5))
    sums.task(name="asked")(lambda: done.get(timeout=5, disable_sync_subtasks=False))

    @sums.task(name="allowed")
    def allowed() -> Any:
        with allow_join_result():
            return done.get(timeout=5)

    for name in ("get", "join", "native"):
        with pytest.raises(RuntimeError, match="inside the task"):
            sums.run(sums.app.signature(name)).get(timeout=5)
    assert sums.run(sums.app.signature("asked")).get(timeout=5) == 2
    assert sums.run(sums.app.signature("allowed")).get(timeout=5) == 2
    with denied_join_result(), pytest.raises(RuntimeError):
        done.get(timeout=5)


class Control:
    """In the place of the app's remote control."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def revoke(self, ids: Any, **options: Any) -> None:
        self.calls.append((ids, options))

    def revoke_by_stamped_headers(self, headers: Any, **options: Any) -> None:
        self.calls.append((headers, options))


def test_revoke_asks_the_control_of_the_app(sums: Sums, monkeypatch: pytest.MonkeyPatch) -> None:
    control = Control()
    monkeypatch.setattr(type(sums.app), "control", control, raising=False)
    one, two = AsyncResult("a", app=sums.app), AsyncResult("b", app=sums.app)

    one.revoke(terminate=True, signal="KILL", wait=True, timeout=2)
    GroupResult("g", [one, two], app=sums.app).revoke()
    one.revoke_by_stamped_headers({"h": "v"})

    plain = {"connection": None, "terminate": False, "signal": None, "reply": False, "timeout": None}
    killed = {"connection": None, "terminate": True, "signal": "KILL", "reply": True, "timeout": 2}
    assert control.calls == [("a", killed), (["a", "b"], plain), ({"h": "v"}, plain)]


def test_an_eager_result_is_one_too() -> None:
    result = Bench(always_eager=True).task(name="t")(lambda: 5).delay()

    assert isinstance(result, AsyncResult)
    assert (result.get(), result.state, result.name, result.children, result.exists()) == (
        5,
        "SUCCESS",
        "t",
        None,
        True,
    )
    assert (copy.copy(result).get(), pickle.loads(pickle.dumps(result)).get()) == (5, 5)
    result.revoke()
    assert result.state == "REVOKED"
    with pytest.raises(TaskRevokedError):
        result.get()
    assert isinstance(result.get(propagate=False), TaskRevokedError)


def test_a_group_is_saved_and_restored_in_memory_too(sums: Sums) -> None:
    result = group(sums.add.s(1, 1), sums.add.s(2, 2)).apply_async()
    result.save()

    again = GroupResult.restore(result.id, app=sums.app)

    assert again == result
    result.delete()
    assert GroupResult.restore(result.id, app=sums.app) is None
