"""Chords in every kind of result backend, and that none of them waits for ever."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import Celery
from celery.app.task import Context
from celery.backends.redis import RedisBackend

from lightbus.compat import ChordError, ChordsRefused, Settings, TaskApp, chord, group
from lightbus.compat.bridge import adopt
from lightbus.compat.chordpauses import Pauses
from lightbus.compat.chords import FIRST_LOOK_SECONDS, Chords
from lightbus.compat.exceptions import Ignore
from lightbus.compat.results import ResultDocument
from lightbus.core.errors import NotConfirmed
from lightbus.core.outcome import DeadLetter
from lightbus.endpoint import Invocation, LostRun
from tests.compat.bench import Bench
from tests.compat.test_canvas import Sums

MEMORY_CACHE = "celery.backends.cache:CacheBackend"  # Celery's own, which all of a process share


@pytest.fixture(params=["counted", "tallied", "unlocked"])
def sums(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sums]:
    """A bench whose chords are counted in one of the three ways."""
    monkeypatch.setattr("lightbus.compat.chords.FIRST_LOOK_SECONDS", 0.01)
    sums = Sums()
    settings: dict[str, Any] = {"result_chord_retry_interval": 0.01}
    if request.param == "tallied":
        settings |= {"result_backend": MEMORY_CACHE, "cache_backend": "memory"}
    if request.param == "unlocked":
        settings["result_backend"] = f"file://{tmp_path}"
    if request.param != "counted":
        sums.app._result_backend = None
    sums.app.configure(Settings.from_mapping(settings))
    yield sums
    sums.app.close()


def finish(sums: Bench, result: Any) -> list[Any]:
    """Work until the result is there; looks at a chord have a delay of their own, so one round is not enough."""
    outcomes: list[Any] = []
    for _ in range(2000):
        outcomes += sums.work()
        if result.ready():
            return outcomes
        result.app.results.wait(result.id, timeout_seconds=0.01)
    raise AssertionError(f"{result!r} is {result.state}: the chord hangs")


def test_a_chord_brings_its_results_in_their_order_and_shape(sums: Sums) -> None:
    plain = chord([sums.add.s(n, n) for n in range(5)], sums.task(name="same")(lambda found: found).s()).apply_async()
    nested = chord([sums.add.s(1, 1), group(sums.add.s(2), sums.add.s(3))], sums.app.tasks["same"].s()).apply_async()
    inner = chord([chord([sums.add.s(1, 1), sums.add.s(2, 2)], sums.total.s()), sums.add.s(3, 3)], sums.total.s())
    deep = inner.apply_async()
    for result in (plain, nested, deep):
        finish(sums, result)

    assert plain.get(timeout=1) == [0, 2, 4, 6, 8]
    assert nested.get(timeout=1) in ([2, [2, 3]], [2, 2, 3])
    assert deep.get(timeout=1) == 12


def ignores() -> None:
    raise Ignore


MEMBERS = {
    "fails": {},
    "has a step that fails": {},
    "has wrong arguments": {},
    "is not known": {},
    "has expired": {"expires": "2020-01-01T00:00:00+00:00"},
    "ends with Ignore": {},
    "fails and its result is ignored": {},
}


@pytest.mark.parametrize("member", MEMBERS)
def test_a_chord_with_a_member_that_brings_nothing_fails_and_hangs_nobody(sums: Sums, member: str) -> None:
    sums.task(name="ignores")(ignores)
    sums.task(name="fails quietly", ignore_result=True)(sums._fail)
    sent = {
        "fails": sums.fail.s(),
        "has a step that fails": sums.fail.s() | sums.add.s(1),
        "has wrong arguments": sums.app.signature("add", args=(1, 2, 3, 4)),
        "is not known": sums.app.signature("unknown", queue="celery"),
        "has expired": sums.add.s(1).set(**MEMBERS["has expired"]),
        "ends with Ignore": sums.app.tasks["ignores"].s(),
        "fails and its result is ignored": sums.app.tasks["fails quietly"].s(),
    }[member]
    sums.add.typing = False  # as at a sender that does not know the function
    body = sums.total.s() | sums.add.s(1)
    result = chord([sums.add.s(1, 1), sent, sums.add.s(2, 2)], body).apply_async()
    sums.add.typing = True
    if member == "is not known":  # it lies in Celery's queue; a Lightbus worker that serves it does not know it either
        sums.work("celery")

    finish(sums, result)

    assert (result.state, result.parent.state) == ("FAILURE", "FAILURE")
    assert isinstance(result.parent.result, ChordError)


def test_a_chord_whose_member_is_lost_with_its_process_fails(sums: Sums) -> None:
    result = chord([sums.add.s(1, 1), sums.add.s(2, 2)], sums.total.s()).apply_async()
    delivery, others = sums.transport.get("lightbus.celery"), []
    while delivery is not None and delivery.wire.headers["task"] != "add":
        others.append(delivery)  # given back now, it would be the next one again
        delivery = sums.transport.get("lightbus.celery")
    for other in others:
        other.requeue()
    assert delivery is not None
    endpoint = sums.endpoint()
    started = endpoint.prepare(delivery)
    delivery.ack()
    assert isinstance(started, Invocation)
    endpoint.lost(
        LostRun(
            name=started.name, id=started.id, queue=started.queue, attempt=1, reply_to="", over_time=False,
            text="killed", remains=started.remains,
        )
    )  # fmt: skip

    finish(sums, result)

    assert isinstance(result.result, ChordError)


def test_results_that_are_ignored_are_counted_all_the_same(sums: Sums) -> None:
    quiet = sums.task(name="quiet", ignore_result=True)(lambda n: n)
    result = chord([quiet.s(1), quiet.s(2)], sums.total.s()).apply_async()
    finish(sums, result)

    assert result.get(timeout=1) == 3


def test_a_replaced_or_retried_member_counts_when_it_ends(sums: Sums) -> None:
    @sums.task(name="replaced", bind=True)
    def replaced(self: Any) -> Any:
        return self.replace(sums.add.s(20, 2))

    @sums.task(name="retried", bind=True, max_retries=1)
    def retried(self: Any) -> int:
        if self.request.retries:
            return 5
        self.retry(countdown=0.01, throw=False)
        raise Ignore

    result = chord([replaced.s(), retried.s(), sums.add.s(1, 1)], sums.total.s()).apply_async()
    finish(sums, result)

    assert result.get(timeout=1) == 29


def test_an_adopted_member_that_replaces_itself_leaves_the_count_to_its_replacement(sums: Sums) -> None:
    theirs = Celery("theirs", broker="memory://", backend="cache+memory://", set_as_current=False)

    @theirs.task(name="swap", bind=True, shared=False)
    def swap(self: Any) -> Any:
        return self.replace(theirs.signature("other", args=(5,)))

    adopt(sums.app, theirs, ["swap"])
    result = chord([sums.app.signature("swap"), sums.add.s(1, 1)], sums.total.s()).apply_async()
    sums.work("lightbus.celery", "celery")  # a queue that this worker serves by name
    sums.work("lightbus.celery", "celery")
    assert result.state == "PENDING"

    swapped, _ = result.parent.results
    member = next(message for _, message, _ in sums.published if message.task == "swap")
    sums.put_task(task="add", id=swapped.id, args=(5, 0), group=member.group, group_index=0, chord=member.chord)
    finish(sums, result)
    assert result.get(timeout=5) == 7


def test_a_body_that_is_not_taken_at_once_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    send, refused = Chords._send_body, []

    def refuse_once(self: Chords, callback: Any, values: list[Any]) -> None:
        if callback.id not in refused:
            refused.append(callback.id)
            raise NotConfirmed("the broker is away")
        send(self, callback, values)

    monkeypatch.setattr(Chords, "_send_body", refuse_once)
    for settings in (
        {"result_backend": f"file://{tmp_path}"}, {"result_backend": MEMORY_CACHE, "cache_backend": "memory"},
    ):  # fmt: skip
        sums = unlocked(tmp_path, **settings)
        result = chord([sums.add.s(1, 1), sums.add.s(2, 2)], sums.total.s()).apply_async()
        finish(sums, result)

        assert result.get(timeout=5) == 6
        assert refused[-1] == result.id


# Where somebody has to look


def unlocked(tmp_path: Path, **settings: Any) -> Sums:
    sums = Sums()
    sums.app._result_backend = None
    sums.app.configure(
        Settings.from_mapping({"result_backend": f"file://{tmp_path}", "result_chord_retry_interval": 0.01, **settings})
    )
    return sums


def test_who_looks_is_asked_as_celery_asks(tmp_path: Path) -> None:
    sums = unlocked(tmp_path)
    result = chord([sums.add.s(1, 1), sums.add.s(2, 2)], sums.total.s()).apply_async(interval=0.5, max_retries=7)

    (route, message, delay) = next(one for one in sums.published if one[1].task == "celery.chord_unlock")

    assert route.routing_key == "lightbus.celery", "where the body is served"
    assert delay == pytest.approx(FIRST_LOOK_SECONDS, abs=0.1)
    group_id, body = message.args
    assert (group_id, body["options"]["task_id"]) == (result.parent.id, result.id)
    members = [[[one.id, None], None] for one in result.parent.results]
    found = {**message.kwargs, "result": [[list(one[0]), one[1]] for one in message.kwargs["result"]]}
    assert found == {"interval": 0.5, "max_retries": 7, "result": members}


def test_a_body_that_celery_serves_is_looked_for_there(tmp_path: Path) -> None:
    sums = unlocked(tmp_path, task_routes={"theirs": {"queue": "heavy"}})
    chord([sums.add.s(1, 1)] * 2, sums.app.signature("theirs")).apply_async()

    (route, _, _) = next(one for one in sums.published if one[1].task == "celery.chord_unlock")

    assert route.routing_key == "heavy"


def test_looking_ends_with_the_retries_or_when_no_result_can_come_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightbus.compat.chords.FIRST_LOOK_SECONDS", 0.01)
    sums = unlocked(tmp_path, result_expires=0.03)
    never = [sums.app.signature("theirs", queue="celery")] * 2
    few = chord(never, sums.total.s()).apply_async(max_retries=1)
    finish(sums, few)
    assert "chord_unlock could not be retried" in str(few.result)

    long = chord(never, sums.total.s()).apply_async()
    finish(sums, long)
    assert "no result after" in str(long.result)


def test_a_result_that_cannot_be_read_fails_the_chord(tmp_path: Path) -> None:
    sums = unlocked(tmp_path)
    result = chord([sums.add.s(1, 1), sums.add.s(2, 2)], sums.total.s()).apply_async()
    (tmp_path / f"celery-task-meta-{result.parent.results[0].id}").write_bytes(b"\x80\x04pickle")
    look: Any = sums.app.find("celery.chord_unlock")
    sums.app.chords.unlock(look, result.parent, sums.app.signature(sums.published[-1][1].chord), Pauses())

    assert isinstance(result.result, ChordError)
    assert "cannot be read" in str(result.result)


def test_rpc_refuses_a_chord_as_celery_does() -> None:
    sums = Sums()
    sums.app._result_backend = None
    sums.app.configure(Settings(result_backend="rpc://"))
    theirs = Celery("c", broker="memory://", backend="rpc://", set_as_current=False)

    with pytest.raises(NotImplementedError):
        theirs.backend.ensure_chords_allowed()
    with pytest.raises(NotImplementedError) as caught:
        chord([sums.add.s(1, 1)], sums.total.s()).apply_async()
    assert isinstance(caught.value, ChordsRefused)
    sums.app.close()


# With members in Celery


def total(numbers: list[int]) -> int:
    return sum(numbers)


class Fleet:
    """Both sides on one tallying backend; Celery's messages go to a broker in memory."""

    def __init__(self, celery_backend: str, **settings: Any) -> None:
        self.celery = Celery("theirs", broker="memory://", set_as_current=False)
        self.celery.conf.update(result_backend=celery_backend, **settings)
        self.celery.task(name="total", shared=False)(total)
        self.celery.finalize()
        self.sums = Sums()
        self.sums.app._result_backend = None
        name = "django-db" if "django" in celery_backend else celery_backend
        self.sums.app.configure(Settings.from_mapping({"result_backend": name, **settings}))

    def begin_in_celery(self, group_id: str, members: list[Any], body: Any) -> None:
        """What a Celery client does before it sends a header."""
        backend = self.celery.backend
        backend.apply_chord((group_id, members), body)
        backend.set_chord_size(group_id, len(members))

    def end_in_celery(self, member: Any, value: Any, group_id: str, body: Any, state: str = "SUCCESS") -> None:
        """What a Celery worker does at the end of a header's first task."""
        request = Context(id=member.id, group=group_id, group_index=0, chord=body, task="add", delivery_info={})
        backend = self.celery.backend
        if state == "SUCCESS":
            backend.mark_as_done(member.id, value, request=request)
        else:
            backend.mark_as_failure(member.id, value, request=request)


