from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock

import pytest

import lightbus.compat
from lightbus.compat import (
    AsyncResult,
    EagerResult,
    Ignore,
    MaxRetriesExceededError,
    Settings,
    Task,
    TaskApp,
    TimeoutError,
    shared_task,
    states,
    task,
)
from lightbus.compat.decorators import task_name
from lightbus.compat.results import ResultDocument, encode_result
from lightbus.compat.settings import CeleryQueue
from lightbus.core.errors import ConfigError, DeclarationError
from lightbus.core.message import Route
from lightbus.core.topology import Binding, Exchange
from tests.compat.bench import Bench


@pytest.fixture
def bench() -> Bench:
    bench = Bench()

    @bench.task(name="add")
    def add(x: int, y: int = 0) -> int:
        return x + y

    return bench


def added(bench: Bench) -> Task:
    return bench.app.tasks["add"]


# The decorator


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> TaskApp:
    """A process's app without the tasks of other tests."""
    app = TaskApp()
    monkeypatch.setattr("lightbus.compat.app._default", app)
    return app


def test_a_bare_and_a_called_decorator_register_a_task_under_its_module_and_name(fresh: TaskApp) -> None:
    @task
    def one() -> None: ...

    @shared_task(bind=True, lock_ttl=5)
    def two(self: Any) -> Any:
        return self

    assert sorted(fresh.tasks) == [f"{__name__}.one", f"{__name__}.two"]
    assert isinstance(one, Task)
    assert two.lock_ttl == 5
    assert two() is two
    assert lightbus.compat.default_app() is fresh


def test_an_explicit_name_is_kept_and_a_second_registration_keeps_the_first(fresh: TaskApp) -> None:
    @task(name="n")
    def first() -> int:
        return 1

    @task(name="n")
    def second() -> int:
        return 2

    assert second is first
    assert fresh.tasks["n"]() == 1


@pytest.mark.parametrize("main, name", [(None, "__main__.f"), ("proj", "proj.f")])
def test_a_task_of_the_main_module_is_named_as_celery_names_it(main: str | None, name: str) -> None:
    from celery import Celery

    assert task_name("f", "__main__", main) == name
    assert Celery(main).gen_task_name("f", "__main__") == name
    assert task_name("f", "pkg.mod", main) == Celery(main).gen_task_name("f", "pkg.mod") == "pkg.mod.f"


@pytest.mark.parametrize("wrong", [{"compression": "arc"}, {"base": object}])
def test_an_option_that_cannot_be_honoured_is_refused_where_it_is_declared(fresh: TaskApp, wrong: Any) -> None:
    with pytest.raises(DeclarationError, match="task"):
        task(**wrong)(lambda: None)


def test_a_base_class_lends_its_attributes_and_methods(fresh: TaskApp) -> None:
    class Base(Task):
        max_retries = 9

        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            return "mine"

    made = task(base=Base)(lambda: None)

    assert (made.max_retries, made.delay()) == (9, "mine")


def test_defaults_are_celerys() -> None:
    from celery import Task as CeleryTask

    for name in ("max_retries", "default_retry_delay", "throws", "trail"):
        assert getattr(Task, name) == getattr(CeleryTask, name), name


# Calling


def test_calling_a_task_runs_its_function(bench: Bench) -> None:
    assert added(bench)(1, 2) == 3
    assert added(bench).request.called_directly is True
    assert bench.published == []


def test_retry_in_a_plain_call_raises_the_error_it_was_given(bench: Bench) -> None:
    @bench.task(name="t", bind=True)
    def t(self: Any) -> None:
        try:
            raise OSError("first")
        except OSError as error:
            raise self.retry(exc=error) from error

    with pytest.raises(OSError, match="first"):
        t()
    assert bench.published == []


# Sending


def test_delay_goes_through_apply_async_by_attribute(bench: Bench) -> None:
    with mock.patch.object(added(bench), "apply_async") as patched:
        added(bench).delay(1, y=2)

    patched.assert_called_once_with((1,), {"y": 2})


def test_a_call_that_does_not_fit_fails_at_the_caller(bench: Bench) -> None:
    with pytest.raises(TypeError, match=r"add\(\) missing a required argument: 'x'"):
        added(bench).delay()
    with pytest.raises(TypeError, match="unexpected"):
        added(bench).delay(1, z=3)
    assert bench.published == []


