"""Revoked tasks: the memory that processes share, its file, and what a worker does with a message of one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lightbus.compat import Settings, TaskApp, states
from lightbus.compat.endpoint import TaskEndpoint
from lightbus.compat.remote import revokes as revoking
from lightbus.compat.remote import statedb
from lightbus.compat.remote.revokes import Revokes, matching
from lightbus.compat.signals import task_postrun, task_revoked
from lightbus.core.errors import ConfigError, Terminated
from lightbus.core.outcome import Ack
from lightbus.drivers.memory_results import MemoryResults
from lightbus.endpoint import Invocation
from lightbus.ports import Delivery
from lightbus.worker.board import Board


def test_a_revoke_is_seen_by_processes_that_run_already() -> None:
    revokes = Revokes()
    reader, writer = os.pipe()
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(ready, 1)
        os.write(writer, b"y" if "a" in revokes and "b" not in revokes and revokes else b"n")
        os._exit(0)
    assert not revokes
    revokes.add(["a"])
    os.write(tell, b".")
    seen = os.read(reader, 1)
    os.waitpid(pid, 0)
    for descriptor in (reader, writer, ready, tell):
        os.close(descriptor)

    assert seen == b"y"


def test_ids_of_any_length_are_known_once_and_the_oldest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revoking, "MOST", 3)
    revokes = Revokes()
    revokes.add(["a", "b", "b", "x" * 500, "ü"])

    assert revokes.ids() == ["b", "ü"]  # the long one holds, but is not told
    assert "x" * 500 in revokes
    assert "a" not in revokes


def test_others_are_told_of_an_id_for_three_hours_and_it_holds_here_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    revokes = Revokes()
    revokes.add(["old"])
    now = time.monotonic() + revoking.TOLD_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: now)
    revokes.add(["new"])

    assert revokes.ids(told_only=True) == ["new"]
    assert revokes.ids() == ["old", "new"]
    assert "old" in revokes


def test_stamps_match_by_any_of_their_values() -> None:
    revokes = Revokes()
    revokes.add_stamps({"customer": ["7"]})
    revokes.add_stamps({"customer": ["8"], "batch": [1]})

    assert revokes.stamps() == {"customer": ["7", "8"], "batch": [1]}
    assert revokes.covers("any", {"customer": ["6", "8"]})
    assert revokes.covers("any", {"batch": 1})
    assert not revokes.covers("any", {"customer": "9", "other": 1})
    assert matching({"batch": 1, "customer": "7"}, revokes.stamps()) == {"batch": [1], "customer": ["7"]}
    with pytest.raises(ValueError, match="are the most"):
        revokes.add_stamps({"customer": ["x" * revoking.STAMPS_BYTES]})
    assert revokes.covers("any", {"customer": "7"})


def test_revokes_outlive_the_exec_of_a_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Revokes()
    before.add(["kept"])
    monkeypatch.setenv(revoking.VARIABLE, "")
    before.keep_over_exec()

    after = Revokes()
    assert "kept" in after
    assert revoking.VARIABLE not in os.environ  # no child hands it on
    assert "kept" not in Revokes()


def test_revokes_are_kept_in_a_file_and_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    revokes, after = Revokes(), Revokes()
    revokes.add(["b", "a"])
    revokes.add_stamps({"batch": [1]})
    statedb.load(path, revokes)
    statedb.save(path, revokes)
    statedb.load(path, after)

    assert (after.ids(), after.stamps()) == (["b", "a"], {"batch": [1]})
    assert list(tmp_path.iterdir()) == [path]
    for text in ("{}", "[]", '{"format": "other"}', "\x00"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="no state of a Lightbus worker"):
            statedb.load(path, Revokes())


@pytest.fixture
def app(memory_url: str) -> Iterator[TaskApp]:
    app = TaskApp(Settings(broker_url=memory_url), result_backend=MemoryResults())
    yield app
    app.close()


def _sent(app: TaskApp, name: str, **options: Any) -> Delivery:
    outgoing = app.outgoing(name, (1,), {}, options)
    return Delivery(outgoing.wire, "lightbus.celery", redelivered=False, settle=lambda settlement: None)


def test_a_revoked_message_is_not_run_and_its_caller_is_told(app: TaskApp) -> None:
    @app.task(name="t")
    def t(value: int) -> None:
        raise AssertionError("it must not run")

    endpoint = TaskEndpoint(app)
    delivery = _sent(app, "t", task_id="one")
    app.revokes.add(["one"])
    outcome = endpoint.prepare(delivery)
    document = app.results.fetch("one")

    assert isinstance(outcome, Ack)
    assert outcome.verdict == "revoked"
    assert document is not None
    assert document.status == states.REVOKED
    assert repr(document.exception) == "TaskRevokedError('revoked')"


def test_a_message_that_is_not_due_yet_is_dropped_when_it_is_revoked(app: TaskApp) -> None:
    app.task(name="t")(lambda value: None)
    delivery = _sent(app, "t", task_id="later", countdown=3600)
    app.revokes.add(["later"])

    assert isinstance(TaskEndpoint(app).prepare(delivery), Ack)


def test_a_message_with_a_revoked_stamp_is_not_run(app: TaskApp) -> None:
    app.task(name="t")(lambda value: None)
    plain = _sent(app, "t", task_id="s")
    stamped = {**plain.wire.headers, "stamped_headers": ["batch"], "stamps": {"batch": ["1"]}}
    wire = msgspec.structs.replace(plain.wire, headers=stamped)
    delivery = Delivery(wire, "lightbus.celery", redelivered=False, settle=lambda settlement: None)
    app.revokes.add_stamps({"batch": ["1"]})

    assert isinstance(TaskEndpoint(app).prepare(delivery), Ack)


def test_the_board_says_how_much_a_process_has_handled() -> None:
    board = Board(2, 1)
    place = board.place(1)
    place.waiting = 3
    place.handled = 7

    assert (board.place(1).handled, board.place(1).waiting, board.place(0).handled) == (7, 3, 0)
    board.clear(1)
    assert place.handled == 0


def test_receivers_and_monitors_hear_of_a_revoked_and_of_a_terminated_task(app: TaskApp) -> None:
    heard: list[tuple[Any, ...]] = []

    def listen(sender: Any, request: Any, terminated: Any, signum: Any, expired: Any, **_: Any) -> None:
        heard.append((request.id, terminated, signum, expired))

    def ended(sender: Any, task_id: str, state: str, **_: Any) -> None:
        heard.append((task_id, state))

    app.task(name="t")(lambda value: None)
    endpoint = TaskEndpoint(app)
    revoked, running = _sent(app, "t", task_id="one"), _sent(app, "t", task_id="two")
    app.revokes.add(["one"])
    task_revoked.connect(listen)
    task_postrun.connect(ended)
    try:
        endpoint.prepare(revoked)
        invocation = endpoint.prepare(running)
        assert isinstance(invocation, Invocation)
        outcome = endpoint.fail(invocation, Terminated(15))
        assert invocation.on_end is not None
        invocation.on_end()  # a coroutine's comes to it
    finally:
        task_revoked.disconnect(listen)
        task_postrun.disconnect(ended)

    assert heard == [("one", False, None, False), ("two", True, 15, False), ("two", "REVOKED")]
    assert isinstance(outcome, Ack)
    document = app.results.fetch("two")
    assert document is not None
    assert repr(document.exception) == "TaskRevokedError('terminated')"
