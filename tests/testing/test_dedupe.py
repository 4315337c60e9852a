"""A listener with `dedupe` handles no message twice: after success, at the same time, after a crash, and in a retry."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue

import pytest

from lightbus import Bus, DeclarationError, Dedupe, RetryPolicy
from lightbus.core.claims import Claim, ClaimStoreUnavailable, Held, Taken
from lightbus.core.outcome import Ack, DeadLetter, Retry
from lightbus.dedupe import LEASE_SECONDS, MAX_TAKES, STORE_AWAY_SECONDS, Claimed, Claims
from lightbus.drivers import open_claim_store
from lightbus.drivers.memory import MemoryTransport
from lightbus.drivers.memory_broker import MemoryBroker
from lightbus.testing import Harness, harness
from lightbus.worker import WorkerOptions
from tests.processes import wait_for
from tests.runtime.workers import working
from tests.testing.apps import Orders

DAY_SECONDS = 86400.0


class Office:
    """A listener that notes what it handles, and fails so often as it is told."""

    def __init__(self, dedupe: str | Dedupe = "7d") -> None:
        self.bus = Bus("office", url="memory://", claims="sqlite:////nobody/uses/it/in/a/harness.db")
        self.seen: list[int] = []
        self.failures = 0

        @self.bus.on(Orders.placed, dedupe=dedupe, retry=RetryPolicy(max_retries=1))
        def pack(event: Orders.placed) -> None:
            self.seen.append(event.order)
            if self.failures:
                self.failures -= 1
                raise ValueError("no box left")


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
def t(office: Office) -> Iterator[Harness]:
    with harness(office.bus, raises=False) as started:
        yield started


def come(t: Harness, order: int, id: str) -> None:
    t.meta(id=id).simulate(Orders.placed, order=order, email="")


def test_a_message_that_was_handled_is_not_handled_again_for_so_long(t: Harness, office: Office) -> None:
    come(t, 1, "m1")
    come(t, 1, "m1")
    t.redeliver()
    come(t, 1, "m2")
    assert office.seen == [1, 1]
    assert [one.outcome for one in t.handled] == [Ack()] * 4
    assert [one.outcome.verdict for one in t.handled if isinstance(one.outcome, Ack)] == [
        "ok", "duplicate", "duplicate", "ok",
    ]  # fmt: skip

    t.advance(7 * DAY_SECONDS)
    come(t, 1, "m1")
    assert office.seen == [1, 1, 1]


def test_a_failure_is_retried_and_a_replay_is_handled(t: Harness, office: Office) -> None:
    office.failures = 2
    come(t, 1, "m1")
    t.advance()
    assert office.seen == [1, 1]
    assert [parked.reason for parked in t.parked] == ["handler-failed"]

    come(t, 1, "m1")  # the replay
    assert office.seen == [1, 1, 1]
    come(t, 1, "m1")
    assert office.seen == [1, 1, 1]


def test_a_key_of_ones_own_says_what_is_the_same() -> None:
    office = Office(Dedupe(60, key=lambda event: str(event.order)))
    with harness(office.bus) as t:
        for order, message in ((1, "m1"), (1, "m2"), (2, "m3")):
            come(t, order, message)
    assert office.seen == [1, 2]


def test_what_is_marked_before_is_not_handled_after_a_crash_and_is_after_a_failure() -> None:
    store = open_claim_store("memory://")
    claims, dedupe = Claims(store, lambda: 1000.0), Dedupe(60, mark="before")
    assert isinstance(claims.begin(None, "crashed", dedupe, 1), Claimed)
    assert claims.begin(None, "crashed", dedupe, 1) == Ack("duplicate")

    failed = claims.begin(None, "failed", dedupe, 1)
    assert isinstance(failed, Claimed)
    claims.fail(failed)
    again = claims.begin(None, "failed", dedupe, 2)
    assert isinstance(again, Claimed)
    claims.succeed(again)
    assert claims.begin(None, "failed", dedupe, 2) == Ack("duplicate")


def test_a_message_that_kills_its_process_again_and_again_is_parked_and_can_be_replayed() -> None:
    now, store = [1000.0], open_claim_store("memory://")
    for _ in range(MAX_TAKES):
        # Each a process of its own, which dies without a word.
        assert isinstance(store.claim("k", "dead", now=now[0], lease_seconds=LEASE_SECONDS), Taken)
        outcome = Claims(store, lambda: now[0]).begin(None, "k", Dedupe(60), 1)
        assert outcome == Retry(LEASE_SECONDS + 0.1, 1, "another copy of it is being handled")
        now[0] += LEASE_SECONDS + 0.1
    claims = Claims(store, lambda: now[0])
    assert claims.begin(None, "k", Dedupe(60), 1) == DeadLetter("worker-lost", "its process died under it 3 times", 3)
    assert isinstance(claims.begin(None, "k", Dedupe(60), 1), Claimed)


class Away:
    """A store that does not answer, from the call named on."""

    def __init__(self, method: str) -> None:
        self._inner = open_claim_store("memory://")
        self._method = method

    def __getattr__(self, name: str) -> Callable[..., object]:
        def fail(*args: object, **kwargs: object) -> Claim:
            raise ClaimStoreUnavailable("away")

        return fail if name == self._method else getattr(self._inner, name)  # type: ignore[no-any-return]


def test_without_the_store_nothing_is_handled_and_nothing_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    outcome = Claims(Away("claim"), lambda: 0.0).begin(None, "k", Dedupe(60), 3)
    assert outcome == Retry(STORE_AWAY_SECONDS, 3, "away")

    for method, end in (("done", Claims.succeed), ("release", Claims.fail)):
        claims = Claims(Away(method), lambda: 0.0)
        claimed = claims.begin(None, "k", Dedupe(60), 3)
        assert isinstance(claimed, Claimed)
        end(claims, claimed)  # the handler has run: there is nothing to be raised
    assert "a copy would be handled again" in caplog.text


def test_copies_that_come_at_the_same_time_do_not_run_at_the_same_time(tmp_path: Path) -> None:
    """Two processes' worth of workers, one file of claims: while one handles it, the other puts its copy off."""
    broker, claims = MemoryBroker(), f"sqlite:///{tmp_path}/claims.db"
    began, finish = Queue[str](), threading.Event()
    offices = [Bus("office", transport=MemoryTransport(broker), claims=claims) for _ in range(2)]
    for name, bus in zip("ab", offices, strict=True):

        @bus.on(Orders.placed, name="pack", dedupe=Dedupe(60, key=lambda event: str(event.order)))
        def pack(event: Orders.placed, name: str = name) -> None:
            began.put(name)
            assert finish.wait(60)

    with working(offices[0], options=WorkerOptions(threads=3)), working(offices[1], options=WorkerOptions(threads=3)):
        for _ in range(3):
            offices[0].fire(Orders.placed(order=1, email=""))
        began.get(timeout=30)
        # The other two are put off, and not handled and not forgotten.
        wait_for(lambda: len(broker._later) == 2, 60, "both copies to be put off")
        assert broker.count("office.on.pack") == 0
        finish.set()
        wait_for(
            lambda: (
                not isinstance(
                    open_claim_store(claims).claim("office.on.pack/1", "x", now=time.time(), lease_seconds=1),
                    Held,
                )
            ),
            60,
            "the first to be done",
        )
    assert began.empty()
    for bus in offices:
        bus.close()


def test_a_listener_that_asks_for_it_needs_a_store_and_a_time() -> None:
    with pytest.raises(DeclarationError, match="claims="):
        Bus("office", url="memory://").on(Orders.placed, dedupe="7d")
    bus = Bus("office", url="memory://", claims="memory://")
    for wrong in ("7", "-1d"):
        with pytest.raises(DeclarationError, match="duration"):
            bus.on(Orders.placed, dedupe=wrong)(print)
    with pytest.raises(DeclarationError, match="keep_seconds"):
        Dedupe(0)
    with pytest.raises(DeclarationError, match="mark"):
        Dedupe(1, mark="later")  # type: ignore[arg-type]