def test_typing_false_leaves_the_check_to_the_worker(bench: Bench) -> None:
    bench.task(name="loose", typing=False)(lambda x: x).delay()

    (outcome,) = bench.work()

    assert bench.state(bench.published[0][1].id) == "FAILURE"
    assert not hasattr(outcome, "reason")


def test_options_of_a_call_are_on_the_message(bench: Bench) -> None:
    result = added(bench).apply_async(
        (1,), {"y": 2}, task_id="i", priority=3, headers={"tenant": "a"}, shadow="s", retries=1, ignore_result=True,
        time_limit=9, soft_time_limit=8, root_id="r", parent_id="p", reply_to="q", expires=600, app_id="shop",
        link={"task": "a"}, link_error=[{"task": "b"}], queue="high", group_id="g", group_index=1,
    )  # fmt: skip

    ((route, message, delay),) = bench.published
    assert result.id == "i"
    assert (route, delay) == (Route("", "lightbus.high"), 0)
    assert (message.args, message.kwargs, message.priority, message.shadow) == ((1,), {"y": 2}, 3, "s")
    assert (message.headers, message.properties) == ({"tenant": "a"}, {"app_id": "shop"})
    assert (message.retries, message.ignore_result, message.timelimit) == (1, True, (9, 8))
    assert (message.root_id, message.parent_id, message.reply_to) == ("r", "p", "q")
    assert (message.callbacks, message.errbacks) == (({"task": "a"},), ({"task": "b"},))
    assert (message.group, message.group_index) == ("g", 1)
    assert message.expires is not None
    assert message.expiration_seconds == pytest.approx(600, abs=5)
    assert (message.argsrepr, message.kwargsrepr, message.correlation_id) == ("(1,)", "{'y': 2}", "i")


def test_a_countdown_is_an_eta_and_a_delay_in_the_broker(bench: Bench) -> None:
    added(bench).apply_async((1,), countdown=60, expires=120)

    ((_, message, delay),) = bench.published
    assert message.eta is not None
    eta = datetime.fromisoformat(message.eta)
    assert eta - datetime.now(timezone.utc) == pytest.approx(timedelta(seconds=60), abs=timedelta(seconds=5))
    assert delay == pytest.approx(60, abs=5)
    assert message.expiration_seconds is None  # it would run off while the message waits


def test_the_broker_may_drop_an_expired_message_only_where_nobody_waits_for_its_result(bench: Bench) -> None:
    added(bench).apply_async((1,), expires=60)
    added(bench).apply_async((1,), expires=60, ignore_result=True)

    assert bench.published[0][1].expiration_seconds is None
    assert bench.published[1][1].expiration_seconds == pytest.approx(60, abs=5)


def test_an_eta_without_an_offset_is_in_the_apps_zone() -> None:
    bench = Bench(timezone="Asia/Tokyo")
    bench.task(name="t")(lambda: None)
    local = (datetime.now(timezone.utc) + timedelta(hours=9, seconds=60)).replace(tzinfo=None)

    bench.app.tasks["t"].apply_async(eta=local)

    assert bench.published[0][1].eta == local.isoformat()
    assert bench.published[0][2] == pytest.approx(60, abs=5)


def test_attributes_of_the_task_and_settings_are_defaults_of_its_messages() -> None:
    bench = Bench(time_limit=20.0, default_priority=2)
    slow = bench.task(name="t", queue="slow", priority=7, expires=60, soft_time_limit=5)(lambda: None)

    slow.delay()
    slow.apply_async(queue="quick", priority=1)
    bench.task(name="u")(lambda: None).delay()

    (first, one, _), (second, two, _), (third, three, _) = bench.published
    assert (first.routing_key, one.priority, one.timelimit) == ("lightbus.slow", 7, (20.0, 5))
    assert one.expires is not None
    assert (second.routing_key, two.priority) == ("lightbus.quick", 1)
    assert (third.routing_key, three.priority) == ("lightbus.celery", 2)


@pytest.mark.parametrize(
    "options, error",
    [
        ({"serializer": "nonesuch"}, ValueError),
        ({"router": object()}, TypeError),
        ({"eta": "soon"}, ValueError),
        ({"countdown": "1"}, ValueError),
        ({"link": "add"}, TypeError),
        ({"expires": object()}, TypeError),
    ],
)
def test_an_option_that_cannot_be_honoured_fails_at_the_caller(bench: Bench, options: Any, error: type) -> None:
    with pytest.raises(error):
        added(bench).apply_async((1,), **options)
    assert bench.published == []


