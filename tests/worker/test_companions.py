"""The process beside a supervisor: one for all companions, each of which lives and fails for itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lightbus.worker.companions import Companion, Companions, Run
from lightbus.worker.health import Health
from lightbus.worker.latch import Latch
from lightbus.worker.pauses import LONG_LIFE_SECONDS, LONGEST_PAUSE_SECONDS, Pauses
from lightbus.worker.snapshot import Snapshot
from tests.processes import ROOT, children, is_running, wait_for

READY = Health(ready=True, processes=1, consuming=1)


class Diary:
    """What companions have written, over all their processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def write(self, word: str) -> None:
        with self._path.open("a") as file:
            file.write(f"{word} {os.getpid()}\n")

    def pids(self, word: str) -> list[int]:
        lines = [line.split() for line in self._path.read_text().splitlines()]
        return [int(pid) for found, pid in lines if found == word]


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path / "diary")


def companion(diary: Diary, name: str, *, at_once: bool = False, with_stop: bool = False) -> Companion:
    def run(until: Latch) -> None:
        diary.write(f"{name}-begins")
        while not until.wait(10):
            pass
        diary.write(f"{name}-ends")

    return Companion(does=f"is {name}", load=lambda: run, begins_at_once=at_once, ends_with_stop=with_stop)


@pytest.fixture
def started() -> Iterator[Callable[..., Companions]]:
    all_of_them: list[Companions] = []

    def start(*companions: Companion) -> Companions:
        one = Companions(companions, Snapshot())
        all_of_them.append(one)
        one.begin()
        return one

    yield start
    for one in all_of_them:
        one.gone()


def show_until(companions: Companions, health: Health, found: Callable[[], object], what: str) -> None:
    def look() -> object:
        companions.show(health, time.monotonic())
        return found()

    wait_for(look, 20, what)


def test_without_companions_there_is_no_process(started: Callable[..., Companions]) -> None:
    before = children(os.getpid())
    companions = started()
    companions.show(READY, time.monotonic())

    assert children(os.getpid()) == before


def test_one_process_hosts_those_that_begin_at_once_and_those_that_wait_until_the_worker_is_ready(
    started: Callable[..., Companions], diary: Diary
) -> None:
    companions = started(companion(diary, "late"), companion(diary, "early", at_once=True))
    show_until(companions, Health(), lambda: diary.pids("early-begins"), "the first")
    assert diary.pids("late-begins") == []
    show_until(companions, READY, lambda: diary.pids("late-begins"), "the second")

    assert diary.pids("late-begins") == diary.pids("early-begins")


def test_nothing_begins_before_the_worker_is_ready_where_nothing_has_to(
    started: Callable[..., Companions], diary: Diary
) -> None:
    before = children(os.getpid())
    companions = started(companion(diary, "late"))
    companions.show(Health(), time.monotonic())
    companions.show(Health(stopping=True), time.monotonic())

    assert children(os.getpid()) == before


def test_a_stop_ends_some_and_the_end_of_the_worker_all(started: Callable[..., Companions], diary: Diary) -> None:
    companions = started(companion(diary, "short", with_stop=True), companion(diary, "long"))
    show_until(companions, READY, lambda: diary.pids("short-begins") and diary.pids("long-begins"), "both")
    (pid,) = diary.pids("long-begins")
    show_until(companions, Health(stopping=True), lambda: diary.pids("short-ends"), "the end of the one")
    assert diary.pids("long-ends") == []
    companions.gone()

    assert diary.pids("long-ends") == [pid]
    assert not is_running(pid)


@pytest.mark.parametrize("fails_in", ["load", "run"])
def test_one_that_fails_begins_again_and_harms_no_other(
    started: Callable[..., Companions], diary: Diary, fails_in: str
) -> None:
    def fail() -> None:
        diary.write("tries")
        if len(diary.pids("tries")) < 3:
            sys.exit("a defect")  # worse than an Exception

    def load() -> Run:
        if fails_in == "load":
            fail()
        return run

    def run(until: Latch) -> None:
        if fails_in == "run":
            fail()
        diary.write("well")
        until.wait(60)

    companions = started(Companion(does="fails", load=load), companion(diary, "other"))
    show_until(companions, READY, lambda: diary.pids("well"), "the third try")

    assert set(diary.pids("tries")) == set(diary.pids("other-begins")) == set(diary.pids("well"))
    assert len(diary.pids("other-begins")) == 1
    assert diary.pids("other-ends") == []


def test_a_process_that_is_killed_is_replaced_with_all_that_it_hosted(
    started: Callable[..., Companions], diary: Diary
) -> None:
    companions = started(companion(diary, "one"), companion(diary, "two"))
    show_until(companions, READY, lambda: diary.pids("one-begins") and diary.pids("two-begins"), "both")
    (pid,) = diary.pids("one-begins")
    os.kill(pid, signal.SIGKILL)
    show_until(companions, READY, lambda: len(diary.pids("two-begins")) == 2, "another process")
    show_until(companions, READY, lambda: len(diary.pids("one-begins")) == 2, "another process")

    assert len({*diary.pids("one-begins"), *diary.pids("two-begins")}) == 2


def test_one_that_does_not_end_is_ended_by_force(started: Callable[..., Companions], diary: Diary) -> None:
    def run(until: Latch) -> None:
        diary.write("deaf")
        while True:
            time.sleep(1)

    companions = started(Companion(does="is deaf", load=lambda: run))
    show_until(companions, READY, lambda: diary.pids("deaf"), "it")
    (pid,) = diary.pids("deaf")
    companions.gone()

    assert not is_running(pid)


ORPHANED = """
import os, sys, time
from pathlib import Path
from lightbus.worker.companions import Companion, Companions
from lightbus.worker.health import Health
from lightbus.worker.snapshot import Snapshot

folder = Path(sys.argv[1])

def run(until):
    (folder / "begins").touch()
    while not until.wait(10):
        pass
    (folder / "ends").touch()

one = Companion(does="is there", load=lambda: run, if_orphaned=(folder / "orphaned").touch)
companions = Companions([one], Snapshot())
companions.begin()
while True:
    companions.show(Health(ready=True), time.monotonic())
    time.sleep(0.05)
"""


def test_when_the_supervisor_is_killed_they_end_well_and_clean_up_after_it(tmp_path: Path) -> None:
    supervisor = subprocess.Popen([sys.executable, "-c", ORPHANED, str(tmp_path)], cwd=ROOT)
    try:
        wait_for((tmp_path / "begins").exists, 20, "it to begin")
        (beside,) = children(supervisor.pid)
    finally:
        supervisor.kill()
        supervisor.wait()
    wait_for(lambda: not is_running(beside), 20, "its end")

    assert (tmp_path / "ends").exists()
    assert (tmp_path / "orphaned").exists()


def test_a_latch_wakes_all_that_wait_in_other_processes_too() -> None:
    latch = Latch()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if latch.wait(20) else 1)
    assert not latch.is_set()
    latch.set()
    latch.set()

    assert os.waitpid(pid, 0)[1] == 0
    assert latch.is_set()


def test_pauses_grow_up_to_the_longest_and_begin_anew_after_a_long_life() -> None:
    pauses = Pauses()

    assert [pauses.after(1.0) for _ in range(7)] == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, LONGEST_PAUSE_SECONDS]
    assert [pauses.after(LONG_LIFE_SECONDS + 1), pauses.after(1.0)] == [0.0, 0.5]
