"""Serializers other than JSON: read and written only where the settings let them in, and then as Celery does it."""

from __future__ import annotations

import base64
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery.canvas  # noqa: F401 - pickled signatures of Celery's name its module
import kombu.utils.json
import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from kombu.serialization import register, registry, unregister

from lightbus.compat import Settings, TaskApp, chord, group
from lightbus.compat.protocol import TaskMessage, decode_task, encode_task
from lightbus.compat.results import ResultDocument, decode_result, encode_result
from lightbus.compat.serializers import Codec, decode, encode
from lightbus.core.errors import ConfigError, DecodeError
from lightbus.core.outcome import DeadLetter
from lightbus.drivers import open_result_backend, open_transport
from tests.compat.bench import Bench, golden, golden_wire
from tests.compat.test_brokers import Worker

ALL = ("json", "yaml", "msgpack", "pickle")
RICH = {"n": 1, "text": "é", "bytes": b"\x00\xff", "list": [1, 2.5, None, True]}
RECORDED = {one["name"]: one for one in golden("serialized")}


@pytest.mark.parametrize("name", RECORDED)
def test_what_celery_wrote_is_read_where_it_is_let_in_and_refused_where_not(name: str) -> None:
    wire = golden_wire(RECORDED[name])
    by_type = (RECORDED[name]["content_type"],)
    for accept in ((name,), by_type):
        message = decode_task(wire, accept=accept)
        assert (message.task, message.args, message.kwargs) == ("golden.add", (1,), {"y": RICH})
    if name != "yaml":
        assert message.callbacks is not None
        assert (message.callbacks[0]["task"], message.callbacks[0]["args"][0]) == ("golden.add", 10)
    with pytest.raises(DecodeError, match="set accept_content here if"):
        decode_task(wire)
    with pytest.raises(DecodeError, match="is not read"):
        decode_task(encode_task(TaskMessage(task="t", id="i")), accept=(name,))


@pytest.mark.parametrize("name", RECORDED)
def test_what_lightbus_writes_is_what_celery_writes(name: str) -> None:
    recorded = RECORDED[name]
    read = decode_task(golden_wire(recorded), accept=ALL)
    written = encode_task(TaskMessage(**{f: getattr(read, f) for f in read.__struct_fields__} | {"serializer": name}))
    body = base64.b64decode(recorded["body_base64"])

    assert (written.content_type, written.content_encoding) == (recorded["content_type"], recorded["content_encoding"])
    if name == "pickle":  # the same values, in plain types that need no class of ours or of Celery's
        assert b"lightbus" not in written.body
        assert b"celery" not in written.body
        assert pickle.loads(written.body) == pickle.loads(body)  # Celery takes lists apart, and tuples it could not
    elif name == "msgpack":
        assert decode(written.body, written.content_type) == decode(body, written.content_type)
    else:
        assert written.body == body


