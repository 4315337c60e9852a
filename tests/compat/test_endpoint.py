from __future__ import annotations

from concurrent.futures import Future
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from lightbus.compat import Ignore, Reject, Retry, Settings, TaskApp, TaskRevokedError, WorkerLostError, current_task
from lightbus.compat.endpoint import TaskEndpoint
from lightbus.compat.protocol import TaskMessage, encode_task
from lightbus.compat.results import ResultDocument
from lightbus.compat.settings import CeleryQueue
from lightbus.core.errors import ConfigError, ConnectionLost, NotConfirmed
from lightbus.core.message import Route, Wire
from lightbus.core.outcome import Ack, DeadLetter, Forward, Requeue
from lightbus.core.topology import Binding, Exchange
from lightbus.endpoint import Invocation
from tests.compat.bench import DEAD, Bench, handle

CHORD = {"task": "body", "args": [], "kwargs": {}, "options": {"task_id": "body-1"}, "immutable": False}


def sig(task: str, *args: Any, immutable: bool = False, **options: Any) -> dict[str, Any]:
    return {"task": task, "args": list(args), "kwargs": {}, "options": options, "immutable": immutable}


def at(seconds_from_now: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds_from_now)).isoformat()


@pytest.fixture
def bench() -> Bench:
    bench = Bench()

    @bench.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @bench.task(name="fail")
    def fail(*_: Any) -> None:
        raise ValueError("no")

    return bench


# A run and its end


def test_a_task_runs_and_its_result_is_stored(bench: Bench) -> None:
    bench.put_task(task="add", args=(1, 2))

    assert bench.work() == [Ack()]
    document = bench.document()
    assert document is not None
    assert (document.status, document.result) == ("SUCCESS", 3)


def test_a_coroutine_function_is_a_task(bench: Bench) -> None:
    @bench.task(name="later", bind=True)
    async def later(self: Any, x: int) -> Any:
        return [x, self.request.id]

    bench.put_task(task="later", args=(1,))

    assert bench.work() == [Ack()]
    assert bench.app.AsyncResult("task-1").get(timeout=1) == [1, "task-1"]


def test_acknowledgement_is_early_unless_the_task_or_the_settings_want_it_late() -> None:
    for settings, option, early in [
        ({}, {}, True),
        ({}, {"acks_late": True}, False),
        ({"acks_late": True}, {}, False),
        ({"acks_late": True}, {"acks_late": False}, True),
    ]:
        bench = Bench(**settings)
        bench.task(name="t", **option)(lambda: None)
        bench.put_task(task="t")
        endpoint = bench.endpoint()
        delivery = bench.transport.get("lightbus.celery")
        assert delivery is not None

        prepared = endpoint.prepare(delivery)

        assert isinstance(prepared, Invocation)
        assert prepared.ack_early is early, (settings, option)


def test_a_failure_is_stored_with_its_traceback_and_the_message_is_done(bench: Bench) -> None:
    bench.put_task(task="fail")

    assert bench.work() == [Ack()]
    document = bench.document()
    assert document is not None
    assert document.status == "FAILURE"
    assert isinstance(document.exception, ValueError)
    assert 'raise ValueError("no")' in (document.traceback or "")


def test_a_failure_is_parked_when_the_task_does_not_acknowledge_failures(bench: Bench) -> None:
    bench.task(name="careful", acks_late=True, acks_on_failure=False)(lambda: 1 / 0)
    bench.put_task(task="careful")

    (outcome,) = bench.work()

    assert isinstance(outcome, DeadLetter)
    assert (outcome.reason, bench.state()) == ("failed", "FAILURE")


def test_started_is_stored_before_the_run_where_it_is_asked_for_or_a_fleet_shares_the_backend() -> None:
    for settings, options, wanted in [
        ({}, {}, "PENDING"),
        ({}, {"track_started": True}, "STARTED"),
        ({"track_started": True}, {}, "STARTED"),
        ({"celery_serves_others": True}, {}, "STARTED"),
        ({"celery_serves_others": True}, {"ignore_result": True}, "PENDING"),
    ]:
        bench, seen = Bench(**settings), []
        bench.task(name="look", **options)(lambda bench=bench, seen=seen: seen.append(bench.state()))
        bench.put_task(task="look", reply_to="a-celery-thread")

        assert bench.work() == [Ack()]
        assert seen == [wanted], (settings, options)


