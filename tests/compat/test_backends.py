"""Results where Celery keeps them: what one side stores the other one reads, in every layout, and nothing is run."""

from __future__ import annotations

import base64
import json
import pickle
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import celery
import celery.result
import pytest
from celery import Celery, states
from celery.app.task import Context
from celery.backends.filesystem import FilesystemBackend
from kombu.utils.encoding import ensure_bytes

from lightbus import ConfigError
from lightbus.compat import GroupResult, RemoteTaskError, Settings, TaskApp
from lightbus.compat.backends import open_backend, pickles
from lightbus.compat.bridge import settings_from
from lightbus.compat.results import ResultDocument, exception_triple
from lightbus.core.errors import DecodeError
from lightbus.result_ports import ResultBackend
from tests.brokers import PostgreSQL
from tests.compat.bench import Bench

GOLDEN = Path(__file__).parent.parent / "golden"
SHOUTING = "tests.compat.test_backends:ShoutingFiles"
PLACES = ("sqlite", "postgresql", "file", "django-db", "django-cache", "class", "redis")


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgreSQL]:
    """Not in pytest's folder, which its user could not reach."""
    folder = Path(tempfile.mkdtemp(prefix="lightbus-postgres-"))
    server = PostgreSQL(folder)
    with server:
        yield server
    shutil.rmtree(folder)


class ShoutingFiles(FilesystemBackend):
    """A backend of one's own: it stores in another form than Celery, in a folder of a setting of its own."""

    def __init__(self, app: Any, url: str | None = None, **options: Any) -> None:
        super().__init__(app=app, url=app.conf["result_shouting_folder"], **options)

    def encode(self, data: Any) -> Any:
        return b"!" + ensure_bytes(super().encode(data))

    def decode(self, payload: Any) -> Any:
        return super().decode(payload.removeprefix(b"!"))


