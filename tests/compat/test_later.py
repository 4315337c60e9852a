"""`lightbus_confirm_later`: nobody waits for a confirm, and every message is confirmed all the same."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lightbus.compat import Settings, TaskApp, later, together
from lightbus.core.errors import NotConfirmed
from lightbus.drivers import open_transport
from tests.compat.bench import Bench
from tests.compat.test_together import held_back
from tests.processes import Process, wait_for
from tests.proxy import Proxy

SENDER = """
import os, sys
from lightbus.compat import Settings, TaskApp

app = TaskApp(Settings(broker_url=sys.argv[1], confirm_later=True, task_ignore_result=True))
noop = app.task(name="later.noop", queue=sys.argv[2])(lambda number: None)
for number in range(int(sys.argv[3])):
    noop.delay(number)
    if number % 100 == 0:
        print(number, flush=True)
"""


def test_a_call_returns_before_the_confirm_and_what_fails_then_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(confirm_later=True)
    add = bench.task(name="add")(lambda a, b: a + b)
    confirms = held_back(bench, monkeypatch)

    first, second = add.delay(1, 1), add.delay(2, 2)
    confirms[0].set_result(None)
    confirms[1].set_exception(NotConfirmed("the queue is full"))

    assert first.id != second.id
    assert [record.getMessage() for record in caplog.records] == [
        f"task add[{second.id}] was not published: the queue is full"
    ]


def test_what_is_known_at_once_is_raised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(confirm_later=True)
    add = bench.task(name="add")(lambda a, b: a + b)
    refused = Future[None]()
    refused.set_exception(NotConfirmed("no broker"))
    monkeypatch.setattr(bench.transport, "publish", lambda *args, **options: refused)

    with pytest.raises(NotConfirmed, match="no broker"):
        add.delay(1, 1)


def test_only_so_many_are_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later, "MOST_UNDER_WAY", 3)
    bench = Bench(confirm_later=True)
    add = bench.task(name="add")(lambda a, b: a + b)
    confirms = held_back(bench, monkeypatch)
    for number in range(3):
        add.delay(number, number)

    fourth = threading.Thread(target=add.delay, args=(3, 3))
    fourth.start()
    wait_for(lambda: len(confirms) == 4, 10, "the fourth to be written")
    fourth.join(0.2)
    assert fourth.is_alive(), "it waits for the oldest"
    confirms[0].set_result(None)
    fourth.join(10)

    assert not fourth.is_alive()


def test_within_together_its_end_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(confirm_later=True)
    add = bench.task(name="add")(lambda a, b: a + b)
    confirms = held_back(bench, monkeypatch)

    with pytest.raises(NotConfirmed, match="full"), together():
        add.delay(1, 1)
        confirms[0].set_exception(NotConfirmed("the queue is full"))


def test_a_task_waits_for_what_it_sends_since_its_own_message_is_acknowledged_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(confirm_later=True)
    add = bench.task(name="add")(lambda a, b: a + b)
    caught: list[BaseException] = []

    def parent() -> None:
        refused = Future[None]()
        threading.Timer(0.05, refused.set_exception, [NotConfirmed("the queue is full")]).start()
        with monkeypatch.context() as patch:
            patch.setattr(bench.transport, "publish", lambda *args, **options: refused)
            try:
                add.delay(1, 1)
            except NotConfirmed as error:
                caught.append(error)

    bench.task(name="parent")(parent).delay()
    bench.work()

    assert [str(error) for error in caught] == ["the queue is full"]


def test_a_program_that_ends_leaves_nothing_behind(broker_url: str, prefix: str, tmp_path: Path) -> None:
    script = tmp_path / "sender.py"
    script.write_text(SENDER)

    sender = Process(["python", script, broker_url, prefix, "2000"], tmp_path / "log", {})

    assert sender.wait(90) == 0, (tmp_path / "log").read_text()
    transport = open_transport(broker_url)
    assert transport.message_count(f"lightbus.{prefix}") == 2000
    transport.close()


def test_a_connection_that_is_cut_while_nobody_waits_costs_nothing(
    amqp_vhost_url: str, prefix: str, tmp_path: Path
) -> None:
    script = tmp_path / "sender.py"
    script.write_text(SENDER)
    parts = urlsplit(amqp_vhost_url)
    assert parts.port is not None
    with Proxy(parts.port) as proxy:
        url = parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{proxy.port}")).geturl()
        sender = Process(["python", script, url, prefix, "20000"], tmp_path / "log", {})
        for number in (1000, 6000, 11_000):
            wait_for(lambda number=number: f"\n{number}\n" in (tmp_path / "log").read_text(), 60, f"number {number}")
            proxy.cut()
        assert sender.wait(120) == 0, (tmp_path / "log").read_text()

    transport = open_transport(amqp_vhost_url)
    # What was written and not confirmed is sent again, so there may be more, which are marked.
    assert (transport.message_count(f"lightbus.{prefix}") or 0) >= 20_000
    assert "was not" not in (tmp_path / "log").read_text()
    transport.close()


def test_a_forked_child_does_not_wait_for_its_parents_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(confirm_later=True)
    add = bench.task(name="add")(lambda a, b: a + b)
    held_back(bench, monkeypatch)
    add.delay(1, 1)

    child = os.fork()
    if child == 0:
        bench.app.wait_for_confirms()
        os._exit(7)
    ended: list[int] = []
    wait_for(lambda: ended.extend([os.waitpid(child, os.WNOHANG)[1]]) or ended[-1], 10, "the child to end")

    assert os.waitstatus_to_exitcode(ended[-1]) == 7


def test_the_setting_has_a_name_among_celerys() -> None:
    assert Settings.from_mapping({"lightbus_confirm_later": True}).confirm_later
    assert not TaskApp().settings.confirm_later
