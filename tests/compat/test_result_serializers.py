"""Results by serializers other than JSON, in each place where they are kept: what one side writes the other reads."""

from __future__ import annotations

import base64
import json
import pickle
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import celery
import pytest
from celery import Celery, states
from celery.contrib.testing.worker import start_worker

from lightbus.compat import GroupResult, RemoteTaskError, Settings, TaskApp
from lightbus.compat.backends.cells import Cells
from lightbus.compat.results import ResultDocument, exception_triple
from lightbus.compat.serializers import Codec
from lightbus.core.errors import DecodeError
from lightbus.drivers import open_transport
from tests.compat.test_backends import GOLDEN, PLACES, Sides, place_of, postgres  # noqa: F401 - the last is a fixture
from tests.compat.test_brokers import Worker

OTHERS = ("yaml", "msgpack", "pickle")
#: What each of them can write and JSON cannot, as it is read again.
RICH: dict[str, Any] = {
    "yaml": {"n": [1, None, "é"], "bytes": b"\x00\xff", 5: 6},
    "msgpack": {"n": [1, None, "é"], "bytes": b"\x00\xff", "empty": {}},
    "pickle": {"n": (1, None, "é"), "set": {1, 2}, (1, 2): Path("/x")},
}


@pytest.fixture(params=[(place, name) for place in PLACES for name in OTHERS], ids="-".join)
def sides(request: pytest.FixtureRequest) -> Iterator[Sides]:
    place, name = request.param
    found = Sides({**place_of(place, request), "result_serializer": name, "accept_content": [name]})
    before = celery.current_app._get_current_object()
    found.celery.set_current()  # to whom a pickled group belongs when it is read, and not to an earlier test's app
    yield found
    before.set_current()
    found.app.close()
    if place == "redis":
        found.celery.backend.result_consumer.stop()


def test_celery_reads_what_lightbus_stores_by_each_serializer(sides: Sides) -> None:
    done = {"date_done": datetime.now(timezone.utc).isoformat()}
    extended = {"name": "t", "args": [1, "é"], "kwargs": {"a": None}, "worker": "w@h", "retries": 2, "queue": "q"}
    good = sides.store(status=states.SUCCESS, result=RICH[sides.serializer], extended=extended, **done)
    empty = sides.store(status=states.SUCCESS, result={}, **done)
    bad = sides.store(
        status=states.FAILURE, result=exception_triple(ValueError("no", 7)), traceback="Traceback: é", **done
    )

    assert sides.celery.AsyncResult(good).get(timeout=10) == RICH[sides.serializer]
    meta = sides.celery.backend.get_task_meta(good)
    assert (meta.get("name") or meta["task_name"], meta["worker"]) == ("t", "w@h")
    assert sides.celery.AsyncResult(empty).get(timeout=10) == {}
    with pytest.raises(ValueError, match="no") as caught:
        sides.celery.AsyncResult(bad).get(timeout=10)
    assert caught.value.args == ("no", 7)


def test_lightbus_reads_what_celery_stores_by_each_serializer(sides: Sides) -> None:
    class Refused(Exception):
        """Of a scope that nobody can import it from: Celery wraps it where it pickles."""

    good = sides.store_by_celery(
        RICH[sides.serializer], states.SUCCESS, task="t", args=[1], kwargs={"a": 2}, argsrepr="(1,)",
        kwargsrepr="{'a': 2}", hostname="w@h", retries=2, delivery_info={"routing_key": "q"},
    )  # fmt: skip
    empty = sides.store_by_celery({}, states.SUCCESS, task="t", delivery_info={})
    bad = sides.store_by_celery(ValueError("no", 7), states.FAILURE, "Traceback: é", task="t", delivery_info={})
    other = sides.store_by_celery(Refused("x"), states.FAILURE, "", task="t", delivery_info={})

    result = sides.app.AsyncResult(good)
    assert result.get(timeout=10) == RICH[sides.serializer]
    assert (result.name, result.worker) == ("t", "w@h")
    assert sides.app.AsyncResult(empty).get(timeout=10) == {}
    with pytest.raises(ValueError, match="no") as caught:
        sides.app.AsyncResult(bad).get(timeout=10)
    assert caught.value.args == ("no", 7)
    with pytest.raises(RemoteTaskError, match="x") as unknown:
        sides.app.AsyncResult(other).get(timeout=10)
    assert type(unknown.value).__name__ == "Refused"


def test_groups_are_restored_across_the_sides_by_each_serializer(sides: Sides) -> None:
    members = [sides.app.AsyncResult(f"m{number}") for number in range(2)]
    ours = GroupResult(f"g-{uuid.uuid4()}", members, app=sides.app)
    ours.save()
    theirs = sides.celery.GroupResult(f"c-{uuid.uuid4()}", [sides.celery.AsyncResult("m1")])
    theirs.save(backend=sides.celery.backend)

    read = sides.celery.GroupResult.restore(ours.id, backend=sides.celery.backend, app=sides.celery)
    again = GroupResult.restore(theirs.id, app=sides.app)

    assert (read.id, [one.id for one in read.results]) == (ours.id, ["m0", "m1"])
    assert again is not None
    assert (again.id, [one.id for one in again.results]) == (theirs.id, ["m1"])


# Rows of a database, of which Celery has two forms


