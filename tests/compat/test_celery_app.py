"""`lightbus.compat.Celery` beside Celery's own: the same project code under both."""

from __future__ import annotations

import bz2
import json
import logging
import lzma
import pickle
import sys
import types
import zlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import celery
import kombu
import pytest

import lightbus.compat as compat
from lightbus.cli import apps as discovery
from lightbus.compat import QueueNotFound, Settings, settingnames, states
from lightbus.compat.decorators import task_name
from lightbus.compat.log import TaskFormatter, get_task_logger
from lightbus.compat.protocol import decode_task
from lightbus.compat.settings import _TABLE, CeleryQueue
from lightbus.core.errors import ConfigError, DeclarationError
from lightbus.core.outcome import Ack
from tests.compat.bench import Bench
from tests.processes import wait_for


@pytest.fixture(autouse=True)
def no_app_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightbus.compat.app._default", None)
    for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "DJANGO_SETTINGS_MODULE"):
        monkeypatch.delenv(name, raising=False)


class BenchApp:
    """A compat app on a bench: broker and results in memory."""

    def __init__(self, **options: Any) -> None:
        self.bench = Bench()
        self.app = compat.Celery("proj", **options)
        self.app._transport, self.app._result_backend = self.bench.transport, self.bench.kept
        self.bench.app = self.app


def both(**options: Any) -> list[Any]:
    """The same app of Celery and of Lightbus."""
    return [celery.Celery("proj", set_as_current=False, **options), compat.Celery("proj", **options)]


# Configuration


CONFIGURATIONS = {
    "new": ({"broker_url": "redis://h/1", "task_acks_late": True, "own": 5}, None),
    "old": ({"BROKER_URL": "redis://h/1", "CELERY_ACKS_LATE": True, "CELERYD_PREFETCH_MULTIPLIER": 9}, None),
    "django": (
        {"CELERY_BROKER_URL": "redis://h/1", "CELERY_TASK_ACKS_LATE": True, "CELERY_OWN": 5, "TIME_ZONE": "Asia/Tokyo"},
        "CELERY",
    ),
    "lower": ({"proj_broker_url": "redis://h/1", "proj_task_acks_late": True}, "proj"),
    "one-twice": ({"result_expires": 5, "CELERY_TASK_RESULT_EXPIRES": 5, "task_acks_late": True}, None),
}
ASKED = (
    "broker_url", "broker_write_url", "task_acks_late", "timezone", "worker_prefetch_multiplier", "result_expires",
    "task_default_queue", "task_default_exchange", "task_default_routing_key", "result_backend", "imports",
)  # fmt: skip