class Bomb:
    """Pickled, it runs a command of its sender's when it is read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._path),)


def test_pickle_is_not_even_looked_into_unless_a_setting_names_it(tmp_path: Path) -> None:
    ran: list[Any] = []
    sent = encode_task(TaskMessage(task="t", id="task-1", args=(Bomb(tmp_path / "ran"),), serializer="pickle"))
    for accept, runs in ((("json",), False), (("json", "yaml"), False), (("json", "pickle"), True)):
        bench = Bench(accept_content=accept)
        bench.task(name="t")(ran.append)
        bench.put(sent)
        outcomes = bench.work()
        assert (tmp_path / "ran").exists() == runs
        assert isinstance(outcomes[0], DeadLetter) != runs
        assert bench.state() == ("SUCCESS" if runs else "FAILURE")
    assert ran == [None]


@pytest.mark.parametrize("serializer", ["yaml", "msgpack", "pickle"])
def test_tasks_their_results_and_chords_pass_by_the_serializer_of_the_settings(serializer: str) -> None:
    bench = Bench(
        accept_content=(serializer,), task_serializer=serializer, result_serializer=serializer,
        result_extended=True,
    )  # fmt: skip
    add = bench.task(name="add")(lambda a, b=0: a + b)
    total = bench.task(name="total")(sum)
    fail = bench.task(name="fail")(lambda: int("x"))

    results = [add.delay(1, 2), chord([add.s(1, 1), add.s(2, 2)], total.s()).apply_async(), fail.delay()]
    grouped = group(add.s(1, 1), add.s(2, 2)).apply_async()
    grouped.save()
    assert bench.work()
    assert [results[0].get(timeout=5), results[1].get(timeout=5)] == [3, 6]
    with pytest.raises(ValueError, match="invalid literal"):
        results[2].get(timeout=5)
    restored = type(grouped).restore(grouped.id, app=bench.app)
    assert restored is not None
    assert restored.get(timeout=5) == [2, 4]
    raw = bench.kept.fetch(results[0].id)
    assert raw is not None
    with pytest.raises(DecodeError, match="json"):
        decode_result(raw)


def test_pickle_keeps_what_json_cannot(tmp_path: Path) -> None:
    bench = Bench(accept_content=("json", "pickle"), result_serializer="pickle")
    echo = bench.task(name="echo", serializer="pickle")(lambda value: value)
    value = {1: (2, 3), "set": {4}, "path": tmp_path}

    result = echo.delay(value)
    bench.work()
    assert result.get(timeout=5) == value
    eager = Bench(always_eager=True).task(name="echo")(lambda value: value)
    assert eager.apply_async(((1, 2),)).get() == [1, 2]
    assert eager.apply_async(((1, 2),), serializer="pickle").get() == (1, 2)


@pytest.mark.parametrize("serializer", ["yaml", "msgpack", "pickle"])
def test_celerys_result_backend_and_lightbus_read_each_others_results(serializer: str) -> None:
    app = Celery("results", backend="cache+memory://", set_as_current=False)
    app.conf.update(result_serializer=serializer, accept_content=[serializer])
    codec = Codec(serializer, (serializer,))

    ours = encode_result(ResultDocument(task_id="i", status="SUCCESS", result=[1, {"a": 2}]), codec=codec)
    read = app.backend.decode_result(ours)
    assert (read["status"], read["result"], read["task_id"]) == ("SUCCESS", [1, {"a": 2}], "i")
    app.backend.store_result(f"done-{serializer}", [1, {"a": 2}], "SUCCESS")  # all apps share its memory
    app.backend.store_result(f"failed-{serializer}", ValueError("no", 7), "FAILURE")
    keys = [app.backend.get_key_for_task(f"{name}-{serializer}") for name in ("done", "failed")]
    done, failed = (one.encode() if isinstance(one, str) else one for one in map(app.backend.get, keys))
    assert decode_result(done, codec).result == [1, {"a": 2}]
    error = decode_result(failed, codec).exception
    assert (type(error), getattr(error, "args", None)) == (ValueError, ("no", 7))


@pytest.fixture
def reversed_json() -> Iterator[str]:
    """A serializer of the application's own, as projects register one that signs."""
    name = "reversed-json"
    register(
        name, lambda value: kombu.utils.json.dumps(value)[::-1], lambda text: kombu.utils.json.loads(text[::-1]),
        content_type="application/x-reversed-json", content_encoding="utf-8",
    )  # fmt: skip
    yield name
    unregister(name)


def test_a_serializer_that_the_application_has_registered_works_for_tasks_and_results(reversed_json: str) -> None:
    bench = Bench(accept_content=(reversed_json,), task_serializer=reversed_json, result_serializer=reversed_json)
    echo = bench.task(name="echo")(lambda value: value)
    bench.endpoint()
    result = echo.delay({"a": 1})
    delivery = bench.transport.get("lightbus.celery")
    assert delivery is not None
    assert delivery.wire.content_type == "application/x-reversed-json"
    delivery.requeue()
    bench.work()
    assert result.get(timeout=5) == {"a": 1}
    raw = bench.kept.fetch(result.id)
    assert raw is not None
    assert raw.startswith(b"}")


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and other.cents == self.cents

    __hash__ = None  # type: ignore[assignment]


