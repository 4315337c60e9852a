"""Stopping: how long what runs may go on, and what becomes of it then."""

from __future__ import annotations

import os
import signal

import pytest

from lightbus.compat import WorkerLostError
from tests.processes import is_running, wait_for
from tests.worker.staged import SECONDS, Staged, only_child


def test_what_outlasts_the_grace_goes_back_flagged_and_the_worker_ends_with_1(each_staged: Staged) -> None:
    worker = each_staged.worker("--grace-seconds", "0.3")
    each_staged.fire(("long", "wait"), ("behind", ""))
    each_staged.wait_for_noted("began", log=worker.log)

    assert worker.stop() == 1
    assert "1 handlers were cut off" in worker.read_log()
    each_staged.open_gate()
    again = each_staged.worker("--grace-seconds", "0.3")
    each_staged.wait_for_noted("ended", 2, log=again.log)
    assert [entry["again"] for entry in each_staged.noted("began") if entry["id"] == "long"] == [False, True]
    assert [entry["id"] for entry in each_staged.noted("ended")].count("behind") == 1
    assert again.stop() == 0


def test_an_early_task_that_outlasts_the_grace_fails_and_does_not_run_again(staged: Staged) -> None:
    worker = staged.worker("--grace-seconds", "0.3", application="staged")
    app = staged.tasks()
    try:
        result = app.send_task("staged.early", ["wait"])
        staged.wait_for_noted("began", log=worker.log)
        assert worker.stop() == 1
        with pytest.raises(WorkerLostError, match="was stopped"):
            result.get(timeout=SECONDS)
    finally:
        app.close()


@pytest.mark.parametrize("options", [(), ("--pool", "solo")], ids=["supervised", "solo"])
def test_a_second_stop_hands_back_at_once_what_runs(staged: Staged, options: tuple[str, ...]) -> None:
    worker = staged.worker("--grace-seconds", "600", *options)
    staged.fire(("long", "wait"))
    staged.wait_for_noted("began", log=worker.log)
    worker.signal(signal.SIGTERM)
    worker.wait_for_log("a second signal ends")  # two in one moment would be one to the kernel
    assert worker.exit_code is None, "it waits for what runs"
    worker.signal(signal.SIGTERM)

    assert worker.wait(20) == 1
    assert "1 handlers were cut off" in worker.read_log()
    staged.open_gate()
    again = staged.worker(*options)
    staged.wait_for_noted("ended", log=again.log)
    assert [entry["again"] for entry in staged.noted("began")] == [False, True]


def test_ctrl_c_in_a_terminal_is_one_stop_although_it_reaches_every_process(staged: Staged) -> None:
    worker = staged.worker()
    staged.fire(("long", "wait"))
    staged.wait_for_noted("began", log=worker.log)
    worker.interrupt()
    worker.wait_for_log("stopping 1 processes")
    staged.open_gate()

    assert worker.wait() == 0
    assert len(staged.noted("ended")) == 1


def test_sigquit_kills_at_once_and_nothing_is_lost(staged: Staged) -> None:
    worker = staged.worker()
    child = only_child(worker)
    staged.fire(("long", "wait"))
    staged.wait_for_noted("began", log=worker.log)
    worker.signal(signal.SIGQUIT)

    assert worker.wait() == 1
    assert not is_running(child)
    staged.open_gate()
    again = staged.worker()
    staged.wait_for_noted("ended", log=again.log)
    assert [entry["again"] for entry in staged.noted("began")] == [False, True]


def test_a_stop_that_a_process_does_not_hear_ends_it_after_the_grace(staged: Staged) -> None:
    worker = staged.worker("--grace-seconds", "0.2")
    staged.fire(("deaf", "gil"))
    staged.wait_for_noted("began", log=worker.log)

    assert worker.stop() == 1


def test_a_child_that_is_told_to_stop_is_replaced_and_finishes_what_it_runs(staged: Staged) -> None:
    worker = staged.worker()
    first = only_child(worker)
    staged.fire(("long", "wait"))
    staged.wait_for_noted("began", log=worker.log)
    os.kill(first, signal.SIGTERM)
    staged.open_gate()
    wait_for(lambda: not is_running(first), SECONDS, "the child to end", [worker.log])
    staged.fire(("next", ""))
    staged.wait_for_noted("ended", 2, log=worker.log)

    assert only_child(worker) != first
    assert worker.stop() == 0