@pytest.mark.parametrize(
    "settings, option, header, stored",
    [
        ({}, None, None, True),
        ({}, True, None, False),
        ({}, True, False, True),
        ({}, None, True, False),
        ({"task_ignore_result": True}, None, None, False),
        ({"task_ignore_result": True}, False, None, True),
    ],
)
def test_the_header_then_the_task_then_the_settings_say_whether_a_result_is_kept(
    settings: dict[str, Any], option: bool | None, header: bool | None, stored: bool
) -> None:
    bench = Bench(**settings)
    bench.task(name="t", ignore_result=option)(lambda: 1)
    bench.put_task(task="t", ignore_result=header)

    assert bench.work() == [Ack()]
    assert (bench.document() is not None) is stored


def test_a_stored_success_is_not_overwritten_by_a_second_run(bench: Bench) -> None:
    bench.put_task(task="add", args=(1, 2))
    bench.put_task(task="fail")

    assert bench.work() == [Ack(), Ack()]
    assert bench.state() == "SUCCESS"


@pytest.mark.parametrize("result", [object(), "x" * 2000], ids=["no JSON", "too large"])
def test_a_result_that_cannot_be_kept_is_a_failure_that_says_so(result: object) -> None:
    bench = Bench(result_max_bytes=1000)
    bench.task(name="t")(lambda: result)
    bench.put_task(task="t")

    bench.work()

    document = bench.document()
    assert document is not None
    assert document.status == "FAILURE"
    assert document.result["exc_type"] == "EncodeError"
    assert document.result["exc_module"] == "kombu.exceptions"