def test_types_that_the_application_has_registered_with_kombus_json_pass_both_ways() -> None:
    kombu.utils.json.register_type(Money, "shop.money", lambda one: one.cents, Money)
    try:
        ours = encode([Money(5)], "json").body
        assert ours == kombu.utils.json.dumps([Money(5)]).encode()
        assert decode(ours, "application/json") == kombu.utils.json.loads(ours.decode()) == [Money(5)]
        with pytest.raises(ValueError, match="nonesuch', which is not known"):
            decode(ours.replace(b"money", b"nonesuch"), "application/json")
        with pytest.raises(ValueError, match="cannot be written as JSON"):
            encode([object()], "json")
    finally:  # kombu has no public way to take it back
        kombu.utils.json._encoders.pop(Money)
        kombu.utils.json._decoders.pop("shop.money")


def test_what_cannot_be_written_or_read_is_said_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(task_serializer="nonesuch")
    bench.task(name="t")(lambda: None)
    with pytest.raises(ValueError, match="serializer 'nonesuch' is not known"):
        bench.app.tasks["t"].delay()
    with pytest.raises(ConfigError, match="task_serializer: serializer 'nonesuch'"):
        bench.endpoint()
    with pytest.raises(ValueError, match="cannot be written as yaml"):
        encode(object(), "yaml")
    with pytest.raises(ValueError, match="cannot be read as msgpack"):
        decode(b"\xc1", "application/x-msgpack")
    for place in ("cache+memory://", "db+sqlite://", "rpc://"):
        app = TaskApp(Settings(result_backend=place, result_serializer="pickle"))
        with pytest.raises(ConfigError, match="accept_content"):
            app.results  # noqa: B018 - opening them is what fails
    decoder, encoder = registry._decoders.pop("application/x-yaml"), registry._encoders["yaml"]
    registry.register("yaml", None, None, "application/x-yaml")
    registry.unregister("yaml")
    try:
        with pytest.raises(ValueError, match="serializer 'yaml' is not known"):
            encode([], "yaml")
    finally:
        registry.register("yaml", encoder.encoder, decoder, "application/x-yaml", "utf-8")


def test_both_sides_understand_each_other_on_redis(redis_url: str, prefix: str) -> None:
    settings = {"accept_content": ALL, "result_serializer": "pickle", "default_queue": prefix}
    theirs = Celery(prefix, broker=redis_url, backend=redis_url, set_as_current=False)
    theirs.conf.update(
        accept_content=list(ALL), result_serializer="pickle", task_default_queue=prefix,
        broker_connection_retry_on_startup=True,
    )  # fmt: skip

    @theirs.task(name=f"{prefix}.theirs", shared=False)
    def echo(value: Any) -> Any:
        return value

    transport, backend = open_transport(redis_url), open_result_backend(redis_url)
    ours = TaskApp(Settings(celery_serves_others=True, **settings), transport=transport, result_backend=backend)
    ours.task(name=f"{prefix}.ours")(lambda value: value)
    worker = Worker(ours)
    values = {"json": [1], "yaml": [1, {"a": b"\x00"}], "msgpack": [1, b"\x00"], "pickle": {(1, 2): {3}}}
    try:
        with start_worker(theirs, pool="solo", perform_ping_check=False, shutdown_timeout=60.0):
            for name, value in values.items():
                to_theirs = ours.send_task(f"{prefix}.theirs", (value,), serializer=name, queue=prefix)
                to_ours = theirs.send_task(f"{prefix}.ours", (value,), serializer=name, queue=f"lightbus.{prefix}")
                worker.work_one()
                assert to_theirs.get(timeout=60) == value
                assert to_ours.get(timeout=60) == value
    finally:
        worker.close()
        theirs.close()
        ours.close()
        transport.close()
