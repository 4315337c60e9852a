"""Tasks under test: the same verbs, the same parameters, through Celery's format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lightbus import Api, Bus, Event
from lightbus.compat import Settings, TaskApp, chain
from lightbus.compat.testing import tasks
from lightbus.testing import Harness, harness


class Photos(Api, name="photos", version="1.0"):
    class resized(Event):
        name: str


BUS = Bus("photos", url="amqp://nobody.invalid")
APP = TaskApp(Settings(broker_url="amqp://nobody.invalid", result_backend="redis://nobody.invalid"))


@APP.task(name="resize", bind=True, max_retries=2)
def resize(self: Any, name: str, sizes: list[int], *, fails: int = 0) -> str:
    if self.request.retries < fails:
        raise self.retry(exc=OSError("no disk"), countdown=60)
    BUS.fire(Photos.resized(name=name))
    return f"{name} in {sizes}, try {self.request.retries}"


@APP.task(name="mail")
def mail(text: str) -> str:
    if not text:
        raise ValueError("nothing to say")
    return f"mailed {text}"


@pytest.fixture
def t() -> Iterator[Harness]:
    with harness(BUS, tasks(APP)) as started:
        yield started


def test_a_task_is_asserted_and_simulated_with_the_same_parameters(t: Harness) -> None:
    result = resize.delay("cat", sizes=(1, 2))

    t.assert_called(resize, "cat", sizes=(1, 2))
    t.assert_called(resize, name="cat", sizes=[1, 2])
    with pytest.raises(AssertionError, match="name: expected 'dog', called with 'cat'"):
        t.assert_called(resize, "dog", t.ANY)
    assert t.simulate(resize, "cat", sizes=(1, 2)) == "cat in [1, 2], try 0"
    t.assert_fired(Photos.resized, name="cat")
    t.settle()
    assert result.get(timeout=1) == "cat in [1, 2], try 0"


def test_what_a_task_raises_reaches_the_test(t: Harness) -> None:
    with pytest.raises(ValueError, match="nothing to say"):
        t.simulate(mail, "")
    for verb in (t.assert_called, t.simulate):
        with pytest.raises(TypeError, match=r"txt|'text'"):
            verb(mail, txt="")


def test_retries_and_countdowns_wait_until_the_test_lets_time_pass(t: Harness) -> None:
    t.simulate(resize, "cat", [1], fails=1)
    assert t.times(0).assert_fired(Photos.resized, name="cat") == []
    t.advance(59)
    t.times(0).assert_fired(Photos.resized, name="cat")
    t.advance(1)
    t.times(1).assert_fired(Photos.resized, name="cat")

    later = mail.apply_async(("later",), countdown=3600)
    t.settle()
    assert later.state == "PENDING"
    t.advance()
    assert later.get(timeout=1) == "mailed later"


def test_a_chain_runs_to_its_end(t: Harness) -> None:
    result = chain(resize.s("cat", [1]), mail.s()).apply_async()

    t.settle()

    assert result.get(timeout=1) == "mailed cat in [1], try 0"
    t.assert_called(mail, "cat in [1], try 0")