@pytest.mark.parametrize("serializer", OTHERS)
def test_rows_that_celery_54_wrote_by_each_serializer_are_read(tmp_path: Path, serializer: str) -> None:
    import sqlalchemy as sa

    recorded = json.loads((GOLDEN / "celery54" / f"rows_{serializer}.json").read_text(encoding="utf-8"))
    engine = sa.create_engine(f"sqlite:///{tmp_path}/r.sqlite")
    with engine.begin() as connection:
        for table, rows in recorded.items():
            connection.execute(sa.text(f"create table {table} ({', '.join(rows[0])})"))
            for row in rows:
                cells = {
                    name: base64.b64decode(cell["base64"]) if isinstance(cell, dict) else cell
                    for name, cell in row.items()
                }
                connection.execute(
                    sa.text(f"insert into {table} values ({', '.join(f':{name}' for name in row)})"), cells
                )
    engine.dispose()
    app = TaskApp(
        Settings(
            result_backend=f"db+sqlite:///{tmp_path}/r.sqlite", result_serializer=serializer,
            accept_content=(serializer,),
        )
    )  # fmt: skip

    value = app.AsyncResult("value")
    assert value.get(timeout=5) == {"n": [1, None, "é"]}
    assert (list(value.args), value.kwargs, value.worker) == ([1, "é"], {"a": None}, "w@h")
    assert app.AsyncResult("nothing").get(timeout=5) is None
    assert repr(app.AsyncResult("failure").result) == "ValueError('no', 7)"
    group = GroupResult.restore("group", app=app)
    assert group is not None
    assert [one.id for one in group.results] == ["m1", "inner"]
    app.close()


@pytest.mark.parametrize("oldest", ["5.3", "5.7"])
@pytest.mark.parametrize("serializer", OTHERS)
def test_rows_are_written_for_the_oldest_reader(tmp_path: Path, serializer: str, oldest: str) -> None:
    settings = {
        "result_backend": f"db+sqlite:///{tmp_path}/r.sqlite", "result_serializer": serializer,
        "accept_content": [serializer], "result_extended": True,
    }  # fmt: skip
    app = TaskApp(Settings.from_mapping({**settings, "lightbus_oldest_celery": oldest}))
    document = ResultDocument(task_id="i", status="SUCCESS", result={"a": 1}, extended={"args": [1], "kwargs": {}})
    app.results.store(document, reply_to="", correlation_id="")

    engine: Any = app.results.backend._engine  # type: ignore[union-attr]
    with engine.connect() as connection:
        row = connection.exec_driver_sql("select result, args from celery_taskmeta").one()
    codec = Codec(serializer, (serializer,))
    assert codec.loads(bytes(row.args)) == [1]  # every Celery has written these by the serializer
    if oldest == "5.3":  # whose column is SQLAlchemy's PickleType, whatever the serializer is
        assert pickle.loads(row.result) == {"a": 1}
    else:
        assert codec.loads(bytes(row.result)) == {"a": 1}
    if oldest == "5.3" or celery.VERSION >= (5, 7):
        theirs = Celery("theirs", broker="memory://", set_as_current=False)
        theirs.conf.update(settings)
        assert theirs.AsyncResult("i").get(timeout=5) == {"a": 1}
    app.close()


class Marker:
    """Pickled, it makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


def test_objects_in_pickled_cells_are_made_only_where_pickle_is_let_in(tmp_path: Path) -> None:
    cell = pickle.dumps(Marker(tmp_path / "ran"))
    for accept in (("json",), ("json", "yaml")):
        with pytest.raises(DecodeError, match="accept_content"):
            Cells(Codec("json", accept), pickled=True).value(cell)
    assert not (tmp_path / "ran").exists()
    for accept in (("json", "pickle"), ("json", "application/x-python-serialize")):
        (tmp_path / "ran").unlink(missing_ok=True)
        Cells(Codec("json", accept), pickled=True).value(cell)
        assert (tmp_path / "ran").exists()


def test_a_cell_of_another_serializer_names_the_setting() -> None:
    with pytest.raises(DecodeError, match=r"neither msgpack nor a pickle.*result_serializer"):
        Cells(Codec("msgpack", ("msgpack",)), pickled=False).value(b"\xc1")


# Sent to the caller


@pytest.mark.parametrize("serializer", OTHERS)
@pytest.mark.parametrize("broker", ["redis_url", "amqp_url"])
def test_results_by_rpc_reach_the_other_side_by_each_serializer(
    broker: str, serializer: str, prefix: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(broker)
    common = {"accept_content": ["json", serializer], "result_serializer": serializer, "task_default_queue": prefix}
    # A caller is another process in life; in one process with a worker they would share a reply queue.
    works, calls = (Celery(f"{prefix}-{role}", broker=url, backend="rpc://", set_as_current=False) for role in "wc")
    for app in (works, calls):
        app.conf.update(common, broker_connection_retry_on_startup=True)

    @works.task(name=f"{prefix}.theirs", shared=False)
    def answer(fails: bool) -> Any:
        return int("x") if fails else RICH[serializer]

    transport = open_transport(url)
    settings = Settings.from_mapping({**common, "broker_url": url, "result_backend": "rpc://"})
    ours = TaskApp(replace(settings, celery_serves_others=True), transport=transport)
    ours.task(name=f"{prefix}.ours")(answer.run)
    worker = Worker(ours)
    try:
        with start_worker(works, pool="solo", perform_ping_check=False, shutdown_timeout=60.0):
            to_theirs = [ours.send_task(f"{prefix}.theirs", (fails,), queue=prefix) for fails in (False, True)]
            assert to_theirs[0].get(timeout=60) == RICH[serializer]
            with pytest.raises(ValueError, match="invalid literal"):
                to_theirs[1].get(timeout=60)
        to_ours = [calls.send_task(f"{prefix}.ours", (fails,), queue=f"lightbus.{prefix}") for fails in (False, True)]
        for _ in to_ours:
            worker.work_one()
        assert to_ours[0].get(timeout=60) == RICH[serializer]
        with pytest.raises(ValueError, match="invalid literal"):
            to_ours[1].get(timeout=60)
    finally:
        worker.close()
        for app in (works, calls):
            app.close()
        ours.close()
        transport.close()