def test_a_result_that_the_backend_does_not_take_parks_the_message(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def lost(*_: Any, **__: Any) -> None:
        tries.append(1)
        raise ConnectionLost("gone")

    monkeypatch.setattr("lightbus.compat.recording.RETRY_PAUSES_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(bench.kept, "store", lost)
    bench.put_task(task="add", args=(1, 2))

    (outcome,) = bench.work()

    assert isinstance(outcome, DeadLetter)
    assert outcome.reason == "result-lost"
    assert len(tries) == 3
    assert bench.next_message(DEAD).args == (1, 2)


# What a task raises to steer its worker


def test_ignore_writes_no_state(bench: Bench) -> None:
    @bench.task(name="t")
    def t() -> None:
        raise Ignore

    bench.put_task(task="t")

    assert bench.work() == [Ack()]
    assert bench.state() == "PENDING"


def test_reject_parks_the_message_and_tells_the_caller(bench: Bench) -> None:
    @bench.task(name="t", acks_late=True)
    def t() -> None:
        raise Reject("not today")

    bench.put_task(task="t")

    assert bench.work() == [DeadLetter("rejected", "not today")]
    assert bench.state() == "FAILURE"


@pytest.mark.parametrize(
    "late, outcome", [(True, Requeue()), (False, Forward(Route("", "lightbus.celery")))], ids=["late", "early"]
)
@pytest.mark.parametrize("error", [Reject("again", requeue=True), KeyboardInterrupt()])
def test_a_rejected_or_interrupted_task_goes_back_to_its_queue(
    bench: Bench, late: bool, outcome: Any, error: BaseException
) -> None:
    @bench.task(name="t", acks_late=late)
    def t() -> None:
        raise error

    bench.put_task(task="t")

    assert bench.work() == [outcome]
    assert bench.transport.message_count("lightbus.celery") == 1
    assert bench.state() == "PENDING"


def test_a_task_that_exits_is_a_lost_worker_to_its_caller(bench: Bench) -> None:
    @bench.task(name="t")
    def t() -> None:
        raise SystemExit(3)

    bench.put_task(task="t")

    assert bench.work() == [Ack()]
    with pytest.raises(WorkerLostError, match=r"sys.exit\(3\)"):
        bench.app.AsyncResult("task-1").get(timeout=1)


def test_expected_errors_are_failures_all_the_same(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.task(name="t", throws=(ZeroDivisionError,))(lambda: 1 / 0)
    bench.put_task(task="t")

    assert bench.work() == [Ack()]
    assert bench.state() == "FAILURE"
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


# Retries


def test_a_retry_is_the_same_message_with_one_try_more_later_on_the_same_queue(bench: Bench) -> None:
    @bench.task(name="t", bind=True)
    def t(self: Any, x: int) -> None:
        raise self.retry(exc=ValueError("busy"), countdown=30)

    sent = {
        "task": "t", "args": (1,), "retries": 1, "root_id": "root", "parent_id": "parent", "priority": 4,
        "headers": {"tenant": "a"}, "callbacks": (sig("add", 1),), "errbacks": (sig("add"),), "chain": (sig("fail"),),
        "shadow": "alias", "timelimit": (9.0, 8.0), "stamped_headers": ("who",), "stamps": {"who": "me"},
        "group": "g", "group_index": 2, "origin": "gen1@here", "reply_to": "replies", "ignore_result": False,
    }  # fmt: skip
    bench.put_task("lightbus.high", **sent)
    bench.published.clear()

    assert bench.work("lightbus.high") == [Ack()]

    ((route, again, delay),) = bench.published
    assert route == Route("", "lightbus.high")
    assert delay == pytest.approx(30, abs=5)
    assert again.eta is not None
    assert again.retries == 2
    assert {key: getattr(again, key) for key in sent if key != "retries"} == {
        key: value for key, value in sent.items() if key != "retries"
    }
    document = bench.document()
    assert document is not None
    assert document.status == "RETRY"
    assert isinstance(document.exception, ValueError)


def test_a_retry_without_a_delay_runs_until_the_tries_are_used_up(bench: Bench) -> None:
    runs = []

    @bench.task(name="t", bind=True, max_retries=2)
    def t(self: Any) -> None:
        runs.append(self.request.retries)
        raise self.retry(countdown=0)

    bench.put_task(task="t")

    bench.work()

    assert runs == [0, 1, 2]
    document = bench.document()
    assert document is not None
    assert document.result["exc_type"] == "MaxRetriesExceededError"


def test_the_last_try_raises_the_error_that_retry_was_given(bench: Bench) -> None:
    @bench.task(name="t", bind=True, max_retries=0)
    def t(self: Any) -> None:
        raise self.retry(exc=OSError("down"))

    bench.put_task(task="t")
    bench.work()

    assert isinstance(bench.app.AsyncResult("task-1").result, OSError)


def test_a_retry_without_countdown_waits_for_the_default(bench: Bench) -> None:
    @bench.task(name="t", bind=True, default_retry_delay=77)
    def t(self: Any) -> None:
        raise self.retry()

    bench.put_task(task="t")
    bench.work()

    assert bench.published[-1][2] == pytest.approx(77, abs=5)


def test_a_retry_that_cannot_be_sent_parks_the_message(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    @bench.task(name="t", bind=True)
    def t(self: Any) -> None:
        monkeypatch.setattr(bench.app, "publish_to", _refuse)
        try:
            raise self.retry()
        finally:
            monkeypatch.undo()

    bench.put_task(task="t")

    (outcome,) = bench.work()

    assert isinstance(outcome, DeadLetter)
    assert outcome.reason == "rejected"


def _refuse(*_: Any, **__: Any) -> None:
    raise ConnectionLost("gone")


def test_a_task_that_returns_after_a_retry_it_did_not_raise_has_succeeded(bench: Bench) -> None:
    @bench.task(name="t", bind=True)
    def t(self: Any) -> str:
        assert isinstance(self.retry(throw=False, countdown=3600), Retry)
        return "done"

    bench.put_task(task="t")

    assert bench.work() == [Ack()]
    assert (bench.state(), bench.published[-1][1].retries) == ("SUCCESS", 1)


# What follows a task


def test_callbacks_and_the_next_step_get_the_result_and_leave_before_it_is_stored(bench: Bench) -> None:
    states = []
    bench.task(name="note")(lambda *args: states.append((args, bench.state())))
    publish = bench.app.transport.publish
    stored_at_publish = []
    bench.app.transport.publish = lambda *a, **k: (stored_at_publish.append(bench.state()), publish(*a, **k))[1]  # type: ignore
    bench.put_task(
        task="add", args=(1, 2), root_id="root", priority=5,
        callbacks=(sig("note", "partial", task_id="cb"),),
        chain=(sig("add", 100, task_id="s3"), sig("add", 10, task_id="s2")),
    )  # fmt: skip
    bench.published.clear()

    bench.work()

    assert stored_at_publish[:2] == ["PENDING", "PENDING"]
    callback, step = (message for _, message, _ in bench.published[:2])
    assert (callback.id, callback.args, callback.parent_id, callback.root_id) == (
        "cb",
        (3, "partial"),
        "task-1",
        "root",
    )
    assert (step.id, step.args, step.parent_id) == ("s2", (3, 10), "task-1")
    assert [one["options"]["task_id"] for one in step.chain or ()] == ["s3"]
    assert bench.app.AsyncResult("s3").get(timeout=1) == 113
    document = bench.document()
    assert document is not None
    assert list(document.children) == [[["cb", None], None], [["s2", None], None]]


def test_an_immutable_callback_gets_its_own_arguments_only_and_several_are_a_group(bench: Bench) -> None:
    bench.put_task(task="add", args=(1, 2), callbacks=(sig("add", 5, 6, immutable=True), sig("add", 7)))
    bench.published.clear()

    bench.work()

    first, second = (message for _, message, _ in bench.published)
    assert (first.args, second.args) == ((5, 6), (3, 7))
    assert first.group == second.group is not None
    assert (first.group_index, second.group_index) == (0, 1)


def test_a_callback_that_celery_serves_goes_to_celerys_queue(bench: Bench) -> None:
    bench.put_task(task="add", args=(1, 2), callbacks=(sig("old.notify", queue="mail"),))
    bench.published.clear()

    bench.work()

    ((route, message, _),) = bench.published
    assert (route, message.task, message.args) == (Route("", "mail"), "old.notify", (3,))


def test_errbacks_get_the_id_and_the_rest_of_the_chain_fails_too(bench: Bench) -> None:
    bench.put_task(
        task="fail", errbacks=(sig("old.oops", "x", task_id="eb"),),
        chain=(
            sig("celery.chord") | {"subtask_type": "chord", "kwargs": {"header": [], "body": sig("b", task_id="body")}},
            sig("add", 1, task_id="s2"),
        ),
    )  # fmt: skip
    bench.published.clear()

    bench.work()

    ((route, message, _),) = bench.published
    assert (route.routing_key, message.args, message.parent_id) == ("celery", ("task-1", "x"), "task-1")
    assert [bench.state(one) for one in ("task-1", "s2", "body")] == ["FAILURE"] * 3


def test_callbacks_that_cannot_be_sent_park_the_message_and_fail_the_result(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put_task(task="add", args=(1, 2), callbacks=(sig("add", 1),))
    monkeypatch.setattr(bench.app, "outgoing", _refuse)

    (outcome,) = bench.work()

    assert isinstance(outcome, DeadLetter)
    assert (outcome.reason, bench.state()) == ("unsent-callbacks", "FAILURE")


@pytest.mark.parametrize("taken", [True, False])
def test_the_result_is_stored_while_the_broker_takes_the_next_step_which_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    bench.put_task(task="add", args=(1, 2), chain=(sig("add", 1, task_id="s2"),))
    endpoint, published = bench.endpoint(), Future[None]()
    store = bench.app.results.store

    def store_and_hear(document: ResultDocument, **options: Any) -> None:
        store(document, **options)
        if document.status == "SUCCESS":
            assert not published.done()
            published.set_result(None) if taken else published.set_exception(NotConfirmed("no"))

    monkeypatch.setattr(bench.app.results, "store", store_and_hear)
    monkeypatch.setattr(bench.app.transport, "publish", lambda *args, **options: published)
    delivery = bench.transport.get("lightbus.celery")
    assert delivery is not None

    outcome = handle(endpoint, delivery)

    assert bench.state() == "SUCCESS"
    if taken:
        assert outcome == Ack()
    else:
        assert isinstance(outcome, DeadLetter)
        assert (outcome.reason, bench.state("s2")) == ("unsent-callbacks", "FAILURE")


@pytest.mark.parametrize(
    "fields, word",
    [
        ({"chain": ({**sig("celery.group"), "subtask_type": "group"},)}, "group"),
        ({"callbacks": ({**sig("celery.chain"), "subtask_type": "chain"},)}, "chain"),
        ({"errbacks": ({**sig("celery.chain"), "subtask_type": "chain"},)}, "chain"),
        ({"chord": {**sig("x"), "subtask_type": "nonesuch"}}, "nonesuch"),
        ({"chord": {**sig("x"), "subtask_type": "nonesuch"}, "group": "g", "group_index": 0}, "nonesuch"),
        ({"chain": (sig("add", 1), {**sig("x"), "subtask_type": "group", "kwargs": {"tasks": [{"task": 5}]}})}, "text"),
        ({"callbacks": (sig("add", 1, serializer="nonesuch"),)}, "nonesuch"),
    ],
)
def test_a_canvas_that_this_side_cannot_carry_on_is_parked_before_its_task_runs(
    bench: Bench, fields: dict[str, Any], word: str
) -> None:
    ran = []
    bench.task(name="t")(lambda: ran.append(1))
    bench.put_task(task="t", **fields)

    (outcome,) = bench.work()

    assert isinstance(outcome, DeadLetter)
    assert outcome.reason == "unsupported"
    assert word in outcome.error
    assert ran == []
    assert bench.state() == "FAILURE"
    assert bench.transport.message_count(DEAD) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"chord": CHORD},
        {"chord": CHORD, "group": "g", "group_index": 0},
        {"chain": (sig("add", 1, chord=CHORD), sig("add", 1))},
    ],
)
def test_a_member_of_a_chord_does_not_run_where_nobody_can_count_it(bench: Bench, fields: dict[str, Any]) -> None:
    ran = []
    bench.task(name="t")(lambda: ran.append(1))
    bench.app._result_backend = None
    bench.put_task(task="t", **fields)

    (outcome,) = bench.work()

    assert isinstance(outcome, DeadLetter)
    assert outcome.reason == "unsupported"
    assert "cannot count" in outcome.error
    assert ran == []


# What is done inside a task


def test_a_task_may_store_states_of_its_own(bench: Bench) -> None:
    seen = []

    @bench.task(name="t", bind=True)
    def t(self: Any) -> None:
        self.update_state(state="PROGRESS", meta={"done": 5})
        seen.append((bench.app.AsyncResult("task-1").state, bench.app.AsyncResult("task-1").info))

    bench.put_task(task="t")

    assert bench.work() == [Ack()]
    assert seen == [("PROGRESS", {"done": 5})]
    with pytest.raises(ValueError, match="task_id"):
        t.update_state(state="PROGRESS")


def test_what_a_task_sends_has_it_as_parent_and_is_its_child(bench: Bench) -> None:
    @bench.task(name="parent", bind=True)
    def parent(self: Any) -> None:
        assert current_task() is self
        bench.app.tasks["add"].apply_async((1, 2), task_id="child")

    bench.put_task(task="parent", root_id="root")
    bench.work()

    child = next(message for _, message, _ in bench.published if message.id == "child")
    assert (child.parent_id, child.root_id) == ("task-1", "root")
    document = bench.document()
    assert document is not None
    assert list(document.children) == [[["child", None], None]]
    assert current_task() is None


def test_waiting_for_a_task_inside_a_task_is_refused(bench: Bench) -> None:
    @bench.task(name="parent")
    def parent() -> None:
        bench.app.tasks["add"].delay(1, 2).get(timeout=1)

    bench.put_task(task="parent")
    bench.work()

    assert isinstance(bench.app.AsyncResult("task-1").result, RuntimeError)


# Messages that do not run


def test_an_expired_task_is_revoked(bench: Bench) -> None:
    bench.put_task(task="add", args=(1, 2), expires=at(-5))

    assert bench.work() == [Ack()]
    assert isinstance(bench.app.AsyncResult("task-1").result, TaskRevokedError)
    assert bench.state() == "REVOKED"


def test_a_task_that_comes_before_its_eta_is_put_back_for_the_rest_of_the_time(bench: Bench) -> None:
    bench.put_task(task="add", args=(1, 2), eta=at(60), expiration_seconds=5)

    (outcome,) = bench.work()

    assert isinstance(outcome, Forward)
    assert outcome.route == Route("", "lightbus.celery")
    assert outcome.delay_seconds == pytest.approx(60, abs=5)
    assert outcome.wire is not None
    assert outcome.wire.expiration_seconds is None


def test_arguments_that_do_not_fit_park_the_message_and_fail_the_result(bench: Bench) -> None:
    bench.put_task(task="add", args=(1,))

    (outcome,) = bench.work()

    assert isinstance(outcome, DeadLetter)
    assert outcome.reason == "bad-arguments"
    assert "'y'" in outcome.error
    assert isinstance(bench.app.AsyncResult("task-1").result, TypeError)


def test_an_unknown_task_is_parked_and_its_caller_told(bench: Bench) -> None:
    bench.put_task(task="ad", args=(1, 2))

    (outcome,) = bench.work()

    assert outcome == DeadLetter("unknown-name", "no handler for 'ad': did you mean 'add'?")
    document = bench.document()
    assert document is not None
    assert document.result["exc_type"] == "NotRegistered"


def test_an_unknown_task_goes_to_celery_untouched_but_for_its_mark() -> None:
    bench = Bench(celery_serves_others=True)
    pickled = Wire(
        body=b"\x80\x04pickle", content_type="application/x-python-serialize", content_encoding="binary",
        headers={"task": "old", "id": "1", "mine": "x"}, reply_to="r",
    )  # fmt: skip
    bench.put(pickled, "lightbus.mail")

    (outcome,) = bench.work("lightbus.mail")

    assert isinstance(outcome, Forward)
    delivery = bench.transport.get("mail")
    assert delivery is not None
    assert (delivery.wire.body, delivery.wire.content_type) == (pickled.body, pickled.content_type)
    assert delivery.wire.headers == {
        **pickled.headers, "x-lightbus-hops": 1, "x-lightbus-from": "lightbus@bench",
    }  # fmt: skip


def test_an_unknown_task_waits_while_celerys_queue_cannot_be_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(celery_serves_others=True)
    bench.put_task(task="old")
    monkeypatch.setattr(bench.app, "declare_for_celery", _refuse)

    assert bench.work() == [Requeue()]
    assert bench.transport.message_count("lightbus.celery") == 1


def test_a_task_that_nobody_knows_is_parked_after_three_hops() -> None:
    bench = Bench(celery_serves_others=True)
    message = encode_task(TaskMessage(task="old", id="task-1"))
    bench.put(Wire(body=message.body, headers={**message.headers, "x-lightbus-hops": 3}))

    (outcome,) = bench.work()

    assert isinstance(outcome, DeadLetter)
    assert (outcome.reason, bench.state()) == ("unknown-name", "FAILURE")


def test_a_message_that_is_no_task_is_parked(bench: Bench) -> None:
    bench.put(Wire(body=b"{}"))

    (outcome,) = bench.work()

    assert isinstance(outcome, DeadLetter)
    assert outcome.reason == "undecodable"


def test_the_caller_of_a_message_that_cannot_be_read_is_told(bench: Bench) -> None:
    bench.put(Wire(body=b"[1]", headers={"task": "add", "id": "task-1"}))

    (outcome,) = bench.work()

    assert isinstance(outcome, DeadLetter)
    assert (outcome.reason, bench.state()) == ("undecodable", "FAILURE")


# Queues


def test_it_serves_the_default_queue_those_that_celery_knows_and_those_of_its_tasks() -> None:
    bench = Bench(
        default_queue="main",
        celery_queues=(CeleryQueue(name="mail", arguments={"x-max-priority": 9, "x-queue-mode": "lazy"}),),
    )
    bench.task(name="t", queue="high")(lambda: None)

    endpoint = bench.endpoint()

    assert list(endpoint.queues()) == ["lightbus.main", "lightbus.mail", "lightbus.high"]
    mail = next(queue for queue in endpoint.topology().queues if queue.name == "lightbus.mail")
    assert (mail.max_priority, mail.arguments) == (9, {"x-queue-mode": "lazy"})


def test_a_worker_with_an_unsupported_result_backend_does_not_start() -> None:
    app = TaskApp(Settings(result_backend="db+nosuch:///x"), transport=Bench().transport)

    with pytest.raises(ConfigError):
        TaskEndpoint(app).topology()


def test_a_celery_queue_served_by_name_is_declared_as_celery_declares_it() -> None:
    bench = Bench(celery_queues=(CeleryQueue(name="mail", exchange="post", exchange_type="topic", routing_key="m.#"),))

    endpoint = bench.endpoint("mail")

    assert list(endpoint.queues()) == ["mail"]
    assert endpoint.topology().exchanges == (Exchange("post", "topic"),)
    assert endpoint.topology().bindings == (Binding("post", "m.#", "mail"),)


def test_the_request_has_every_field_of_the_message(bench: Bench) -> None:
    seen: dict[str, Any] = {}

    @bench.task(name="t", bind=True)
    def t(self: Any, x: int, y: int = 0) -> None:
        seen.update({key: self.request.get(key) for key in FIELDS.split()})
        seen["tenant"] = self.request.tenant

    expires = at(600)
    bench.put_task(
        task="t", args=(1,), kwargs={"y": 2}, retries=1, root_id="r", parent_id="p", group="g", group_index=4,
        eta=at(-1), expires=expires, timelimit=(9.0, 8.0), shadow="s", origin="o", argsrepr="(1,)", kwargsrepr="{}",
        ignore_result=False, replaced_task_nesting=2, stamped_headers=("who",), stamps={"who": "me"},
        headers={"tenant": "a", "id2": 1}, reply_to="q", correlation_id="c", priority=3, properties={"app_id": "shop"},
    )  # fmt: skip

    assert bench.work() == [Ack()]

    assert seen["delivery_info"] == {
        "exchange": "", "routing_key": "lightbus.celery", "priority": 3, "redelivered": False,
    }  # fmt: skip
    assert seen["properties"]["app_id"] == "shop"
    assert (seen["headers"], seen["tenant"]) == ({"tenant": "a", "id2": 1}, "a")
    assert (seen["timelimit"], seen["time_limit"], seen["soft_time_limit"]) == ([9.0, 8.0], 9.0, 8.0)
    assert (seen["expires"], seen["hostname"]) == (expires, "lightbus@bench")
    wanted = {
        "id": "task-1", "task": "t", "args": [1], "kwargs": {"y": 2}, "retries": 1, "is_eager": False,
        "called_directly": False, "correlation_id": "c", "reply_to": "q", "group": "g", "group_index": 4, "chord": None,
        "chain": None, "callbacks": None, "errbacks": None, "root_id": "r", "parent_id": "p", "origin": "o",
        "utc": None,
        "stamped_headers": ["who"], "stamps": {"who": "me"}, "shadow": "s", "children": [], "ignore_result": False,
        "replaced_task_nesting": 2, "logfile": None, "loglevel": None, "argsrepr": "(1,)", "kwargsrepr": "{}",
        "lang": "py",
    }  # fmt: skip
    assert {key: seen[key] for key in wanted} == wanted


#: What Celery documents of `self.request` (celery/app/task.py, Context).
FIELDS = """
id task args kwargs retries is_eager called_directly hostname delivery_info properties correlation_id reply_to eta
expires group group_index chord chain callbacks errbacks root_id parent_id origin utc timelimit time_limit
soft_time_limit headers stamped_headers stamps shadow children ignore_result replaced_task_nesting logfile loglevel
argsrepr kwargsrepr lang
"""


@pytest.mark.parametrize("accept", [("json", "pickle"), ("json", "application/x-python-serialize"), ("json", "yaml")])
def test_pickle_is_warned_of_once_per_app(accept: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    apps = [Bench(accept_content=accept).app for _ in range(2)]
    with caplog.at_level("WARNING", "lightbus"):
        for app in apps:
            for endpoint in (TaskEndpoint(app), TaskEndpoint(app)):
                endpoint.topology()
                endpoint.topology()

    warned = [record for record in caplog.records if "lets pickle in" in record.message]
    assert len(warned) == (0 if "yaml" in accept else len(apps))


def test_a_serializer_that_is_not_there_stops_the_worker() -> None:
    for setting in ("task_serializer", "event_serializer"):
        with pytest.raises(ConfigError, match=f"{setting}: serializer 'nonesuch'"):
            TaskEndpoint(Bench(**{setting: "nonesuch"}).app).topology()
