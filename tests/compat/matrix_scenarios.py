"""The scenarios of test_matrix, and the client that plays them.

A scenario sends something and returns a function that waits for what comes of it, so that all are under way at once.
What it gives is compared between the ways, so it holds nothing that differs from run to run.
As a program: reads ways, one JSON list of `[client, sides, name]`, and prints what came of each.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import redis
from celery import canvas as celery_canvas
from celery.result import AsyncResult, GroupResult

from lightbus import compat

NOTES_KEY = "matrix-notes-{}"
ENDS_AT = time.monotonic() + float(os.environ.get("MATRIX_WAIT", "200"))  #: see `left_seconds`
RICH = {"at": datetime(2026, 11, 24, 3, tzinfo=timezone.utc), "price": Decimal("1.50"), "none": None, "text": "å\n"}

Later = Callable[[], Any]


class Client:
    """One way: who sends, and who serves. `sides` says of each task in turn whether Celery (c) or Lightbus (l) does."""

    def __init__(self, app: Any, client: str, sides: str, name: str) -> None:
        self._app = app
        self._is_celery = client == "celery"
        canvas = celery_canvas if self._is_celery else compat
        self.chain, self.group, self.chord = canvas.chain, canvas.group, canvas.chord
        self.xmap, self.xstarmap, self.chunks = canvas.xmap, canvas.xstarmap, canvas.chunks
        self._signature = canvas.signature
        self._sides = sides
        self._count = 0
        self.key = f"{client}-{sides}-{name}"  #: for notes

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """A signature of the next side's task of that name."""
        side = self._sides[self._count % len(self._sides)]
        self._count += 1
        of = {"app": self._app} if self._is_celery else {}
        return self._signature(f"{side}.{name}", args=args, kwargs=kwargs, **of)

    def send_task(self, name: str, *args: Any) -> Any:
        """Send it by its name alone, so that nobody looks at its arguments before a worker does."""
        app = self._app if self._is_celery else compat.default_app()
        return app.send_task(self(name).task, args)

    def result(self, task_id: str) -> Any:
        return AsyncResult(task_id, app=self._app) if self._is_celery else compat.AsyncResult(task_id)

    def restored(self, group_id: str) -> Any:
        return GroupResult.restore(group_id, app=self._app) if self._is_celery else compat.GroupResult.restore(group_id)

    def notes(self, count: int) -> list[Any]:
        """What tasks noted for this way, once there are `count`, sorted."""
        with redis.Redis.from_url(os.environ["MATRIX_NOTES"], decode_responses=True) as notes:
            key = NOTES_KEY.format(self.key)
            until(lambda: notes.llen(key) >= count)
            return sorted(json.loads(one) for one in notes.lrange(key, 0, -1))


def left_seconds() -> float:
    """Until nobody waits any more: one moment for all, or those that never come would wait one after the other.

    Never 0, which Celery before 5.5 takes for no limit at all.
    """
    return max(0.01, ENDS_AT - time.monotonic())


def until(happened: Callable[[], Any]) -> None:
    while not happened():
        if time.monotonic() > ENDS_AT:
            raise TimeoutError
        time.sleep(0.02)


def outcome(result: Any) -> Any:
    """The value and state of a result; of an error its class, words, and whether there is a traceback."""
    try:
        value = result.get(timeout=left_seconds(), interval=0.05)
    except Exception as error:  # noqa: BLE001 - what the test compares
        value = [type(error).__name__, *map(str, error.args)]
    state = None if hasattr(result, "results") else result.state
    return [value, state, result.successful(), result.failed()]


def sent(signature: Any, *args: Any, **options: Any) -> Later:
    """Send it, and wait for its outcome later."""
    result = signature.apply_async(args, **options)
    return lambda: outcome(result)


Scenario = Callable[[Client], Later]


