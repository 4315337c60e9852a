"""What takes a process down, or runs for too long: the worker lives on, and the message has an end that is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightbus import Bus
from lightbus.compat import TimeLimitExceeded, WorkerLostError, chord, signature
from lightbus.core.errors import RemoteError
from tests.processes import Processes, handlers, is_running, wait_for
from tests.worker.staged import SECONDS, Staged, Work, another_child, only_child


def test_a_message_that_kills_its_process_is_parked_with_its_count_and_the_next_ones_are_handled(
    each_staged: Staged,
) -> None:
    worker = each_staged.worker("--max-crashes", "2")
    each_staged.fire(("poison", "segfault"), ("good", ""))
    dead = each_staged.parked()

    assert dead.wire.headers["lightbus_dead_reason"] == "worker-lost"
    assert dead.wire.headers["lightbus_dead_attempts"] == 2
    each_staged.wait_for_noted("ended", log=worker.log)
    assert {entry["id"] for entry in each_staged.noted("ended")} == {"good"}
    tries = [entry for entry in each_staged.noted("began") if entry["id"] == "poison"]
    assert [entry["again"] for entry in tries] == [False, True]
    assert worker.stop() == 0


def test_a_late_task_that_kills_its_process_is_parked_and_its_caller_hears_of_it(
    tmp_path: Path, amqp_vhost_url: str, processes: Processes
) -> None:
    staged = Staged(tmp_path, amqp_vhost_url, processes)
    worker = staged.worker("--max-crashes", "2", application="staged")
    app = staged.tasks()
    try:
        result = app.send_task("staged.late", ["segfault"])
        with pytest.raises(WorkerLostError, match="died under it 2 times"):
            result.get(timeout=SECONDS)
    finally:
        app.close()

    assert staged.parked().wire.headers["lightbus_dead_reason"] == "worker-lost"
    assert [entry["again"] for entry in staged.noted("began")] == [False, True]
    assert worker.stop() == 0
    staged.close()


def test_an_early_task_that_kills_its_process_runs_once_and_its_caller_hears_of_it(each_staged: Staged) -> None:
    worker = each_staged.worker(application="staged")
    app = each_staged.tasks()
    try:
        result = app.send_task("staged.early", ["exit"])
        with pytest.raises(WorkerLostError, match=r"its process (ended with exit code 7|died under it)"):
            result.get(timeout=SECONDS)
        assert app.send_task("staged.early", [""]).get(timeout=SECONDS)
    finally:
        app.close()

    assert len(each_staged.noted("began")) == 2
    assert worker.stop() == 0


def test_a_call_whose_server_dies_is_answered_at_once(staged: Staged) -> None:
    staged.worker()
    bus = Bus("caller", url=staged.url)
    try:
        with pytest.raises(RemoteError, match="its process was killed by SIGSEGV") as failed:
            bus.client(Work).do(how="segfault")
    finally:
        bus.close()

    assert failed.value.error_type == "WorkerLost"
    assert len(staged.noted("called")) == 1


@pytest.mark.parametrize(
    "broker_url, how",
    [("amqp", "wait"), ("amqp", "gil"), ("redis", "wait"), ("sqlite", "wait"), ("sqlite", "gil")],
    indirect=["broker_url"],
)
def test_a_listener_over_its_hard_limit_is_retried_and_then_parked(each_staged: Staged, how: str) -> None:
    """Whether its process can end itself (wait) or not (gil)."""
    worker = each_staged.worker("--time-limit", "0.5")
    each_staged.fire(("long", how), ("good", ""))
    dead = each_staged.parked()

    assert dead.wire.headers["lightbus_dead_reason"] == "time-limit"
    assert dead.wire.headers["lightbus_dead_attempts"] == 2
    each_staged.wait_for_noted("ended", log=worker.log)
    assert {entry["id"] for entry in each_staged.noted("ended")} == {"good"}
    assert [entry["attempt"] for entry in each_staged.noted("began") if entry["id"] == "long"] == [1, 2]
    assert ("it is killed" in worker.read_log()) == (how == "gil")
    assert worker.stop() == 0


def test_a_handler_that_hangs_with_the_lock_of_the_log_is_killed_all_the_same(staged: Staged) -> None:
    worker = staged.worker("--time-limit", "0.3")
    child = only_child(worker)
    staged.fire(("locked", "lock"))
    staged.wait_for_noted("began", log=worker.log)
    wait_for(lambda: not is_running(child), SECONDS, "the child to be killed", [worker.log])

    worker.wait_for_log("was killed by SIGKILL while it ran")


@pytest.mark.parametrize("name", ["staged.early", "staged.late"])
@pytest.mark.parametrize("how", ["wait", "gil"])
def test_a_task_over_its_hard_limit_fails_with_celerys_error_and_runs_once(staged: Staged, name: str, how: str) -> None:
    worker = staged.worker("--time-limit", "0.5", application="staged")
    app = staged.tasks()
    try:
        result = app.send_task(name, [how])
        with pytest.raises(TimeLimitExceeded, match="hard limit"):
            result.get(timeout=SECONDS)
        assert app.send_task(name, [""]).get(timeout=SECONDS)
    finally:
        app.close()

    assert len(staged.noted("began")) == 2
    assert worker.stop() == 0


def test_memory_that_is_refused_fails_the_handler_and_not_the_worker(staged: Staged) -> None:
    worker = staged.worker()
    child = only_child(worker)
    staged.fire(("big", "memory"), ("good", ""))
    dead = staged.parked()

    assert dead.wire.headers["lightbus_dead_reason"] == "handler-failed"
    assert "MemoryError" in str(dead.wire.headers["lightbus_dead_error"])
    staged.wait_for_noted("ended", log=worker.log)
    assert only_child(worker) == child
    assert worker.stop() == 0


def test_a_process_handles_as_many_messages_as_it_may_and_not_one_more(each_staged: Staged) -> None:
    worker = each_staged.worker("--max-tasks-per-child", "3")
    ids = [str(number) for number in range(10)]
    each_staged.fire(*((id, "") for id in ids))
    entries = each_staged.wait_for_noted("ended", 10, log=worker.log)

    assert sorted(entry["id"] for entry in entries) == sorted(ids)
    pids = [entry["pid"] for entry in entries]
    assert max(pids.count(pid) for pid in pids) == 3
    assert len(set(pids)) == 4
    assert worker.stop() == 0


def test_a_process_with_too_much_memory_is_replaced_when_it_is_done(staged: Staged) -> None:
    worker = staged.worker("--max-memory-per-child", str(100 * 1024))
    first = only_child(worker)
    staged.fire(("1", "keep"))
    staged.wait_for_noted("ended", log=worker.log)
    staged.fire(("2", "keep"))
    staged.wait_for_noted("ended", 2, log=worker.log)
    second = another_child(worker, [first])
    wait_for(lambda: not is_running(first), SECONDS, "the first child to be gone", [worker.log])
    staged.fire(("3", ""))
    entries = staged.wait_for_noted("ended", 3, log=worker.log)

    assert "KiB resident" in worker.read_log()
    assert entries[-1]["pid"] == second
    assert worker.stop() == 0


def test_processes_are_added_while_messages_wait(staged: Staged) -> None:
    worker = staged.worker("--autoscale", "3,1", "--prefetch", "1")
    assert len(handlers(worker.pid)) == 1
    staged.fire(*((str(number), "wait") for number in range(6)))
    staged.wait_for_noted("began", 3, log=worker.log)

    assert len(handlers(worker.pid)) == 3
    staged.open_gate()
    staged.wait_for_noted("ended", 6, log=worker.log)
    assert worker.stop() == 0


def test_a_chord_of_which_a_part_dies_with_its_process_fails_and_tells_its_errback(
    tmp_path: Path, redis_url: str, processes: Processes
) -> None:
    staged = Staged(tmp_path, redis_url, processes, results=redis_url)
    worker = staged.worker(application="staged")
    app = staged.tasks()
    try:
        header = [signature("staged.early", args=(how,), app=app) for how in ("", "exit")]
        body = signature("staged.total", app=app)
        body.link_error(signature("staged.errback", app=app))
        result = chord(header, body).apply_async()
        with pytest.raises(WorkerLostError, match="its process ended with exit code 7"):
            result.get(timeout=SECONDS)
        told = staged.wait_for_noted("errback", log=worker.log)
    finally:
        app.close()

    assert [entry["id"] for entry in told] == [result.id]
    assert staged.noted("total") == []
    assert len(staged.noted("began")) == 2
    assert worker.stop() == 0
    staged.close()


def test_two_processes_count_together(tmp_path: Path, amqp_vhost_url: str, processes: Processes) -> None:
    """The broker hands the message to the other process before the supervisor has buried the first one."""
    staged = Staged(tmp_path, amqp_vhost_url, processes)
    worker = staged.worker("-c", "3", "--max-crashes", "2")
    staged.fire(*((f"poison{number}", "exit") for number in range(3)), *((f"good{number}", "") for number in range(9)))
    for _ in range(3):
        assert staged.parked().wire.headers["lightbus_dead_attempts"] == 2
    staged.wait_for_noted("ended", 9, log=worker.log)

    tries = [entry["id"] for entry in staged.noted("began") if entry["id"].startswith("poison")]
    assert sorted(tries) == ["poison0"] * 2 + ["poison1"] * 2 + ["poison2"] * 2
    assert worker.stop() == 0
    staged.close()