@pytest.mark.parametrize("form", ["mapping", "class", "module", "path"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_reads_as_celerys(name: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values, namespace = CONFIGURATIONS[name]
    module = types.ModuleType("proj_configuration")
    vars(module).update(values)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    source = {"mapping": values, "class": type("C", (), dict(values)), "module": module, "path": module.__name__}[form]

    theirs, ours = both()
    for app in (theirs, ours):
        app.config_from_object(source, namespace=namespace)

    for setting in ASKED:
        assert getattr(ours.conf, setting) == getattr(theirs.conf, setting), setting
    assert ours.conf.get("own") == theirs.conf.get("own")
    assert ours.conf.get("absent", 7) == theirs.conf.get("absent", 7) == 7
    with pytest.raises(AttributeError):
        ours.conf.absent  # noqa: B018
    if name != "one-twice":
        assert ours.settings.broker_url == "redis://h/1"
    assert ours.settings.acks_late is True
    assert ours.settings.timezone == ("Asia/Tokyo" if name == "django" else None)


def test_a_configuration_is_read_at_its_first_use_and_code_wins_over_it() -> None:
    read: list[str] = []

    class Source:
        def __getattr__(self, name: str) -> Any:
            raise AttributeError(name)

        def __dir__(self) -> list[str]:
            read.append("read")
            return ["task_acks_late", "task_default_queue"]

        task_acks_late = True
        task_default_queue = "read"

    app = compat.Celery("proj", broker="memory://")
    app.config_from_object(Source())
    app.conf.task_default_queue = "told"
    app.conf.update(own=1, task_track_started=True)
    assert read == []

    assert (app.conf.task_default_queue, app.conf["own"], app.conf.broker_url) == ("told", 1, "memory://")
    assert read == ["read"]
    assert (app.settings.default_queue, app.settings.acks_late, app.settings.track_started) == ("told", True, True)
    app.conf.task_acks_late = False
    assert app.settings.acks_late is False
    assert read == ["read"]


@pytest.mark.parametrize(
    "values",
    [
        {"task_acks_late": True, "CELERYD_PREFETCH_MULTIPLIER": 1},
        {"BROKER_URL": "redis://h", "CELERY_ACKS_LATE": 1, "timezone": "UTC"},
    ],
)
def test_old_and_new_names_are_not_mixed(values: dict[str, Any]) -> None:
    theirs, ours = both()
    for app, error in ((theirs, celery.exceptions.ImproperlyConfigured), (ours, ConfigError)):
        app.config_from_object(values)
        with pytest.raises(error):
            app.conf.broker_url  # noqa: B018
    with pytest.raises(ConfigError, match="->"):
        _ = ours.settings


def test_a_configuration_can_be_named_by_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("proj_settings")
    vars(module).update(task_default_queue="q")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    app = compat.Celery("proj")
    with pytest.raises(ConfigError, match="WHERE"):
        app.config_from_envvar("WHERE")
    assert app.config_from_envvar("WHERE", silent=True) is False
    monkeypatch.setenv("WHERE", "proj_settings")

    assert app.config_from_envvar("WHERE") is True
    assert app.conf.task_default_queue == "q"
    app.config_from_object("nowhere.at.all", silent=True)
    assert app.conf.task_default_queue == "celery"
    app.config_from_object("nowhere.at.all")
    with pytest.raises(ConfigError, match=r"nowhere\.at\.all"):
        app.conf.task_default_queue  # noqa: B018


def test_the_table_of_settings_is_celerys() -> None:
    from celery.app.defaults import _TO_OLD_KEY, DEFAULTS

    missing = DEFAULTS.keys() - settingnames.BY_NAME.keys()
    assert not missing, f"these settings of Celery have no verdict in settingnames: {sorted(missing)}"
    for name, one in settingnames.BY_NAME.items():
        if name in DEFAULTS:
            assert one.old_name == _TO_OLD_KEY[name], name
            if celery.VERSION >= (5, 7):
                assert one.default == DEFAULTS[name] or (name == "accept_content"), name
    if celery.VERSION >= (5, 7):
        assert settingnames.BY_NAME.keys() == DEFAULTS.keys()


def test_every_setting_that_has_an_effect_says_so() -> None:
    said = {settingnames.WORKS, settingnames.DIFFERS}
    assert [
        name for name in _TABLE if not name.startswith("lightbus_") and settingnames.BY_NAME[name].verdict not in said
    ] == []
    assert [one.name for one in settingnames.SETTINGS if one.verdict == settingnames.WORKS and not one.test] == []
    assert [one.name for one in settingnames.SETTINGS if one.verdict != settingnames.WORKS and not one.note] == []


@pytest.mark.parametrize(
    "one", [one for one in settingnames.SETTINGS if one.verdict == settingnames.REFUSED], ids=lambda one: one.name
)
def test_a_setting_that_would_change_meaning_is_refused_with_the_page(one: settingnames.Setting) -> None:
    other = not one.default if isinstance(one.default, bool) else "other"

    with pytest.raises(ConfigError, match=f"{one.name}.*compatibility.md"):
        Settings.from_mapping({one.name: other})
    Settings.from_mapping({one.name: one.default})
    Settings.from_mapping({one.name: None})


@pytest.mark.parametrize(
    "given, field, value",
    [
        ({"broker_url": ["redis://a", "redis://b"]}, "broker_url", "redis://a;redis://b"),
        ({"broker_transport_options": {"visibility_timeout": 5}}, "broker_transport_options",
         {"visibility_timeout": 5}),
        ({"result_backend": "redis://r"}, "result_backend", "redis://r"),
        ({"timezone": "Asia/Tokyo"}, "timezone", "Asia/Tokyo"),
        ({"enable_utc": False}, "enable_utc", False),
        ({"result_expires": timedelta(minutes=1)}, "result_expires_seconds", 60.0),
        ({"result_failure_expires": 7}, "result_failure_expires_seconds", 7.0),
        ({"result_extended": True}, "result_extended", True),
        ({"task_default_queue": "q"}, "default_queue", "q"),
        ({"task_default_queue_type": "quorum"}, "default_queue_type", "quorum"),
        ({"task_queue_max_priority": 9}, "queue_max_priority", 9),
        ({"task_default_priority": 3}, "default_priority", 3),
        ({"task_queues": {"m": {}}}, "celery_queues", (CeleryQueue(name="m", exchange="m", routing_key="m"),)),
        ({"task_ignore_result": True}, "task_ignore_result", True),
        ({"task_store_errors_even_if_ignored": True}, "store_errors_even_if_ignored", True),
        ({"task_always_eager": True}, "always_eager", True),
        ({"task_eager_propagates": True}, "eager_propagates", True),
        ({"task_acks_late": True}, "acks_late", True),
        ({"task_acks_on_failure_or_timeout": False}, "acks_on_failure", False),
        ({"task_track_started": True}, "track_started", True),
        ({"task_time_limit": 4}, "time_limit", 4.0),
        ({"task_soft_time_limit": 3}, "soft_time_limit", 3.0),
        ({"task_inherit_parent_priority": True}, "inherit_parent_priority", True),
    ],
)  # fmt: skip
def test_a_setting_has_the_effect_that_celery_gives_it(given: dict[str, Any], field: str, value: Any) -> None:
    app = compat.Celery("proj", set_as_current=False)
    app.config_from_object(given)

    assert getattr(app.settings, field) == value


def test_the_default_queue_is_declared_as_celery_declares_it() -> None:
    given = {
        "task_default_queue": "q", "task_default_exchange": "x", "task_default_exchange_type": "topic",
        "task_default_routing_key": "k", "task_create_missing_queue_type": "quorum",
    }  # fmt: skip
    theirs, ours = both()
    for app in (theirs, ours):
        app.config_from_object(given)
    queue, made = theirs.amqp.queues["q"], ours.settings.celery_queue("q")

    assert (made.exchange, made.exchange_type, made.routing_key) == (
        queue.exchange.name, queue.exchange.type, queue.routing_key,
    )  # fmt: skip
    assert ours.settings.celery_queue("other").arguments == {"x-queue-type": "quorum"}
    if celery.VERSION >= (5, 6):
        assert theirs.amqp.queues["other"].queue_arguments == {"x-queue-type": "quorum"}


def route_by_prefix(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **kw: Any) -> Any:
    return {"queue": "video"} if name.startswith("video.") else None


def test_a_router_that_is_code_chooses_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("proj_routes")
    vars(module).update(route=route_by_prefix)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for routes in (route_by_prefix, "proj_routes.route", [route_by_prefix, {"mail.*": "mail"}]):
        theirs, ours = both()
        for app in (theirs, ours):
            app.conf.task_routes = routes
        for name in ("video.cut", "mail.send", "other"):
            route = theirs.amqp.router.route({}, name)
            assert ours.settings.route(name, {}) == route["queue"].name, (routes, name)


# The app


def test_an_app_takes_what_projects_give_it_and_says_what_it_cannot() -> None:
    app = compat.Celery(
        "proj", broker="memory://", backend="rpc://", include=["a"], config_source={"timezone": "UTC"},
        autofinalize=False, strict_typing=False, changes={"own": 1}, task_track_started=True,
    )  # fmt: skip

    assert (app.main, app.conf.own, list(app.conf.include)) == ("proj", 1, ["a"])
    assert (app.settings.broker_url, app.settings.result_backend, app.settings.track_started) == (
        "memory://", "rpc://", True,
    )  # fmt: skip
    assert app.task(lambda: 1).typing is False
    app.add_defaults(lambda: {"own": 2, "task_acks_late": True})
    assert (app.conf.own, app.settings.acks_late) == (1, True)
    with pytest.raises(ConfigError, match="loader"):
        compat.Celery("proj", loader="my:Loader")
    with pytest.raises(ConfigError, match="lightbus worker -A"):
        app.worker_main(["worker"])


def test_signals_of_the_app_come_in_celerys_order() -> None:
    seen: dict[int, list[str]] = {}
    for index, app in enumerate(both()):
        told = seen.setdefault(index, [])

        @app.on_configure.connect
        def on_configure(told: list[str] = told, **_: Any) -> None:
            told.append("configure")

        @app.on_after_configure.connect
        def after_configure(sender: Any, source: Any, told: list[str] = told, **_: Any) -> None:
            told.append(f"after_configure {source.task_default_queue}")
            sender.add_periodic_task(5.0, sender.signature("x"), name="from-signal")

        @app.on_after_finalize.connect
        def after_finalize(sender: Any, told: list[str] = told, **_: Any) -> None:
            told.append("after_finalize")

        app.conf.task_default_queue  # noqa: B018
        app.finalize()
        assert "from-signal" in app.conf.beat_schedule

    assert seen[1] == seen[0] or sorted(seen[1]) == sorted(seen[0])


def test_periodic_tasks_are_kept_as_data() -> None:
    entries = []
    for app in both():
        add = app.task(name="add", shared=False)(function)
        app.conf.beat_schedule = {"given": {"task": "add", "schedule": 3}}
        app.add_periodic_task(10.0, add.s(1, 2), name="ten", expires=5)
        app.conf.task_default_queue  # noqa: B018
        app.add_periodic_task(timedelta(seconds=3), add.s(3, 4), priority=1)
        entries.append({
            key: {**one, "args": tuple(one.get("args", ())), "options": dict(one.get("options", {}))}
            for key, one in app.conf.beat_schedule.items()
        })  # fmt: skip

    assert entries[1]["ten"] == entries[0]["ten"]
    assert entries[1]["given"] == entries[0]["given"]
    assert list(entries[1].values()) == list(entries[0].values())


def test_shared_tasks_belong_to_the_app_that_is_current() -> None:
    @compat.shared_task
    def early() -> str:
        return "early"

    class ContextTask(compat.Task):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return f"in context: {super().__call__(*args, **kwargs)}"

    app = compat.Celery("proj", task_cls=ContextTask)

    @compat.shared_task
    def late() -> str:
        return "late"

    assert {early.name, late.name} <= app.tasks.keys()
    assert app.tasks[early.name] is early
    assert early.app is late.app is app
    assert early() == "in context: early"
    assert late() == "in context: late"
    assert compat.current_app.main == "proj"
    other = compat.Celery("other")
    assert compat.default_app() is other
    assert early.app is other
    app.set_default()
    assert compat.current_app.conf is app.conf


def test_a_task_class_that_is_set_later_is_the_base_of_tasks_that_exist() -> None:
    results = []
    for app, base in zip(both(), (celery.Task, compat.Task), strict=True):

        @app.task(name="t", shared=False)
        def t() -> str:
            return "t"

        class ContextTask(base):  # type: ignore[misc,valid-type]
            abstract = True
            max_retries = 77

            def __call__(self, *args: Any, **kwargs: Any) -> Any:
                return "context", self.run(*args, **kwargs)

        app.Task = ContextTask
        results.append((t.max_retries, t()))

    assert results[0] == results[1] == (77, ("context", "t"))


def test_a_subclass_of_the_app_can_have_its_own_task_class_and_configure() -> None:
    seen = []

    class FlaskTask(compat.Task):
        flavour = "flask"

    class FlaskCelery(compat.Celery):
        task_cls = FlaskTask

        def on_init(self) -> None:
            seen.append("init")

        def on_configure(self) -> None:  # type: ignore[override]
            seen.append("configure")
            self.conf.task_default_queue = "flask"

    app = FlaskCelery("proj", broker="memory://")
    made = app.task(name="t")(lambda: None)

    assert made.flavour == "flask"
    assert app.settings.default_queue == "flask"
    assert seen == ["init", "configure"]


def test_modules_are_imported_when_a_worker_asks_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("one_a/__init__", "one_a/tasks", "one_b/__init__", "one_b/jobs", "one_c", "one_d", "one_e/__init__"):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("from lightbus.compat import shared_task\n\n@shared_task\ndef t(): ...\n")
    app = compat.Celery("proj", include=["one_d"])
    app.conf.imports = ("one_c",)
    app.autodiscover_tasks(["one_a", "one_b.Config"])
    app.autodiscover_tasks(lambda: ["one_b"], related_name="jobs")
    assert not any(name.startswith("one_") for name in app.tasks)

    app.import_default_modules()

    assert [name for name in app.tasks if name.startswith("one_")] == [
        "one_a.t", "one_a.tasks.t", "one_b.t", "one_b.jobs.t", "one_c.t", "one_d.t",
    ]  # fmt: skip
    (module,) = app.autodiscover_tasks(["one_e"], related_name=None, force=True)
    assert module.__name__ == "one_e"
    (tmp_path / "one_e" / "tasks.py").write_text("import not_there_at_all\n")
    app.autodiscover_tasks(["one_e"])
    with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
        app.import_default_modules()


def test_now_and_connections_are_the_apps(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = both(broker="memory://")
    for app in (theirs, ours):
        app.conf.timezone = "Asia/Tokyo"
        app.conf.broker_transport_options = {"polling_interval": 0.5}
    assert str(ours.now().tzinfo) == str(theirs.now().tzinfo) == "Asia/Tokyo"
    with ours.connection_for_read() as connection, theirs.connection_for_read() as other:
        assert connection.as_uri() == other.as_uri()
        assert connection.transport_options == other.transport_options
        assert connection.ensure_connection(max_retries=1).connected
    with ours.connection() as connection, ours.connection_or_acquire() as other:
        assert isinstance(connection, kombu.Connection)
        assert other.as_uri() == connection.as_uri()


def test_an_app_and_its_tasks_are_pickled_by_name() -> None:
    app = compat.Celery("proj", broker="memory://", config_source={"own": 3})
    app.conf.task_default_queue = "q"

    again = pickle.loads(pickle.dumps(app))
    made = pickle.loads(pickle.dumps(module_task(app)))

    assert (again.main, again.conf.task_default_queue, again.conf.own) == ("proj", "q", 3)
    assert made is app.tasks["module_task"]
    assert compat.default_app() is app


def module_task(app: Any) -> Any:
    return app.task(name="module_task")(module_function)


def module_function() -> None: ...


def test_tasks_are_served_by_lightbus_unless_the_configuration_leaves_them_to_celery() -> None:
    here = BenchApp(broker="memory://")
    here.app.send_task("not.imported.here")
    here.app.conf.lightbus_celery_tasks = ["other.*"]
    here.app.send_task("other.task", queue="others")
    here.app.send_task("another.task", queue="others")

    assert [route.routing_key for route, _, _ in here.bench.published] == [
        "lightbus.celery", "others", "lightbus.others",
    ]  # fmt: skip
    assert here.app.settings.celery_serves_others is True


# How the command line finds it


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory whose modules begin with `found_`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "found_shop").mkdir()
    (tmp_path / "found_shop" / "__init__.py").write_text("")
    (tmp_path / "found_shop" / "celery.py").write_text(
        "from lightbus.compat import Celery\n\napp = Celery('shop', broker='memory://', include=['found_shop.jobs'])\n"
    )
    (tmp_path / "found_two.py").write_text(
        "from lightbus.compat import Celery\n\na, b = Celery('first', broker='memory://'), Celery('second')\n"
    )
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("found_")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["found_shop", "found_shop.celery", "found_shop.celery:app"])
def test_the_command_line_finds_an_app_and_the_modules_that_it_names(folder: Path, name: str) -> None:
    (folder / "found_shop" / "jobs.py").write_text(
        "from lightbus.compat import shared_task\n\n\n@shared_task\ndef clean(): ...\n"
    )
    compat.Celery("made later")

    found = discovery.load((name,))

    assert isinstance(found.task_app, compat.Celery)
    assert (found.task_app.main, found.url) == ("shop", "memory://")
    assert "found_shop.jobs.clean" in found.task_app.tasks
    assert compat.default_app() is found.task_app
    found.close()


def test_the_command_line_says_what_is_wrong_with_an_app(folder: Path) -> None:
    (folder / "found_shop" / "jobs.py").write_text("import not_installed_here\n")
    (folder / "found_bad.py").write_text(
        "from lightbus.compat import Celery\n\napp = Celery('bad', worker_pool='gevent')\n"
    )
    for name, text in [
        ("found_shop", "a task module of <Celery shop.*not_installed_here"),
        ("found_two", "2 task apps .<Celery first.*-A module:attribute"),
        ("found_bad", "'worker_pool' is 'gevent'"),
    ]:
        with pytest.raises(ConfigError, match=text):
            discovery.load((name,))
    chosen = discovery.load(("found_two:a",)).task_app
    assert chosen is not None
    assert chosen.main == "first"


# Tasks


def test_names_are_celerys(monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("proj_pkg.sub.tasks")
    monkeypatch.setitem(sys.modules, "alias_of_tasks", package)  # imported under another name

    class Outer:
        @staticmethod
        def inner() -> None: ...

    def nested() -> None:
        def deep() -> None: ...

        nested.deep = deep  # type: ignore[attr-defined]

    nested()
    for main in (None, "proj"):
        theirs = celery.Celery(main, set_as_current=False)
        ours = compat.Celery(main)
        for function in (Outer.inner, nested, nested.deep, module_function):  # type: ignore[attr-defined]
            assert ours.task(function).name == theirs.task(shared=False)(function).name
        for module in ("__main__", "proj_pkg.sub.tasks", "alias_of_tasks", "not.loaded", "", None):
            assert ours.gen_task_name("f", module) == theirs.gen_task_name("f", module), module
            assert task_name("f", module, main) == theirs.gen_task_name("f", module)
        for app, base in ((theirs, celery.Task), (ours, compat.Task)):

            class ClassTask(base):  # type: ignore[misc,valid-type]
                def run(self) -> None: ...

            assert app.register_task(ClassTask()).name == f"{__name__}.ClassTask"


def test_an_app_may_make_names_of_its_own() -> None:
    names = []
    for base in (celery.Celery, compat.Celery):

        class Short(base):  # type: ignore[misc,valid-type]
            def gen_task_name(self, name: str, module: str) -> str:
                return str(super().gen_task_name(name, module.rpartition(".")[2]))

        names.append(Short("proj", set_as_current=base is compat.Celery).task(shared=False)(function).name)

    assert names[1] == names[0] == "test_celery_app.function"


def test_a_class_task_is_registered_and_runs() -> None:
    here = BenchApp(broker="memory://")

    class Adder(compat.Task):
        name = "adder"
        tries = 2
        autoretry_for = (KeyError,)

        def run(self, x: int, y: int = 1) -> Any:
            return [x + y, self.request.id, self.tries, self.app.main]

        def on_success(self, retval: Any, task_id: Any, args: Any, kwargs: Any) -> None:
            self.told = retval

    adder = here.app.register_task(Adder())
    assert here.app.register_task(Adder) is here.app.tasks["adder"]
    here.app.register_task(adder)

    result = adder.delay(1, y=5)

    assert here.bench.work() == [Ack()]
    assert result.get(timeout=1) == [6, result.id, 2, "proj"]
    assert adder.told == [6, result.id, 2, "proj"]
    with pytest.raises(TypeError, match="adder"):
        adder.delay()
    assert here.app.AsyncResult(result.id).state == states.SUCCESS
    assert len(here.app.ResultSet([result])) == 1


def test_a_base_that_is_written_on_celerys_task_runs_on_ours() -> None:
    class Logged(celery.Task):
        abstract = True
        max_retries = 8
        calls: list[str] = []  # noqa: RUF012

        def apply_async(self, *args: Any, **kwargs: Any) -> Any:
            self.calls.append("apply_async")
            return super().apply_async(*args, **kwargs)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            self.calls.append("call")
            return super().__call__(*args, **kwargs)

        def on_success(self, retval: Any, task_id: Any, args: Any, kwargs: Any) -> None:
            self.calls.append("success")

    here = BenchApp(broker="memory://")

    @here.app.task(base=Logged, bind=True, name="t")
    def t(self: Any, x: int) -> Any:
        return [x, self.request.id]

    result = t.delay(3)

    assert here.bench.work() == [Ack()]
    assert result.get(timeout=1) == [3, result.id]
    assert Logged.calls == ["apply_async", "call", "success"]
    assert isinstance(t, compat.Task)
    assert t.max_retries == 8


OPTIONS: list[dict[str, Any]] = [
    {}, {"bind": True}, {"ignore_result": True}, {"queue": "slow"}, {"priority": 3}, {"compression": "gzip"},
    {"compression": "bzip2"}, {"time_limit": 9, "soft_time_limit": 5}, {"delivery_mode": 1}, {"lock_ttl": 5},
    {"max_retries": None, "default_retry_delay": 7}, {"typing": False}, {"throws": (KeyError,)}, {"trail": False},
]  # fmt: skip
CALLS: list[dict[str, Any]] = [
    {}, {"countdown": -30}, {"headers": {"my": "h"}}, {"shadow": "s"}, {"compression": "lzma"}, {"app_id": "1234"},
    {"time_limit": 3, "soft_time_limit": 2}, {"stamped_headers": ["k"], "k": "v"}, {"ignore_result": True},
    {"retry": False, "retry_policy": {"max_retries": 1}}, {"argsrepr": "a", "kwargsrepr": "k"}, {"priority": 5},
    {"MessageGroupId": "g"}, {"root_id": "r", "parent_id": "p"}, {"group_id": "g", "group_index": 2},
    {"replaced_task_nesting": 1}, {"retries": 2}, {"reply_to": "me"}, {"mandatory": True, "add_to_parent": False},
    {"expires": 60}, {"delivery_mode": 1},
]  # fmt: skip


def function(*args: Any, **kwargs: Any) -> None:
    """Whatever is asked."""


def sent_by_celery(option: dict[str, Any], call: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    app = celery.Celery("proj", broker="memory://", set_as_current=False)
    task = app.task(name="t", shared=False, **option)(function)
    queue = option.get("queue") or "celery"
    with app.connection_for_write() as connection:
        channel = connection.channel()
        task.apply_async((1, "é"), {"k": [2]}, task_id="fixed", **call)
        message = channel.basic_get(queue, no_ack=True)
        assert message is not None, queue
        channel.queue_purge(queue)
        raw = message.delivery_info, {**message.properties}, {**message.headers}, message.body
        body = raw[3].encode() if isinstance(raw[3], str) else bytes(raw[3])
    return task._get_current_object(), {"headers": raw[2], "properties": raw[1], "body": json.loads(body)}


def sent_by_lightbus(option: dict[str, Any], call: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    here = BenchApp(broker="memory://")
    task = here.app.task(name="t", **option)(function)
    task.apply_async((1, "é"), {"k": [2]}, task_id="fixed", **call)
    queue = option.get("queue") or "celery"
    delivery = here.bench.transport.get(f"lightbus.{queue}")
    assert delivery is not None, queue
    wire = delivery.wire
    body = wire.body
    if kind := wire.headers.get("compression"):
        undo = {"application/x-gzip": zlib, "application/x-bz2": bz2, "application/x-lzma": lzma}[str(kind)]
        body = undo.decompress(body)  # type: ignore[attr-defined]
    assert decode_task(wire).args == (1, "é")
    properties = {
        "correlation_id": wire.correlation_id, "priority": wire.priority or 0,
        "delivery_mode": 2 if wire.durable else 1, **wire.extra,
    }  # fmt: skip
    return task, {"headers": dict(wire.headers), "properties": properties, "body": json.loads(body)}


def compared(sent: dict[str, Any]) -> dict[str, Any]:
    headers = {key: value for key, value in sent["headers"].items() if key not in ("origin", "eta", "expires")}
    headers["has_eta"], headers["has_expires"] = (sent["headers"][key] is not None for key in ("eta", "expires"))
    kept = ("correlation_id", "priority", "delivery_mode", "app_id", "MessageGroupId")
    return {
        "headers": headers,
        "properties": {key: value for key, value in sent["properties"].items() if key in kept},
        "body": sent["body"],
    }


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_a_task_with_that_option_is_celerys(option: dict[str, Any]) -> None:
    theirs, wanted = sent_by_celery(option, {})
    ours, got = sent_by_lightbus(option, {})

    assert compared(got) == compared(wanted)
    for name in (
        "name", "max_retries", "default_retry_delay", "typing", "throws", "trail", "queue", "priority", "compression",
        "time_limit", "soft_time_limit", "__doc__", "__module__", "__qualname__", "expires", "abstract", *option,
    ):  # fmt: skip
        if name not in ("bind", "abstract") and getattr(theirs, name, None) is not None:
            assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_a_call_with_that_option_sends_celerys_message(call: dict[str, Any]) -> None:
    _, wanted = sent_by_celery({}, call)
    _, got = sent_by_lightbus({}, call)

    assert compared(got) == compared(wanted)


@pytest.mark.parametrize("compression", ["gzip", "zlib", "bzip2", "lzma"])
def test_a_body_is_compressed_as_celery_compresses_it(compression: str) -> None:
    here = BenchApp(broker="memory://", task_compression=compression)
    here.app.task(name="t")(lambda text: len(text)).delay("x" * 10_000)
    delivery = here.bench.transport.get("lightbus.celery")
    assert delivery is not None
    assert len(delivery.wire.body) < 1_000

    message = kombu.message.Message(
        body=delivery.wire.body, headers=dict(delivery.wire.headers), content_type="application/json",
        content_encoding="utf-8",
    )  # fmt: skip

    assert message.decode()[0] == ["x" * 10_000]
    delivery.requeue()
    assert here.bench.work() == [Ack()]


@pytest.mark.parametrize("broker", ["sqlite:///{folder}/bus.db", "memory://"])
def test_a_compressed_body_is_read_on_a_transport_that_kombu_reads(broker: str, tmp_path: Path) -> None:
    app = compat.Celery("proj", broker=broker.format(folder=tmp_path), task_ignore_result=True)
    app.task(name="t", compression="gzip")(function).delay(7)
    taken: list[Any] = []

    def seen() -> bool:
        delivery = app.transport.get("lightbus.celery")
        if delivery is not None:
            taken.append(decode_task(delivery.wire).args)
            delivery.ack()
        return bool(taken)

    wait_for(seen, 30, "the message")
    app.close()

    assert taken == [(7,)]


def test_the_retry_of_a_compressed_task_is_compressed() -> None:
    here = BenchApp(broker="memory://")

    @here.app.task(name="t", bind=True, compression="gzip")
    def t(self: Any) -> None:
        raise self.retry(countdown=0)

    t.delay()
    delivery = here.bench.transport.get("lightbus.celery")
    assert delivery is not None
    delivery.requeue()
    from tests.compat.bench import handle

    delivery = here.bench.transport.get("lightbus.celery")
    assert delivery is not None
    handle(here.bench.endpoint(), delivery)
    delivery.ack()
    again = here.bench.transport.get("lightbus.celery")
    assert again is not None
    assert (again.wire.headers["retries"], again.wire.headers["compression"]) == (1, "application/x-gzip")


def test_a_connection_or_producer_of_the_callers_own_is_taken_and_not_used() -> None:
    here = BenchApp(broker="memory://")
    task = here.app.task(name="t")(lambda: None)

    task.apply_async(producer=object(), connection=object())
    here.app.send_task("t", producer=object())

    assert len(here.bench.published) == 2
    with pytest.raises(TypeError, match="router"):
        task.apply_async(router=object())


def test_options_about_lost_workers_are_taken() -> None:
    app = compat.Celery("proj", task_reject_on_worker_lost=True, task_retry_on_worker_lost=True)
    made = app.task(name="t", acks_late=True, reject_on_worker_lost=True, retry_on_worker_lost=True)(lambda: 1)

    assert made.reject_on_worker_lost is True
    assert made.setting("acks_late") is True  # a message that nobody acknowledged comes back by itself
    assert app.conf.task_reject_on_worker_lost is True


class Annotation:
    def annotate(self, task: Any) -> dict[str, Any]:
        return {"from_class": task.name}

    def annotate_any(self) -> dict[str, Any]:
        return {"priority": 4}


@pytest.mark.parametrize(
    "annotations",
    [
        {"t": {"max_retries": 9, "default_retry_delay": 1}},
        {"*": {"priority": 3, "max_retries": 1}, "t": {"priority": 5}},
        Annotation(),
        [{"t": {"priority": 6}}, Annotation()],
    ],
    ids=["name", "star", "object", "several"],
)
def test_annotations_of_the_settings_are_attributes_of_tasks(annotations: Any) -> None:
    found = []
    for app in both():
        early = app.task(name="t", shared=False)(function)
        app.conf.task_annotations = annotations
        app.finalize()
        late = app.task(name="u", shared=False)(function)
        _ = early.app.conf.task_default_queue, late.name
        found.append([
            {key: getattr(one, key, None) for key in ("max_retries", "default_retry_delay", "priority", "from_class")}
            for one in (early, late)
        ])  # fmt: skip
    assert found[1] == found[0]


def test_shadow_name_and_on_bound_of_a_class_are_called() -> None:
    class Named(compat.Task):
        def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str:
            return f"{self.name}({args[0]})"

        @classmethod
        def on_bound(cls, app: Any) -> None:
            cls.bound_to = app.main

    here = BenchApp(broker="memory://")
    made = here.app.task(name="t", base=Named)(lambda x: x)
    made.delay(5)

    assert here.bench.published[0][1].shadow == "t(5)"
    assert made.bound_to == "proj"


@pytest.mark.parametrize("option", ["Strategy", "Request"])
def test_an_option_of_celerys_worker_says_what_to_do_instead(option: str) -> None:
    app = compat.Celery("proj")

    class Own(compat.Task):
        name = "own"

        def run(self) -> None: ...

    setattr(Own, option, "10/m")
    with pytest.raises(DeclarationError, match=f"{option}.*Celery"):
        app.register_task(Own())
    with pytest.raises(DeclarationError, match=f"{option}.*Celery"):
        app.task(name="t", **{option: "10/m"})(lambda: None)


# pydantic


def pydantic_module(base: Any) -> Any:
    from pydantic import BaseModel

    class Order(BaseModel):
        id: int
        at: str | None = None

    class Bill(BaseModel):
        total: int

    def bill(order: Order, factor: int = 1, other: Order | None = None, *rest: Any) -> Bill:
        assert isinstance(order, Order)
        assert other is None or isinstance(other, Order)
        return Bill(total=order.id * factor + (other.id if other else 0))

    bill.__annotations__ = {"order": Order, "factor": int, "other": Order | None, "return": Bill}
    return Order, bill


@pytest.mark.parametrize("arguments, total", [
    (lambda order: ((order(id=2),), {}), 2),
    (lambda order: (({"id": 2},), {"factor": 3}), 6),
    (lambda order: ((order(id=2), 3, order(id=1, at="now")), {}), 7),
    (lambda order: ((), {"order": order(id=4), "other": None}), 4),
])  # fmt: skip
def test_models_are_validated_in_the_worker_and_dumped_by_the_caller(arguments: Any, total: int) -> None:
    order, bill = pydantic_module(None)
    args, kwargs = arguments(order)
    here = BenchApp(broker="memory://")
    task = here.app.task(name="bill", pydantic=True)(bill)

    result = task.apply_async(args, kwargs)

    sent = here.bench.published[0][1]
    assert here.bench.work() == [Ack()]
    assert result.get(timeout=1) == {"total": total}
    theirs = celery.Celery("proj", set_as_current=False, task_always_eager=True)
    wanted = theirs.task(name="bill", pydantic=True, shared=False)(bill)
    if celery.VERSION >= (5, 5):  # an older one knows nothing of models: `pydantic` is any attribute there
        assert wanted.apply(args, kwargs).get() == {"total": total}
    if celery.VERSION >= (5, 7):
        wanted_args, wanted_kwargs = wanted._dump_pydantic_arguments(args, kwargs)
        assert (list(sent.args), dict(sent.kwargs)) == (list(wanted_args), dict(wanted_kwargs))


def test_a_model_that_does_not_fit_fails_the_task() -> None:
    _, bill = pydantic_module(None)
    here = BenchApp(broker="memory://")
    strict = here.app.task(name="strict", pydantic=True, pydantic_strict=True)(bill)
    result = strict.delay({"id": "2"})

    assert here.bench.work() == [Ack()]
    assert here.bench.state(result.id) == "FAILURE"


# Logs


def test_records_of_a_task_logger_carry_the_running_task(caplog: pytest.LogCaptureFixture) -> None:
    logger = get_task_logger("proj.some.tasks")
    logger.setLevel(logging.WARNING)  # a Celery worker that another test ran here has set its parent's to ERROR
    here = BenchApp(broker="memory://")
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)

    @here.app.task(name="t")
    def t() -> None:
        logger.warning("inside")

    result = t.delay()
    here.bench.work()
    logger.warning("outside")
    logger.removeHandler(handler)

    formatter = TaskFormatter("%(task_name)s[%(task_id)s] %(message)s")
    assert [formatter.format(one) for one in records] == [f"t[{result.id}] inside", "???[???] outside"]
    assert logger.parent is logging.getLogger("celery.task")
    with pytest.raises(RuntimeError, match="reserved"):
        get_task_logger("celery.task")


def test_the_current_task_is_found_from_anywhere() -> None:
    here = BenchApp(broker="memory://")

    @here.app.task(name="t")
    def t() -> Any:
        return [compat.current_task.name, compat.current_task.request.id, here.app.current_task is t]

    result = t.delay()
    here.bench.work()

    assert result.get(timeout=1) == ["t", result.id, True]
    assert not compat.current_task
    assert here.app.current_task is None
    with pytest.raises(AttributeError, match="no task runs"):
        compat.current_task.request  # noqa: B018


def test_broker_use_ssl_is_an_option_of_the_transport() -> None:
    tls = {"ssl_cert_reqs": "none"}
    read = Settings.from_mapping({"BROKER_USE_SSL": tls, "broker_transport_options": {"visibility_timeout": 5}})
    assert read.broker_transport_options == {"visibility_timeout": 5, "ssl": tls}
    assert Settings.from_mapping({"broker_use_ssl": False}).broker_transport_options == {}


def test_a_queue_that_is_not_named_is_refused_where_none_are_to_be_made() -> None:
    """As in Celery, whose own error a caller may catch as `KeyError`."""
    from celery import Celery as TheirCelery
    from celery.exceptions import QueueNotFound as TheirQueueNotFound
    from kombu import Queue as KombuQueue

    conf = {"task_queues": [KombuQueue("images")], "task_default_queue": "images", "task_create_missing_queues": False}
    theirs = TheirCelery("t", broker="memory://", set_as_current=False)
    theirs.conf.update(conf)
    ours = Bench().app
    ours.configure(Settings.from_mapping(conf))
    for queue in (None, "images", KombuQueue("another")):
        theirs.send_task("t", queue=queue)
        ours.send_task("t", queue=queue)
    with pytest.raises(TheirQueueNotFound, match="'imagse' missing from task_queues"):
        theirs.send_task("t", queue="imagse")
    with pytest.raises(QueueNotFound, match="queue 'imagse', to which task 't' is to go, is missing from task_queues"):
        ours.send_task("t", queue="imagse")
    assert issubclass(QueueNotFound, KeyError)