@pytest.fixture(params=["django-db", "memory cache", "redis", "redis class", "redis as they come"])
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    if request.param == "django-db":
        request.getfixturevalue("django_project")
        found = Fleet("django_celery_results.backends.database:DatabaseBackend")
    elif request.param == "memory cache":
        found = Fleet(MEMORY_CACHE, cache_backend="memory")
    else:
        url: str = request.getfixturevalue("redis_url")
        if request.param == "redis class":
            parts = urlsplit(url)
            where = {"redis_host": parts.hostname, "redis_port": parts.port, "redis_db": int(parts.path.strip("/"))}
            found = Fleet("tests.compat.test_chord_places:OwnRedis", **where)
        else:
            ordered = {"result_chord_ordered": request.param == "redis"}
            found = Fleet(url, result_backend_transport_options=ordered)
    yield found
    found.sums.app.close()


def test_the_last_member_sends_the_body_whoever_began_the_chord(fleet: Fleet) -> None:
    sums = fleet.sums
    ours = chord([sums.add.s(1, 1), sums.add.s(2, 2)], sums.total.s()).apply_async()
    body = sums.published[-1][1].chord
    stolen = next(one for one in iter(lambda: sums.transport.get("lightbus.celery"), None))
    stolen.ack()  # a Celery worker got this one
    member = next(one for one in ours.parent.results if one.id == stolen.wire.headers["id"])
    fleet.end_in_celery(member, 2, ours.parent.id, body)
    finish(sums, ours)
    assert ours.get(timeout=5) == 6

    group_id, body_id = str(uuid.uuid4()), str(uuid.uuid4())
    members = [fleet.celery.AsyncResult(str(uuid.uuid4())) for _ in range(2)]
    sig = fleet.celery.signature("total", options={"task_id": body_id})
    fleet.begin_in_celery(group_id, members, sig)
    fleet.end_in_celery(members[0], 4, group_id, dict(sig))
    sums.put_task(task="add", id=members[1].id, args=(5, 1), group=group_id, group_index=1, chord=dict(sig))
    theirs = sums.app.AsyncResult(body_id)
    finish(sums, theirs)
    assert theirs.get(timeout=5) == 10


