"""Tasks that are confirmed together: none is reported as sent that the broker has not."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from lightbus.compat import TaskApp, together
from lightbus.core.errors import NotConfirmed, TransportError
from lightbus.drivers import open_transport
from tests.compat.bench import Bench


def held_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[Future[None]]:
    """The confirms of what is published from now on, to be given by the test."""
    confirms: list[Future[None]] = []

    def publish(*args: object, **options: object) -> Future[None]:
        confirms.append(Future())
        return confirms[-1]

    monkeypatch.setattr(bench.transport, "publish", publish)
    return confirms


def test_within_the_block_nothing_waits_and_at_its_end_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    add = bench.task(name="add")(lambda a, b: a + b)
    add.delay(0, 0)
    confirms = held_back(bench, monkeypatch)

    with together():
        results = [add.delay(n, n) for n in range(3)]
        assert [confirm.done() for confirm in confirms] == [False] * 3
        for confirm in confirms:
            confirm.set_result(None)

    assert len({result.id for result in results}) == 3


def test_what_the_broker_did_not_take_is_raised_when_the_others_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    add = bench.task(name="add")(lambda a, b: a + b)
    add.delay(0, 0)
    confirms = held_back(bench, monkeypatch)

    with pytest.raises(NotConfirmed, match="full"), together():
        for n in range(3):
            add.delay(n, n)
        confirms[0].set_result(None)
        confirms[1].set_exception(NotConfirmed("the queue is full"))
        confirms[2].set_result(None)
    with pytest.raises(TransportError, match="did not confirm"), together(timeout_seconds=0.01):
        add.delay(1, 1)


def test_an_error_of_the_block_is_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    add = bench.task(name="add")(lambda a, b: a + b)

    with pytest.raises(ZeroDivisionError), together():
        add.delay(1, 1)
        _ = 1 / 0


def test_blocks_may_be_nested_and_other_threads_are_not_in_them(broker_url: str, prefix: str) -> None:
    transport = open_transport(broker_url)
    app = TaskApp(transport=transport)
    noop = app.task(name=f"{prefix}.noop", queue=prefix, ignore_result=True)(lambda: None)

    with together():
        for _ in range(50):
            noop.delay()
        with together():
            for _ in range(50):
                noop.delay()
        assert (transport.message_count(f"lightbus.{prefix}") or 0) >= 50

    assert transport.message_count(f"lightbus.{prefix}") == 100
    transport.close()
