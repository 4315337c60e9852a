"""Stamps on a canvas: what `stamp` writes, whom a visitor is asked about, and what a task and its retries see of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import celery
import celery.canvas
import pytest

import lightbus.compat as ours
from lightbus.compat import TaskApp
from lightbus.compat.canvas import StampingVisitor
from tests.compat.bench import Bench

CELERY = celery.Celery("stamps", broker="memory://", set_as_current=False)
APP = TaskApp()


def theirs_signature(name: str, *args: Any, **options: Any) -> Any:
    return CELERY.signature(name, args=args, **options)


def ours_signature(name: str, *args: Any, **options: Any) -> Any:
    return ours.signature(name, args=args, app=APP, **options)


#: The same canvas is made and stamped on both sides.
THEIRS = SimpleNamespace(
    s=theirs_signature, group=celery.group, chain=celery.chain, chord=celery.chord,
    map=lambda task, it: celery.canvas.xmap(task, it, app=CELERY), visitor=celery.canvas.StampingVisitor,
)  # fmt: skip
OURS = SimpleNamespace(
    s=ours_signature, group=ours.group, chain=ours.chain, chord=ours.chord,
    map=lambda task, it: ours.xmap(task, it, app=APP), visitor=StampingVisitor,
)  # fmt: skip


def linked(side: Any) -> Any:
    sig = side.s("a", 1)
    sig.link(side.s("ok"))
    sig.link(side.s("ok2"))
    sig.link_error(side.s("bad"))
    return sig


CANVASES: dict[str, Callable[[Any], Any]] = {
    "task": lambda side: side.s("a", 1),
    "linked": linked,
    "chain": lambda side: side.chain(side.s("a", 1), linked(side), side.s("b")),
    "group": lambda side: side.group(side.s("a", 1), linked(side)),
    "chord": lambda side: side.chord([side.s("a", 1), side.s("a", 2)], side.s("body")),
    "nested": lambda side: side.chain(
        side.s("a"),
        side.chord(
            [side.chain(side.s("b"), side.s("c")), side.s("d")],
            side.chain(side.s("e"), side.s("f")),
        ),
    ),
    "group of chains": lambda side: side.group(side.chain(side.s("a"), side.s("b")), side.s("c")),
    "map": lambda side: side.map(side.s("a"), [1, 2]),
}


def visitor(side: Any, asked: list[Any]) -> Any:
    """Answers each question with a stamp of its own, and writes the question down."""

    def note(kind: str, part: Any, headers: dict[str, Any]) -> dict[str, Any]:
        asked.append({"kind": kind, "task": part["task"], "headers": json.loads(json.dumps(headers))})
        stamps = {kind: part["task"]}
        return {**stamps, "not_a_stamp": 1, "stamped_headers": [kind]} if kind == "on_callback" else stamps

    kinds = (
        "on_group_start", "on_chain_start", "on_chord_body", "on_callback", "on_errback", "on_signature",
    )  # fmt: skip
    methods: dict[str, Any] = {
        kind: lambda self, part, kind=kind, **headers: note(kind, part, headers) for kind in kinds
    }
    for kind in ("on_group_end", "on_chain_end"):
        methods[kind] = lambda self, part, kind=kind, **headers: note(kind, part, headers) and None
    return type("Visitor", (side.visitor,), methods)()


def plain(value: Any) -> Any:
    """As JSON, without what is an accident in Celery.

    The names are a set there. And lists are joined in place and shared, so that names and values of one signature are
    found with those after it: names without a value, which then cannot be sent, and the same value several times.
    """
    if isinstance(value, dict):
        found = {key: plain(one) for key, one in value.items() if key != "subtask_type"}
        if isinstance(found.get("header"), dict):  # a chord that a visitor has seen has a group there
            found["header"] = found["header"]["kwargs"]["tasks"]
        if "stamped_headers" in found:
            found["stamped_headers"] = sorted({name for name in found["stamped_headers"] if name in found})
        return found
    if isinstance(value, (list, tuple)):
        items = [plain(one) for one in value]
        return [one for at, one in enumerate(items) if one not in items[:at] or isinstance(one, dict)]
    return value


def as_json(sig: Any) -> Any:
    return plain(json.loads(json.dumps(sig)))


@pytest.mark.parametrize("append", [False, True], ids=["keep", "append"])
@pytest.mark.parametrize("canvas", CANVASES)
def test_stamps_are_put_where_celery_puts_them(canvas: str, append: bool) -> None:
    stamped = []
    for side in (THEIRS, OURS):
        sig = CANVASES[canvas](side)
        sig.stamp(append_stamps=append, customer="acme", run=[1])
        sig.stamp(append_stamps=append, customer="other", run=[2], more={"a": 1})
        stamped.append(as_json(sig))
    assert stamped[1] == stamped[0]


@pytest.mark.parametrize("canvas", CANVASES)
def test_a_visitor_is_asked_what_celery_asks_it_and_its_stamps_are_put_there(canvas: str) -> None:
    stamped: list[Any] = []
    for side in (THEIRS, OURS):
        asked: list[Any] = []
        sig = CANVASES[canvas](side)
        sig.stamp(visitor=visitor(side, asked), customer="acme")
        stamped.append((as_json(sig), [plain(one) for one in asked]))
    (their_canvas, they_asked), (our_canvas, we_asked) = stamped
    assert we_asked == they_asked
    assert our_canvas == their_canvas


def test_a_visitor_for_celery_may_override_the_hooks_of_a_chord(bench: Bench) -> None:
    class Visitor(StampingVisitor):
        def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
            return {}

        def on_chord_header_start(self, chord: Any, **headers: Any) -> dict[str, Any]:
            return {"part": "header", **super().on_chord_header_start(chord, **headers)}  # type: ignore[dict-item]

        def on_chord_header_end(self, chord: Any, **headers: Any) -> None:
            ended.append(headers["part"])

        def on_chord_body(self, chord: Any, **headers: Any) -> dict[str, Any]:
            return {"last": True}

    ended: list[str] = []
    sig = ours.chord([ours.signature("a"), ours.signature("b")], ours.signature("end"))
    assert sig.stamp(Visitor()) is sig
    assert [one.options["part"] for one in sig.tasks] == ["header", "header"]
    assert (sig.body.options["part"], sig.body.options["last"], ended) == ("header", True, ["header"])
    with pytest.raises(TypeError, match="on_signature"):
        StampingVisitor()  # type: ignore[abstract]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_task_sees_its_stamps_and_its_retries_callbacks_and_chords_keep_theirs(bench: Bench) -> None:
    seen: list[tuple[str, Any, Any]] = []

    def note(self: Any) -> None:
        seen.append((self.name, sorted(self.request.stamped_headers or []), dict(self.request.stamps or {})))

    @bench.task(name="again", bind=True, max_retries=1)
    def again(self: Any) -> int:
        note(self)
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        return 1

    @bench.task(name="after", bind=True)
    def after(self: Any, *args: Any) -> None:
        note(self)

    sig = again.s()
    sig.link(after.s())
    sig.stamp(customer="acme")
    sig.apply_async()
    bench.work()
    stamped = (["customer"], {"customer": "acme"})
    assert seen == [("again", *stamped), ("again", *stamped), ("after", *stamped)]

    class ByName(StampingVisitor):
        def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
            return {"name": sig.task}

    seen.clear()
    canvas = ours.chord([again.s(), again.s()], after.s())
    canvas.stamp(ByName(), customer="acme")
    canvas.apply_async()
    bench.work()
    names = [(name, stamps["name"], stamps["customer"]) for name, _, stamps in seen]
    assert sorted(names) == [("after", "after", "acme")] + [("again", "again", "acme")] * 4

    seen.clear()
    eager = after.s()
    eager.stamp(customer="acme")
    eager.apply()
    assert seen == [("after", ["customer"], {"customer": ["acme"]})]  # as Celery has it there


def test_a_stamped_message_is_celerys(bench: Bench) -> None:
    """As Celery's own producer writes it, seen on its in-memory broker."""
    theirs = CELERY.signature("golden", args=(1,), queue="stamped")
    theirs.stamp(customer="acme", run=[1, 2])
    theirs.apply_async()
    with CELERY.connection_for_write() as connection:
        written = connection.default_channel._get("stamped")["headers"]

    bench.task(name="golden")(lambda number: number)
    bench.endpoint()
    ours_sig = ours.signature("golden", args=(1,), app=bench.app)
    ours_sig.stamp(customer="acme", run=[1, 2])
    ours_sig.apply_async()
    sent = bench.transport.get("lightbus.celery")
    assert sent is not None
    assert sorted(sent.wire.headers["stamped_headers"]) == sorted(written["stamped_headers"]) == ["customer", "run"]
    assert sent.wire.headers["stamps"] == written["stamps"] == {"customer": "acme", "run": [1, 2]}
    assert set(sent.wire.headers) == set(written)
