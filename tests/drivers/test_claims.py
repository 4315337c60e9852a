"""Every store of claims keeps the same contract: one holder at a time, and what is done stays done for its time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from lightbus import ConfigError, DeclarationError
from lightbus.contrib.claims import SqlAlchemyClaims
from lightbus.core.claims import (
    FORGET_SECONDS,
    ClaimStore,
    ClaimStoreUnavailable,
    Done,
    Held,
    Taken,
    duration_seconds,
)
from lightbus.drivers import open_claim_store

NOW = 1_800_000_000.25
LEASE_SECONDS = 30.0


@pytest.fixture(params=["memory", "sqlite", "redis", "postgresql", "sqlalchemy+sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ClaimStore]:
    found: ClaimStore
    match request.param:
        case "memory":
            found = open_claim_store("memory://")
        case "sqlite":
            found = open_claim_store(f"sqlite:///{tmp_path}/new/claims.db")
        case "redis":
            found = open_claim_store(request.getfixturevalue("redis_url"))
        case _:
            url = f"sqlite:///{tmp_path}/app.db"
            if request.param == "postgresql":
                url = str(request.getfixturevalue("postgres_url")).replace("postgresql://", "postgresql+psycopg://")
            engine = create_engine(url)
            found = sql = SqlAlchemyClaims(engine)
            sql.metadata.create_all(engine)
    yield found
    found.close()


def take(store: ClaimStore, key: str, holder: str, after_seconds: float = 0.0) -> Taken | Held | Done:
    return store.claim(key, holder, now=NOW + after_seconds, lease_seconds=LEASE_SECONDS)


def test_a_claim_goes_from_one_hand_to_the_next(store: ClaimStore) -> None:
    assert take(store, "k", "a") == Taken(1)
    held = take(store, "k", "b", 10)
    assert isinstance(held, Held)
    assert held.seconds == pytest.approx(20)
    assert take(store, "other", "b", 10) == Taken(1)

    store.keep("k", "b", now=NOW + 20, lease_seconds=LEASE_SECONDS)  # it is not b's
    store.keep("k", "a", now=NOW + 20, lease_seconds=LEASE_SECONDS)
    assert isinstance(take(store, "k", "b", 49), Held)
    assert take(store, "k", "b", 51) == Taken(2), "a died, for all that is known"

    store.done("k", "a", now=NOW + 52, keep_seconds=1000)  # too late: it is b's now
    store.release("k", "a")
    assert isinstance(take(store, "k", "c", 53), Held)
    store.release("k", "b")
    assert take(store, "k", "c", 54) == Taken(1), "b has given it back, so nobody died of it"

    store.done("k", "c", now=NOW + 60, keep_seconds=1000)
    store.keep("k", "c", now=NOW + 61, lease_seconds=LEASE_SECONDS)  # a keeper that is a moment late
    assert take(store, "k", "d", 1059) == Done()
    assert take(store, "k", "d", 1061) == Taken(1), "it is not known any longer"


def test_what_has_ended_is_removed_and_the_rest_is_not(store: ClaimStore) -> None:
    take(store, "done", "a")
    store.done("done", "a", now=NOW, keep_seconds=100)
    take(store, "dead", "a")
    take(store, "dead", "b", 40)

    store.clean(now=NOW + 99)
    assert take(store, "done", "b", 99) == Done()
    store.clean(now=NOW + 101)
    assert take(store, "dead", "c", 101) == Taken(3), "who died of it is counted"
    store.clean(now=NOW + 140 + FORGET_SECONDS)
    assert take(store, "done", "b", 101) == Taken(1)


def test_of_many_who_want_it_at_once_one_has_it(store: ClaimStore) -> None:
    start, won = threading.Barrier(4), list[str]()

    def want(name: str) -> None:
        start.wait(30)
        for number in range(25):
            if isinstance(take(store, f"k{number}", name), Taken):
                won.append(f"k{number}")

    threads = [threading.Thread(target=want, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(won) == sorted(f"k{number}" for number in range(25))


def test_a_forked_child_sees_the_claims_of_its_parent(store: ClaimStore, request: pytest.FixtureRequest) -> None:
    if isinstance(request.node.callspec.params["store"], str) and request.node.callspec.params["store"] == "memory":
        assert take(store, "k", "a") == Taken(1)
        return  # it is of one process alone, and says so
    assert take(store, "k", "a") == Taken(1)
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if isinstance(take(store, "k", "b"), Held) and take(store, "child", "b") == Taken(1) else 1)
        except BaseException:  # noqa: BLE001  # the child must not run the rest of the tests
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert isinstance(take(store, "child", "a"), Held)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0?socket_timeout=1", "sqlite:////proc/nothing/here.db"])
def test_a_store_that_is_away_says_so_in_our_words(url: str) -> None:
    with pytest.raises(ClaimStoreUnavailable, match="the claims in"):
        take(open_claim_store(url), "k", "a")


def test_a_url_and_a_duration_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="names no file"):
        open_claim_store("sqlite://")
    with pytest.raises(ConfigError, match="no store of claims"):
        open_claim_store("mongodb://x")
    assert [duration_seconds(text) for text in ("90s", "1.5m", "12h", "7d", "2w")] == [90, 90, 43200, 604800, 1209600]
    for wrong in ("7", "d", "0d", "-1d", "7 days", ""):
        with pytest.raises(DeclarationError, match="duration"):
            duration_seconds(wrong)