def test_an_argument_without_a_json_form_fails_at_the_caller(bench: Bench) -> None:
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        added(bench).delay(object())


def test_a_soft_limit_above_the_hard_one_is_refused(bench: Bench) -> None:
    with pytest.raises(ValueError, match="soft_time_limit"):
        bench.task(name="t", time_limit=1, soft_time_limit=2)(lambda: None).delay()


# Where messages go


def test_a_task_that_celery_serves_goes_to_celerys_queue_as_celery_declares_it(monkeypatch: Any) -> None:
    bench = Bench(
        celery_queues=(CeleryQueue(name="mail", exchange="post", exchange_type="topic", routing_key="m.new"),),
        queue_of=lambda name, options: "mail" if name.startswith("mail.") else "",
    )
    declared = []
    declare = bench.transport.declare
    monkeypatch.setattr(bench.transport, "declare", lambda topology: (declared.append(topology), declare(topology)))

    bench.app.send_task("mail.send", (1,), countdown=30)
    bench.app.send_task("other")
    bench.app.send_task("other")

    (mail, message, delay), (other, _, _), _ = bench.published
    assert (mail, delay) == (Route("post", "m.new"), 0)
    assert message.eta is not None
    assert other == Route("", "celery")
    assert declared[0].exchanges == (Exchange("post", "topic"),)
    assert declared[1].bindings == (Binding("celery", "celery", "celery"),)
    assert len(declared) == 2


def test_a_moved_task_goes_to_lightbus_also_where_its_function_is_not_known() -> None:
    bench = Bench(moved=frozenset({"far.away"}))

    bench.app.send_task("far.away", countdown=30)

    ((route, _, delay),) = bench.published
    assert route == Route("", "lightbus.celery")
    assert delay == pytest.approx(30, abs=5)


def test_an_exchange_and_routing_key_lead_to_the_queue_that_they_name() -> None:
    bench = Bench(celery_queues=(CeleryQueue(name="mail", exchange="post", routing_key="m"),))
    bench.task(name="mine")(lambda: None)

    bench.app.send_task("mine", exchange="post", routing_key="m")
    bench.app.send_task("old", exchange="post", routing_key="m.special")

    assert [route for route, _, _ in bench.published] == [Route("", "lightbus.mail"), Route("post", "m.special")]


# Results


def test_the_result_of_an_unknown_id_is_pending_and_get_gives_up_in_time(bench: Bench) -> None:
    result = bench.app.AsyncResult("nobody")

    assert (result.state, result.status, result.result, result.ready()) == ("PENDING", "PENDING", None, False)
    with pytest.raises(TimeoutError, match=r"'nobody' has no result after 0\.05 s"):
        result.get(timeout=0.05)


def test_get_brings_the_result_and_raises_the_tasks_exception(bench: Bench) -> None:
    bench.task(name="fail")(lambda: 1 / 0)
    good, bad = added(bench).delay(1, 2), bench.app.tasks["fail"].delay()

    bench.work()

    assert isinstance(good, AsyncResult)
    assert (good.get(timeout=1), good.successful(), good.failed()) == (3, True, False)
    with pytest.raises(ZeroDivisionError):
        bad.get(timeout=1)
    assert isinstance(bad.get(timeout=1, propagate=False), ZeroDivisionError)
    assert (bad.failed(), "ZeroDivisionError" in str(bad.traceback)) == (True, True)


def test_get_waits_for_a_result_that_comes_later(bench: Bench) -> None:
    result = added(bench).delay(1, 2)
    worker = threading.Thread(target=bench.work)

    worker.start()

    assert result.get(timeout=10) == 3
    worker.join()


def test_get_passes_over_states_that_are_not_final(bench: Bench) -> None:
    started = ResultDocument(task_id="i", status="PROGRESS", result={"done": 1})
    bench.kept.store("i", encode_result(started), expires_seconds=None)

    result = bench.app.AsyncResult("i")

    assert (result.state, result.info) == ("PROGRESS", {"done": 1})
    with pytest.raises(TimeoutError):
        result.get(timeout=0.05)


def test_forget_removes_the_result(bench: Bench) -> None:
    result = added(bench).delay(1, 2)
    bench.work()
    assert result.get(timeout=1) == 3

    result.forget()

    assert result.state == "PENDING"