def alone(name: str, *args: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> Scenario:
    """One task by itself."""
    return lambda t: sent(t(name, *args, **kwargs), **(options or {}))


def _wrong_arguments(t: Client) -> Later:
    sent_by_name = t.send_task("add", 1, 2, 3)

    def later() -> Any:
        value, *states = outcome(sent_by_name)
        return [value[0], *states]

    return later


def _own_error(t: Client) -> Later:
    """Celery wraps what it cannot pickle; Lightbus keeps the class's name and the arguments. Both say these."""
    result = t("refuse").apply_async()

    def later() -> Any:
        value, *states = outcome(result)
        text = f"{value} {result.result!r}"
        return [[word in text for word in ("Refused", "not you")], states]

    return later


def _error(name: str, *args: Any, **kwargs: Any) -> Scenario:
    """One task that fails in words of its own side, or with its id in them: the class alone is compared."""

    def scenario(t: Client) -> Later:
        result = t(name, *args, **kwargs).apply_async()

        def later() -> Any:
            value, *states = outcome(result)
            return [value[0], *states]

        return later

    return scenario


def _traceback(t: Client) -> Later:
    result = t("caused").apply_async()

    def later() -> Any:
        found = outcome(result)
        return [found, [word in result.traceback for word in ("KeyError", "RuntimeError", "in caused")]]

    return later


def _extended(t: Client) -> Later:
    result = t("echo", 1, b=2).apply_async()

    def later() -> Any:
        result.get(timeout=left_seconds())
        queue = result.queue.removeprefix("lightbus.")
        return [result.name[2:], result.args, result.kwargs, result.retries, queue, result.date_done is not None]

    return later


def _ignored(t: Client) -> Later:
    after = t("echo", "after").set(task_id=f"{t.key}-after")
    result = t("silent", 5).apply_async(link=after)
    return lambda: [outcome(t.result(after.id))[0], result.state]


def _wanted_all_the_same(t: Client) -> Later:
    return sent(t("silent", 5), ignore_result=False)


def _progress(t: Client) -> Later:
    result = t("progress").apply_async()

    def later() -> Any:
        until(lambda: result.state == "PROGRESS")
        return [result.state, result.info, result.ready()]

    return later


def _forgotten(t: Client) -> Later:
    result = t("add", 1, 2).apply_async()

    def later() -> Any:
        before = outcome(result)
        result.forget()
        return [before, t.result(result.id).state]

    return later


def _countdown(t: Client) -> Later:
    return sent(t("waited", time.time() + 0.6), countdown=0.6)


def _linked(t: Client) -> Later:
    callbacks = [t("add", n).set(task_id=f"{t.key}-{n}") for n in (10, 20)]
    result = t("add", 1, 1).apply_async(link=callbacks)
    return lambda: [outcome(result), *(outcome(t.result(one.id)) for one in callbacks)]


def _link_of_a_link(t: Client) -> Later:
    first, second = t("add", 10), t("add", 100).set(task_id=f"{t.key}-end")
    first.link(second)
    t("add", 1, 1).apply_async(link=first)
    return lambda: outcome(t.result(second.id))


def _immutable_link(t: Client) -> Later:
    callback = t("echo", "own").set(task_id=f"{t.key}-link", immutable=True)
    t("add", 1, 1).apply_async(link=callback)
    return lambda: outcome(t.result(callback.id))


def _errback(name: str, *, immutable: bool = False) -> Scenario:
    def scenario(t: Client) -> Later:
        errback = t(name, t.key)
        if immutable:
            errback = t(name, "told", t.key).set(immutable=True)
        result = t("fail").apply_async(link_error=errback)

        def later() -> Any:
            found = outcome(result)
            return [found, [["<id>" if word == result.id else word for word in one] for one in t.notes(1)]]

        return later

    return scenario


def _errbacks_of_a_chain(t: Client) -> Later:
    chain = t.chain(t("add", 1, 1), t("fail"), t("add", 1))
    result = chain.on_error(t("errback_by_failure", t.key)).apply_async()

    def later() -> Any:
        found = outcome(result)
        return [found, [one[2:] for one in t.notes(1)], result.parent.state, result.parent.parent.state]

    return later


def _errback_of_a_chord(name: str) -> Scenario:
    def scenario(t: Client) -> Later:
        body = t("total").on_error(t(name, t.key))
        result = t.chord([t("add", 1, 1), t("fail")], body).apply_async()

        def later() -> Any:
            found = outcome(result)[1:]  # the words name the id of the task that failed
            notes = [[word for word in one if not str(word).startswith("Dependency")] for one in t.notes(1)]
            return [found, [["<id>" if word == result.id else word for word in one] for one in notes]]

        return later

    return scenario


def _parents(t: Client) -> Later:
    result = t.chain(t("add", 1, 2), t("add", 3), t("add", 4)).apply_async()

    def later() -> Any:
        found, one = [], result
        while one is not None:
            found.append(outcome(one)[:2])
            one = one.parent
        children = [child.id for child in t.result(result.parent.id).children]
        return [found, children == [result.id]]

    return later


def _child(t: Client) -> Later:
    result = t("parent").apply_async()

    def later() -> Any:
        child = t.result(result.get(timeout=left_seconds())[0])
        return [outcome(child), [one.id == child.id for one in t.result(result.id).children]]

    return later


def _family_of_a_chain(t: Client) -> Later:
    result = t.chain(t("family"), t("family"), t("family")).apply_async()

    def later() -> Any:
        result.get(timeout=left_seconds())
        last, middle, first = result, result.parent, result.parent.parent
        values = [one.get(timeout=left_seconds()) for one in (first, middle, last)]
        before = [None, first.id, middle.id]
        return [[root == first.id, parent == one, *rest] for (root, parent, *rest), one in zip(values, before)]  # noqa: B905 - as many

    return later


def _family_of_a_chord(t: Client) -> Later:
    result = t.chord([t("family"), t("family")], t("echo")).apply_async()

    def later() -> Any:
        members = result.get(timeout=left_seconds())[0][0]
        return [[parent, *rest] for _root, parent, *rest in members]

    return later


def _group_result(t: Client) -> Later:
    result = t.group(t("add", n, n) for n in range(4)).apply_async()

    def later() -> Any:
        values = [result.get(timeout=left_seconds()), result.join(timeout=left_seconds())]
        looks = [result.ready(), result.successful(), result.failed(), result.waiting(), result.completed_count()]
        result.save()
        restored = t.restored(result.id)
        again = restored.get(timeout=left_seconds())
        restored.delete()
        return [values, looks, len(result), [one.id for one in restored] == [one.id for one in result], again,
                t.restored(result.id)]  # fmt: skip

    return later


def _failed_group(t: Client) -> Later:
    result = t.group(t("add", 1, 1), t("fail"), t("add", 2, 2)).apply_async()

    def later() -> Any:
        kept = result.join(timeout=left_seconds(), propagate=False)
        shown = [repr(one) for one in kept]
        return [shown, outcome(result), result.completed_count(), [one.state for one in result]]

    return later


def _native(t: Client) -> Later:
    result = t.group(t("add", n, 1) for n in range(3)).apply_async()

    def later() -> Any:
        found = {task_id: meta["result"] for task_id, meta in result.iter_native(timeout=left_seconds())}
        return [found[one.id] for one in result]

    return later


def _two_chords(t: Client) -> Later:
    first = t("add", 1, 1) | t.group(t("add", 1), t("add", 2)) | t("total")
    return sent(first | t.group(t("add", 1), t("add", 2)) | t("total"))


def _late(t: Client) -> Later:
    """Not to be run any more when its time has come. A worker has it then: RabbitMQ drops what expires in a queue."""
    return sent(t("add", 1, 1), countdown=7.0, expires=6.0)


#: By one side at a time.
SCENARIOS: dict[str, Scenario] = {
    "expires while it waits": _late,  # the first, as it takes longest
    "result": alone("add", 1, 2),
    "arguments by name": alone("echo", 1, [2, {"three": 3}], four=4.5, five=None),
    "rich values": alone("echo", RICH, value=RICH),
    "wrong arguments": _wrong_arguments,
    "known error": alone("fail"),
    "own error": _own_error,
    "error with a cause": _traceback,
    "expected error": alone("expected"),
    "result without a JSON form": _error("unwritable"),
    "what is kept beside the result": _extended,
    "retry": alone("again", 2),
    "retry too often": alone("again", 9),
    "retry too often without an error": _error("again", 9, exc=False),
    "retry with other arguments": alone("climb", 1, top=3),
    "autoretry": alone("stubborn", 2),
    "autoretry too often": alone("stubborn", 9),
    "no autoretry": alone("stubborn", 9, missing=True),
    "own state, then Ignore": _progress,
    "Reject": alone("reject"),
    "Reject, once more": alone("reject_once"),
    "ignore_result": _ignored,
    "ignore_result undone": _wanted_all_the_same,
    "forgotten": _forgotten,
    "countdown": _countdown,
    "expires later": alone("add", 1, 2, options={"expires": 600}),
    "soft limit, caught": alone("slow", catches=True),
    "soft limit, not caught": _error("slow", catches=False),
    "request": alone(
        "about", 1, b=2,
        options={"headers": {"my_header": "x"}, "time_limit": 60, "soft_time_limit": 30, "expires": 600, "shadow": "s"},
    ),
    "request without options": alone("about"),
    "priority": alone("about", options={"priority": 3}),
    "replaced by a task": alone("replaced", "task"),
    "replaced by a chain": alone("replaced", "chain"),
    "replaced by a group": alone("replaced", "group"),
    "replaced by a chord": alone("replaced", "chord"),
    "replaced by what fails": alone("replaced", "failing"),
    "replaced twice": alone("replaced", "twice"),
    "child": _child,
    "errback by id": _errback("errback_by_id"),
    "errback by failure": _errback("errback_by_failure"),
    "bound errback": _errback("errback_bound"),
    "immutable errback": _errback("errback_by_id", immutable=True),
    "errbacks of a chain": _errbacks_of_a_chain,
    "errback of a chord by id": _errback_of_a_chord("errback_by_id"),
    "errback of a chord by failure": _errback_of_a_chord("errback_by_failure"),
}  # fmt: skip

#: Of several tasks each: by one side, and by both in turn.
CANVASES: dict[str, Scenario] = {
    "chain": lambda t: sent(t.chain(t("add", 1, 2), t("add", 3), t("add", 4))),
    "parents of a chain": _parents,
    "family of a chain": _family_of_a_chain,
    "group": lambda t: sent(t.group(t("add", n, n) for n in range(4))),
    "group result": _group_result,
    "group with a failure": _failed_group,
    "group in native form": _native,
    "chord": lambda t: sent(t.chord([t("add", n, n) for n in range(6)], t("total"))),
    "family of a chord": _family_of_a_chord,
    "chord then tasks": lambda t: sent(
        t.group(t("add", 1, 1), t("add", 2, 2)) | t("total") | t("add", 1) | t("add", 1)
    ),
    "task then group": lambda t: sent(t("add", 1, 1) | t.group(t("add", 1), t("add", 2))),
    "task chord task": lambda t: sent(t("add", 1, 1) | t.group(t("add", 1), t("add", 2)) | t("total") | t("add", 10)),
    "two chords": _two_chords,
    "groups in a group": lambda t: sent(t.group(t.group(t("add", 1, 1), t("add", 2, 2)), t("add", 3, 3))),
    "chains in a header": lambda t: sent(
        t.chord([t("add", 1, 1) | t("add", 2), t("add", 3, 3) | t("add", 4)], t("total"))
    ),
    "chord in a header": lambda t: sent(
        t.chord([t.chord([t("add", 1, 1), t("add", 2, 2)], t("total")), t("add", 3, 3)], t("total"))
    ),
    "group at the end of a chain in a header": lambda t: sent(
        t.chord([t("add", 1, 1) | t.group(t("add", 2), t("add", 3)), t("add", 4, 4)], t("echo"))
    ),
    "chord of a group alone": lambda t: sent(t.chord(t.group(t("add", 1, 1)), t("total"))),
    "replaced in a chain": lambda t: sent(t("replaced", "chain") | t("add", 1) | t("add", 1)),
    "replaced in a header": lambda t: sent(t.chord([t("replaced", "task"), t("add", 1, 1)], t("total"))),
    "more in a chord": lambda t: sent(t.chord([t("grow"), t("add", 10, 0)], t("total"))),
    "immutable": lambda t: sent(t("add", 1, 1) | t("add", 5, 5).set(immutable=True) | t("add", 1)),
    "map": lambda t: sent(t.xmap(t("total"), [[1, 2], [3, 4]])),
    "starmap": lambda t: sent(t.xstarmap(t("add"), [[1, 2], [3, 4]])),
    "chunks": lambda t: sent(t.chunks(t("add"), [(n, n) for n in range(5)], 2)),
    "map in a chain": lambda t: sent(t.xmap(t("total"), [[1, 2], [3, 4]]) | t("total")),
    "links": _linked,
    "link of a link": _link_of_a_link,
    "immutable link": _immutable_link,
    "failed step": lambda t: sent(t.chain(t("add", 1, 1), t("fail"), t("add", 1), t("add", 1))),
}

#: Chords that fail: the error names the id of the task, so its class alone is compared.
FAILED_CHORDS: dict[str, Callable[[Client], Any]] = {
    "failed header": lambda t: t.chord([t("add", 1, 1), t("fail"), t("add", 2, 2)], t("total")),
    "failed chain in a header": lambda t: t.chord([t("add", 1, 1), t("fail") | t("add", 1)], t("total") | t("add", 1)),
    "failed header of an inner chord": lambda t: t.chord(
        [t.chord([t("fail"), t("add", 1, 1)], t("total")), t("add", 1, 1)], t("total")
    ),
    "failed body": lambda t: t.chord([t("add", 1, 1), t("add", 2, 2)], t("fail") | t("add", 1)),
}


def _failed_chord(build: Callable[[Client], Any]) -> Scenario:
    def scenario(t: Client) -> Later:
        result = build(t).apply_async()

        # Its own state is not compared: `get` raises as soon as one that it waits for has failed, and of a chord around
        # one whose header has failed Celery's stays PENDING for ever.
        return lambda: outcome(result)[0][0]

    return scenario


CANVASES |= {name: _failed_chord(build) for name, build in FAILED_CHORDS.items()}


#: What Celery itself makes something of from that version on only, and what it did before. With an older one Lightbus
#: serves these alone, whoever sends them.
SINCE: dict[str, tuple[tuple[int, int], str]] = {
    "Reject": ((5, 7), "no result is stored: it is PENDING for ever"),
    "ignore_result undone": ((5, 7), "the task's own ignore_result wins over that of the call"),
    "errback by id": ((5, 7), "an errback with arguments of its own is not called with the id alone"),
    "errback of a chord by id": ((5, 7), "as `errback by id`"),
    "group at the end of a chain in a header": (
        (5, 7), "the process that counts the header waits without an end for the group, which it should run itself",
    ),
}  # fmt: skip


def play(app: Any, ways: list[list[str]]) -> list[Any]:
    """What comes of every way, in their order."""
    every = SCENARIOS | CANVASES
    under_way = [_begun(every[name], Client(app, client, sides, name)) for client, sides, name in ways]
    return [_waited_for(later) for later in under_way]


def _begun(scenario: Scenario, client: Client) -> Later:
    try:
        return scenario(client)
    except Exception as error:  # noqa: BLE001 - as below
        said = f"{type(error).__name__}: {error}, when it was to be sent"
        return lambda: said


def _waited_for(later: Later) -> Any:
    try:
        return json.loads(json.dumps(later(), default=repr))
    except Exception as error:  # noqa: BLE001 - compared like any other outcome, and a timeout is none
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    from tests.compat.matrix_project import app

    print(json.dumps(play(app, json.loads(sys.stdin.read()))))