def test_a_failure_in_celery_fails_the_body_that_lightbus_sends(fleet: Fleet) -> None:
    sums = fleet.sums
    group_id, body_id = str(uuid.uuid4()), str(uuid.uuid4())
    members = [fleet.celery.AsyncResult(str(uuid.uuid4())) for _ in range(2)]
    sig = fleet.celery.signature("total", options={"task_id": body_id})
    fleet.begin_in_celery(group_id, members, sig)
    fleet.end_in_celery(members[0], ValueError("no"), group_id, dict(sig), "FAILURE")
    sums.put_task(task="add", id=members[1].id, args=(5, 1), group=group_id, group_index=1, chord=dict(sig))
    result = sums.app.AsyncResult(body_id)
    finish(sums, result)

    assert isinstance(result.result, ChordError)
    assert "ValueError('no')" in str(result.result)
    assert fleet.celery.AsyncResult(body_id).state == "FAILURE"


def test_lightbus_keeps_out_of_chords_that_a_backend_counts_in_its_own_way() -> None:
    app = TaskApp(Settings(result_backend="tests.compat.test_chord_places:OwnCount"), transport=Bench().transport)
    bench = Bench()
    bench.app = app = TaskApp(app.settings, transport=bench.transport)
    bench.task(name="t")(lambda: 1)
    bench.put_task(task="t", group="g", group_index=0, chord={"task": "body"})

    (outcome,) = bench.work()

    assert isinstance(outcome, DeadLetter)
    assert outcome.reason == "unsupported"
    with pytest.raises(ChordsRefused):
        chord([app.signature("t")], app.signature("t")).apply_async()
    app.results.store(ResultDocument(task_id="i", status="SUCCESS", result=1), reply_to="", correlation_id="")
    assert app.AsyncResult("i").get(timeout=5) == 1


def _own_count() -> Any:
    from celery.backends.cache import CacheBackend

    class OwnCount(CacheBackend):
        def __init__(self, app: Any, **options: Any) -> None:
            super().__init__(app, **{**options, "backend": "memory://", "url": None})

        def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
            """In a way that nobody else knows."""

    return OwnCount


OwnCount = _own_count()


class OwnRedis(RedisBackend):
    """A class of one's own that is a Redis."""