def test_an_ignored_result_is_none_at_once(bench: Bench) -> None:
    assert added(bench).apply_async((1,), ignore_result=True).get() is None


def test_without_a_result_backend_asking_says_what_to_set() -> None:
    bench = Bench()
    app = TaskApp(Settings(), transport=bench.transport)
    app.task(name="t")(lambda: None)

    result = app.tasks["t"].delay()

    with pytest.raises(ConfigError, match="result_backend"):
        result.get(timeout=1)


def test_an_unsupported_result_backend_is_named() -> None:
    app = TaskApp(Settings(result_backend="db+nosuch://u:secret@host/db"), transport=Bench().transport)

    with pytest.raises(ConfigError) as caught:
        app.AsyncResult("i").get(timeout=1)

    assert "secret" not in str(caught.value)


def test_results_by_reply_reach_the_process_that_sent_the_task() -> None:
    bench = Bench()
    bench.app = TaskApp(Settings(result_backend="rpc://", track_started=True), transport=bench.transport)
    bench.task(name="add")(lambda x, y: x + y)
    bench.task(name="fail")(lambda: 1 / 0)

    good, bad, other = added(bench).delay(1, 2), bench.app.tasks["fail"].delay(), bench.app.AsyncResult("other")
    assert good.state == "PENDING"
    bench.work()

    assert good.get(timeout=10) == 3
    with pytest.raises(ZeroDivisionError):
        bad.get(timeout=10)
    assert other.state == "PENDING"
    assert bench.published[0][1].reply_to.startswith("lightbus.reply.celery-results.")
    bench.app.results.close()


# In the caller


def test_apply_runs_in_the_caller(bench: Bench) -> None:
    @bench.task(name="t", bind=True)
    def t(self: Any, x: int) -> Any:
        return [x, self.request.id, self.request.is_eager, self.request.called_directly, self.request.retries]

    result = t.apply((1,), task_id="i")

    assert isinstance(result, EagerResult)
    assert (result.get(), result.state, result.successful()) == ([1, "i", True, False, 0], "SUCCESS", True)
    assert bench.published == []


def test_apply_keeps_or_raises_the_exception(bench: Bench) -> None:
    fail = bench.task(name="fail")(lambda: 1 / 0)

    result = fail.apply()

    assert (result.state, result.failed()) == ("FAILURE", True)
    with pytest.raises(ZeroDivisionError):
        result.get()
    with pytest.raises(ZeroDivisionError):
        fail.apply(throw=True)


def test_an_eager_retry_runs_again_until_the_tries_are_used_up(bench: Bench) -> None:
    tries = []

    @bench.task(name="t", bind=True, max_retries=2)
    def t(self: Any) -> None:
        tries.append((self.request.id, self.request.retries))
        raise self.retry()

    result = t.apply(task_id="i")

    assert tries == [("i", 0), ("i", 1), ("i", 2)]
    assert isinstance(result.result, MaxRetriesExceededError)
    assert bench.published == []


def test_an_eager_task_may_ignore(bench: Bench) -> None:
    @bench.task(name="t")
    def t() -> None:
        raise Ignore

    assert t.apply().state == states.IGNORED
    assert t.apply(throw=True).state == states.IGNORED


def test_always_eager_runs_what_would_be_sent_with_what_a_worker_would_get() -> None:
    bench = Bench(always_eager=True)
    seen = []
    bench.task(name="note")(lambda *args: seen.append(args))
    echo = bench.task(name="echo")(lambda value: value)

    result = echo.apply_async(({"at": datetime(2026, 1, 1, tzinfo=timezone.utc), "t": (1, 2)},), link={"task": "note"})

    assert result.get() == {"at": datetime(2026, 1, 1, tzinfo=timezone.utc), "t": [1, 2]}
    assert seen == [(result.get(),)]
    assert bench.published == []
    with pytest.raises(ValueError, match="JSON"):
        echo.delay(object())


def test_always_eager_raises_where_the_settings_propagate() -> None:
    bench = Bench(always_eager=True, eager_propagates=True)
    with pytest.raises(ZeroDivisionError):
        bench.task(name="fail")(lambda: 1 / 0).delay()


# Settings