def place_of(name: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings that name the place, for either side."""
    folder: Path = request.getfixturevalue("tmp_path")
    match name:
        case "sqlite":
            return {"result_backend": f"db+sqlite:///{folder}/results.sqlite"}
        case "postgresql":
            url = request.getfixturevalue("postgres").url.replace("postgresql://", "postgresql+psycopg://")
            return {"result_backend": f"db+{url}"}
        case "file":
            return {"result_backend": f"file://{folder}"}
        case "django-db" | "django-cache":
            request.getfixturevalue("django_project")
            cache = {"cache_backend": "results"} if name == "django-cache" else {}
            module = {"django-db": "database:DatabaseBackend", "django-cache": "cache:CacheBackend"}[name]
            # Celery knows the short name by an entry point of the package.
            return {"result_backend": name, "celery": f"django_celery_results.backends.{module}", **cache}
        case "class":
            return {"result_backend": SHOUTING, "result_shouting_folder": f"file://{folder}"}
    return {"result_backend": request.getfixturevalue("redis_url")}


class Sides:
    """The same place from both sides."""

    def __init__(self, settings: dict[str, Any]) -> None:
        settings = dict(settings)
        name = settings.pop("celery", settings["result_backend"])
        common = {"result_extended": True}
        self.serializer = str(settings.setdefault("result_serializer", "json"))
        settings.setdefault("accept_content", ["json"])
        self.celery = Celery("reader", broker="memory://", set_as_current=False)
        self.celery.conf.update({**settings, **common, "result_backend": name})
        self.app = TaskApp(Settings.from_mapping({**settings, **common}))
        if celery.VERSION < (5, 7):
            self.app.results.fetch("none")  # it makes the tables of the first database of a process only

    def store(self, **fields: Any) -> str:
        """Store by Lightbus."""
        task_id = str(uuid.uuid4())
        document = ResultDocument(task_id=task_id, **fields)
        self.app.results.store(document, reply_to="", correlation_id="")
        return task_id

    def store_by_celery(self, result: Any, state: str, traceback: str | None = None, **request: Any) -> str:
        task_id = str(uuid.uuid4())
        # The backend counts chords and reads children by the request.
        context = Context(id=task_id, chord=None, children=request.pop("children", []), **request)
        self.celery.backend.store_result(task_id, result, state, traceback=traceback, request=context)
        return task_id


@pytest.fixture(params=PLACES)
def sides(request: pytest.FixtureRequest) -> Iterator[Sides]:
    found = Sides(place_of(request.param, request))
    yield found
    found.app.close()
    if request.param == "redis":
        found.celery.backend.result_consumer.stop()


def test_celery_reads_what_lightbus_stores(sides: Sides) -> None:
    extended = {"name": "t", "args": [1, "é"], "kwargs": {"a": None}, "worker": "w@h", "retries": 2, "queue": "q"}
    done = {"date_done": datetime.now(timezone.utc).isoformat()}
    value = {"n": [1, None], "d": Decimal("1.50")}
    good = sides.store(status=states.SUCCESS, result=value, extended=extended, **done)
    nothing = sides.store(status=states.SUCCESS, result=None, **done)
    bad = sides.store(
        status=states.FAILURE, result=exception_triple(ValueError("no", 7)), traceback="Traceback: é", **done
    )
    going = sides.store(status="PROGRESS", result={"done": 5})

    result = sides.celery.AsyncResult(good)
    assert result.get(timeout=10) == value
    assert (result.state, result.worker) == ("SUCCESS", "w@h")
    meta = sides.celery.backend.get_task_meta(good)
    assert meta.get("name") or meta["task_name"] == "t"  # django-celery-results calls it so
    assert result.date_done is not None
    assert sides.celery.AsyncResult(nothing).get(timeout=10) is None
    failed = sides.celery.AsyncResult(bad)
    with pytest.raises(ValueError, match="no") as caught:
        failed.get(timeout=10)
    assert caught.value.args == ("no", 7)
    assert failed.traceback == "Traceback: é"
    assert (sides.celery.AsyncResult(going).state, sides.celery.AsyncResult(going).info) == ("PROGRESS", {"done": 5})


def test_lightbus_reads_what_celery_stores(sides: Sides) -> None:
    class Refused(Exception):
        """A class that only the other side knows."""

    value = {"n": [1, None], "t": "é"}
    good = sides.store_by_celery(
        value, states.SUCCESS, task="t", args=[1], kwargs={"a": 2}, argsrepr="(1,)", kwargsrepr="{'a': 2}",
        hostname="w@h", retries=2, delivery_info={"routing_key": "q"},
    )  # fmt: skip
    bad = sides.store_by_celery(ValueError("no", 7), states.FAILURE, "Traceback: é", task="t", delivery_info={})
    other = sides.store_by_celery(Refused("x"), states.FAILURE, "", task="t", delivery_info={})
    going = sides.store_by_celery({"done": 5}, "PROGRESS", task="t", delivery_info={})

    result = sides.app.AsyncResult(good)
    assert result.get(timeout=10) == value
    assert (result.state, result.name, result.worker) == ("SUCCESS", "t", "w@h")
    assert isinstance(result.date_done, datetime)
    failed = sides.app.AsyncResult(bad)
    with pytest.raises(ValueError, match="no") as caught:
        failed.get(timeout=10)
    assert caught.value.args == ("no", 7)
    assert failed.traceback == "Traceback: é"
    with pytest.raises(RemoteTaskError, match="x") as unknown:
        sides.app.AsyncResult(other).get(timeout=10)
    assert type(unknown.value).__name__ == "Refused"
    assert (sides.app.AsyncResult(going).state, sides.app.AsyncResult(going).info) == ("PROGRESS", {"done": 5})
    nobody = sides.app.AsyncResult(str(uuid.uuid4()))
    assert (nobody.state, nobody.result, nobody.exists(), result.exists()) == ("PENDING", None, False, True)


def test_a_success_stays_and_what_is_forgotten_is_gone_on_both_sides(sides: Sides) -> None:
    task_id = sides.store(status=states.STARTED, result={"pid": 1})
    for status, value in ((states.SUCCESS, 1), (states.SUCCESS, 2), (states.FAILURE, exception_triple(KeyError()))):
        sides.app.results.store(
            ResultDocument(task_id=task_id, status=status, result=value), reply_to="", correlation_id=""
        )

    assert sides.app.AsyncResult(task_id).get(timeout=10) == 1
    assert sides.celery.AsyncResult(task_id).state == "SUCCESS"

    sides.app.AsyncResult(task_id).forget()
    sides.app.AsyncResult(task_id).forget()

    assert sides.app.AsyncResult(task_id).state == "PENDING"
    sides.celery.backend._cache.clear()
    assert sides.celery.AsyncResult(task_id).state == "PENDING"


def test_groups_are_saved_and_restored_across_the_sides(sides: Sides) -> None:
    members = [sides.app.AsyncResult(f"m{number}") for number in range(3)]
    ours = GroupResult(
        f"g-{uuid.uuid4()}", [members[0], GroupResult("inner", members[1:], app=sides.app)], app=sides.app
    )
    ours.save()
    theirs = sides.celery.GroupResult(f"c-{uuid.uuid4()}", [sides.celery.AsyncResult("m1")])
    theirs.save(backend=sides.celery.backend)

    read = sides.celery.GroupResult.restore(ours.id, backend=sides.celery.backend, app=sides.celery)
    again = GroupResult.restore(theirs.id, app=sides.app)

    assert read.id == ours.id
    assert [one.id for one in read.results] == ["m0", "inner"]
    assert [one.id for one in read.results[1].results] == ["m1", "m2"]
    assert again is not None
    assert (again.id, [one.id for one in again.results]) == (theirs.id, ["m1"])
    assert GroupResult.restore(ours.id, app=sides.app) == ours
    ours.delete()
    ours.delete()
    assert GroupResult.restore(ours.id, app=sides.app) is None


def test_waiting_ends_when_celery_stores_and_the_other_way_round(sides: Sides) -> None:
    from concurrent.futures import ThreadPoolExecutor

    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    with ThreadPoolExecutor(2) as threads:
        ours = threads.submit(sides.app.AsyncResult(first).get, timeout=60)
        sides.celery.backend.store_result(first, "theirs", states.SUCCESS)
        assert ours.result(60) == "theirs"
        theirs = threads.submit(sides.celery.AsyncResult(second).get, timeout=60)
        sides.app.results.store(
            ResultDocument(task_id=second, status=states.SUCCESS, result="ours"), reply_to="", correlation_id=""
        )
        assert theirs.result(60) == "ours"


# Rows of a database


def cells(backend: ResultBackend, task_id: str) -> Any:
    import sqlalchemy as sa

    with backend._engine.connect() as connection:  # type: ignore[attr-defined]
        query = sa.text("select result, children from celery_taskmeta where task_id = :id")
        return connection.execute(query, {"id": task_id}).one()


@pytest.mark.parametrize("oldest, mark", [("5.3", b"\x80"), ("5.7", b"{")])
def test_the_oldest_celery_decides_what_the_rows_are(tmp_path: Path, oldest: str, mark: bytes) -> None:
    url = f"db+sqlite:///{tmp_path}/r.sqlite"
    app = TaskApp(Settings.from_mapping({"result_backend": url, "lightbus_oldest_celery": oldest}))
    document = ResultDocument(task_id="i", status="SUCCESS", result={"a": 1}, children=[[["c", None], None]])
    app.results.store(document, reply_to="", correlation_id="")

    row = cells(app.results.backend, "i")  # type: ignore[arg-type]

    assert bytes(row.result).startswith(mark)
    assert bytes(row.children) == b'[[["c", null], null]]'
    assert app.AsyncResult("i").get(timeout=5) == {"a": 1}
    assert [one.id for one in app.AsyncResult("i").children or []] == ["c"]
    app.close()


def test_tables_without_the_newer_columns_are_used_as_they_are(tmp_path: Path) -> None:
    import sqlalchemy as sa

    engine = sa.create_engine(f"sqlite:///{tmp_path}/r.sqlite")
    with engine.begin() as connection:  # as Celery 5.4 makes it without result_extended
        connection.execute(sa.text(
            "create table celery_taskmeta (id integer primary key autoincrement, task_id varchar(155) unique, "
            "status varchar(50), result blob, date_done datetime, traceback text)"
        ))  # fmt: skip
        old = pickle.dumps({"exc_type": "ValueError", "exc_message": ("no",), "exc_module": "builtins"})
        connection.execute(
            sa.text("insert into celery_taskmeta (task_id, status, result) values ('old', 'FAILURE', :cell)"),
            {"cell": old},
        )
    engine.dispose()
    app = TaskApp(Settings(result_backend=f"db+sqlite:///{tmp_path}/r.sqlite", result_extended=True))

    document = ResultDocument(task_id="i", status="SUCCESS", result=1, children=[[["c", None], None]])
    app.results.store(document, reply_to="", correlation_id="")

    assert app.AsyncResult("i").get(timeout=5) == 1
    assert repr(app.AsyncResult("old").result) == "ValueError('no')"
    app.close()


def test_rows_that_celery_54_wrote_are_read(tmp_path: Path) -> None:
    import sqlalchemy as sa

    tables = json.loads((GOLDEN / "celery54" / "rows.json").read_text(encoding="utf-8"))
    engine = sa.create_engine(f"sqlite:///{tmp_path}/r.sqlite")
    with engine.begin() as connection:
        for table, rows in tables.items():
            names = ", ".join(rows[0])
            connection.execute(sa.text(f"create table {table} ({names})"))
            for row in rows:
                cells = {
                    name: base64.b64decode(cell["base64"]) if isinstance(cell, dict) else cell
                    for name, cell in row.items()
                }
                connection.execute(
                    sa.text(f"insert into {table} values ({', '.join(f':{name}' for name in row)})"), cells
                )
    engine.dispose()
    app = TaskApp(Settings(result_backend=f"db+sqlite:///{tmp_path}/r.sqlite"))

    found = {name: app.AsyncResult(name) for name in ("value", "nothing", "failure", "state")}
    assert found["value"].get(timeout=5) == {"n": [1, None, "é"]}
    assert (found["nothing"].get(timeout=5), found["state"].info) == (None, {"done": 5})
    assert repr(found["failure"].result) == "ValueError('no', 7)"
    assert (found["value"].args, found["value"].kwargs, found["value"].worker) == ([1, "é"], {"a": None}, "w@h")
    group = GroupResult.restore("group", app=app)
    assert group is not None
    assert group.as_tuple() == (
        ("group", None),
        [(("m1", None), None), (("inner", None), [(("m2", (("p", None), None)), None)])],
    )
    app.close()


def test_a_saved_group_is_for_celery_before_57_the_object_that_it_unpickles() -> None:
    cell = pickles.dumps_group(
        [["g", None], [[["m1", None], None], [["in", None], [[["m2", [["p", None], None]], None]]]]]
    )

    found = pickle.loads(cell)

    assert isinstance(found, celery.result.GroupResult)
    assert found.as_tuple() == (
        ("g", None),
        [(("m1", None), None), (("in", None), [(("m2", (("p", None), None)), None)])],
    )
    assert pickles.loads(cell) == [
        ["g", None], [[["m1", None], None], [["in", None], [[["m2", [["p", None], None]], None]]]]
    ]  # fmt: skip


def test_a_pickled_row_is_read_without_running_what_is_in_it(tmp_path: Path) -> None:
    value = {
        "when": datetime(2026, 1, 2, tzinfo=timezone.utc), "sum": Decimal("1.5"), "id": uuid.UUID(int=7), "b": b"\x00",
        "s": {1, 2}, "t": (1, None),
    }  # fmt: skip
    witness = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> Any:
            return Path.touch, (witness,)

    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickles.loads(pickle.dumps(value, protocol)) == value
        with pytest.raises(DecodeError, match="would run code"):
            pickles.loads(pickle.dumps(Hostile(), protocol))
    for hostile in (
        b"\x80\x02cos\nsystem\n(S'true'\ntR.",
        b"\x80\x02ccelery.backends.base\nsubprocess\n(S'true'\ntR.",
        b"\x80\x02cbuiltins\neval\n(S'1'\ntR.",
        pickle.dumps(ValueError("an exception itself, of result_serializer = 'pickle'")),
        b"\x80\x04broken",
    ):
        with pytest.raises(DecodeError):
            pickles.loads(hostile)
    assert not witness.exists()


def test_old_results_are_removed_by_the_cleanup_task(request: pytest.FixtureRequest) -> None:
    for name in ("sqlite", "file", "django-db"):
        sides = Sides({**place_of(name, request), "result_expires": 0.001})
        task_id = sides.store(status=states.SUCCESS, result=1, date_done="2020-01-01T00:00:00+00:00")
        cleanup = sides.app.find("celery.backend_cleanup")
        assert cleanup is not None

        while sides.app.AsyncResult(task_id).exists():  # the clock of a file may be coarse
            cleanup()
        sides.app.close()


def test_tables_and_engine_are_as_the_settings_say(tmp_path: Path) -> None:
    engines: list[Any] = []
    app = TaskApp(
        Settings.from_mapping(
            {
                "result_backend": "database", "database_url": f"sqlite:///{tmp_path}/r.sqlite",
                "database_table_names": {"task": "shop_tasks", "group": "shop_groups"},
                "database_engine_options": {"echo": False}, "database_engine_callback": engines.append,
            }
        )
    )  # fmt: skip
    theirs = Celery("theirs", broker="memory://", set_as_current=False)
    theirs.conf.update(dict(app.settings.result_settings), result_backend="database", database_engine_callback=None)
    document = ResultDocument(task_id="i", status="FAILURE", result=exception_triple(KeyError(1)), traceback="a\x00b")
    app.results.store(document, reply_to="", correlation_id="")

    with engines[0].connect() as connection:
        assert connection.exec_driver_sql("select traceback from shop_tasks").scalars().all() == ["ab"]
    if celery.VERSION >= (5, 7):  # 5.4 changes the tables of all apps of a process, and makes them once
        assert theirs.AsyncResult("i").state == "FAILURE"
        theirs.backend.task_cls.configure()  # the class is shared by all apps of the process
        theirs.backend.taskset_cls.configure()
    app.close()


def test_an_id_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    from lightbus import TransportError

    (tmp_path / "results").mkdir()
    app = TaskApp(Settings(result_backend=f"file://{tmp_path}/results"))
    document = ResultDocument(task_id="x/../../out", status="SUCCESS", result=1)

    with pytest.raises(TransportError):
        app.results.store(document, reply_to="", correlation_id="")
    with pytest.raises(TransportError):
        app.AsyncResult("x/../../out").forget()
    assert list(tmp_path.iterdir()) == [tmp_path / "results"]


def test_django_shows_which_schedule_sent_a_task(django_project: None) -> None:
    from django_celery_results.models import TaskResult

    bench = Bench()
    bench.app._result_backend = None
    bench.app.configure(Settings(result_backend="django-db", result_extended=True))
    bench.task(name="t")(lambda a: a)
    task_id = str(uuid.uuid4())
    bench.put_task(task="t", id=task_id, args=(5,), headers={"periodic_task_name": "nightly"})
    bench.work()

    row = TaskResult.objects.get(task_id=task_id)
    assert (row.periodic_task_name, row.task_name, row.task_args, row.status, row.result) == (
        "nightly", "t", '"(5,)"', "SUCCESS", "5",
    )  # fmt: skip


def test_the_bridge_hands_over_what_a_project_has_set_for_its_results() -> None:
    given = {
        "result_backend_transport_options": {"global_keyprefix": "shop"}, "redis_socket_timeout": 3.0,
        "database_table_names": {"task": "t"},
    }  # fmt: skip
    app = Celery("theirs", broker="memory://", set_as_current=False)
    app.conf.update(given, result_backend="redis://localhost/1", result_chord_retry_interval=0.5)

    settings = settings_from(app)

    assert settings.result_settings == given
    assert (settings.result_backend, settings.chord_retry_seconds) == ("redis://localhost/1", 0.5)


# Choosing one


def test_a_backend_that_is_not_there_is_named_without_its_password(tmp_path: Path) -> None:
    for wrong in (
        "mongodb://u:secret@host/db", "nosuch://u:secret@host", "db+nosuch://u:secret@host/db", "database",
        f"file://{tmp_path}/none", "cache+nosuch://",
    ):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            open_backend(Settings(result_backend=wrong))
        assert "secret" not in str(caught.value)


def test_without_celery_what_needs_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightbus.compat.backends.find_spec", lambda name: None)

    with pytest.raises(ConfigError, match="pip install celery"):
        open_backend(Settings(result_backend="elasticsearch://localhost"))


def test_errors_of_a_celery_backend_are_lightbuss(tmp_path: Path) -> None:
    from lightbus import TransportError

    app = TaskApp(Settings(result_backend=SHOUTING, result_settings={"result_shouting_folder": f"file://{tmp_path}"}))
    (tmp_path / "celery-task-meta-i").write_bytes(b"!not JSON")

    with pytest.raises(TransportError):
        app.results.fetch("i")


def test_results_compressed_by_celery_are_read(redis_url: str) -> None:
    if celery.VERSION < (5, 7):
        return  # it has no such setting
    for method in ("gzip", "bzip2", "lzma"):
        sides = Sides({"result_backend": redis_url, "result_compression": method})
        task_id = sides.store_by_celery("x" * 1000, states.SUCCESS, task="t", delivery_info={})

        assert sides.app.AsyncResult(task_id).get(timeout=10) == "x" * 1000
        sides.app.close()