def test_settings_are_read_under_celerys_new_old_and_prefixed_names() -> None:
    new = {"broker_url": "redis://h/0", "task_acks_late": True, "result_expires": timedelta(hours=1)}
    old = {"BROKER_URL": "redis://h/0", "CELERY_ACKS_LATE": "yes", "CELERY_TASK_RESULT_EXPIRES": 3600}
    django = {"CELERY_BROKER_URL": "redis://h/0", "CELERY_TASK_ACKS_LATE": 1, "CELERY_RESULT_EXPIRES": "3600"}

    for given in (new, old, django):
        read = Settings.from_mapping({**given, "unrelated": object()})
        assert (read.broker_url, read.acks_late, read.result_expires_seconds) == ("redis://h/0", True, 3600.0)


def settings_that_celery_has() -> set[str]:
    """Lightbus's settings but for those that the installed Celery is too old for."""
    from celery.app.defaults import DEFAULTS

    from lightbus.compat.settings import _TABLE

    return _TABLE.keys() & DEFAULTS.keys()


def test_defaults_of_settings_are_celerys() -> None:
    from celery.app.defaults import DEFAULTS

    others = {"task_queues", "task_routes", "accept_content"}
    wanted = {key: DEFAULTS[key] for key in settings_that_celery_has() - others}

    assert Settings.from_mapping(wanted) == Settings()


@pytest.mark.parametrize(
    "wrong",
    [
        {"task_serializer": ["pickle"]},
        {"accept_content": []},
        {"task_acks_late": "perhaps"},
        {"result_expires": []},
        {"task_acks_late": True, "CELERY_ACKS_LATE": False},
        {"task_routes": "proj.routes"},
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_its_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_mapping(wrong)
    assert next(iter(wrong)) in str(caught.value)


def test_queues_and_routes_are_read_in_celerys_forms() -> None:
    from kombu import Exchange as KombuExchange
    from kombu import Queue as KombuQueue

    read = Settings.from_mapping(
        {
            "task_queues": [
                KombuQueue("mail", KombuExchange("post", "topic"), "m.#", queue_arguments={"x-max-priority": 5})
            ],
            "task_routes": ({"feeds.*": {"queue": "feeds"}, "feeds.one": "mail"}, ("video.*", {"queue": "video"})),
        }
    )

    assert read.celery_queue("mail") == CeleryQueue(
        name="mail", exchange="post", exchange_type="topic", routing_key="m.#", arguments={"x-max-priority": 5}
    )
    assert [read.route(name, {}) for name in ("feeds.two", "feeds.one", "video.cut", "other")] == [
        "feeds", "mail", "video", "celery",
    ]  # fmt: skip
    assert read.route("feeds.two", {"queue": "asked"}) == "asked"


def test_reconfiguring_opens_results_anew() -> None:
    app = TaskApp(Settings(), transport=Bench().transport)
    before = app.results

    app.configure(Settings(result_backend="rpc://"))

    assert app.results is not before
    app.close()


@pytest.mark.parametrize("option", [{"Strategy": "pkg:Strategy"}, {"Request": object}, {"compression": "zstd"}])
def test_an_option_that_would_be_a_silent_difference_is_refused(option: dict[str, Any]) -> None:
    app = TaskApp()
    with pytest.raises(DeclarationError, match=f"'t'.*{next(iter(option))}"):
        app.task(name="t", **option)(lambda: None)
    assert "t" not in app.tasks


def test_an_option_that_asks_for_nothing_is_no_reason_to_refuse() -> None:
    assert TaskApp().task(name="t", rate_limit=None, autoretry_for=())(lambda: 5)() == 5


@pytest.mark.parametrize(
    "function",
    [
        lambda: 0,
        lambda a: 0,
        lambda a, b=1: 0,
        lambda a, /, b=1, *rest: 0,
        lambda *rest, c=1: 0,
        lambda a, *, c: 0,
        lambda a=1, **named: 0,
    ],
    ids=["none", "one", "default", "more", "rest", "keyword", "named"],
)
def test_arguments_are_checked_as_python_checks_them(bench: Bench, function: Callable[..., int]) -> None:
    task = bench.task(name="checked")(function)

    for count in range(5):
        try:
            inspect.signature(function).bind(*range(count))
            fits = True
        except TypeError:
            fits = False
        if fits:
            task.check_arguments(list(range(count)), {})
        else:
            with pytest.raises(TypeError, match="checked"):
                task.check_arguments(list(range(count)), {})
