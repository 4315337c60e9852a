"""What acceptance tests rely on to start, watch and end processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import Processes, children, cpu_seconds, is_running, wait_for

STUBBORN = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print("started", flush=True)
child.wait()
"""


def test_waiting_returns_what_came_true() -> None:
    numbers = iter([0, 0, 7])
    assert wait_for(lambda: next(numbers), 5, "a number") == 7


def test_waiting_in_vain_says_for_what_and_shows_the_log(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text("the reason\n")
    with pytest.raises(
        AssertionError, match=r"waited 0 s for the moon; last seen: 0\n--- end of worker.log:\nthe reason"
    ):
        wait_for(lambda: 0, 0, "the moon", [log])


def test_the_exit_code_and_the_output_are_kept(processes: Processes) -> None:
    process = processes.start("python", "-c", "import lightbus_scheduler; print('done'); raise SystemExit(3)")
    assert process.wait() == 3
    assert process.read_log() == "done\n"


def test_a_process_that_ends_early_is_noticed_at_once(processes: Processes) -> None:
    process = processes.start("python", "-c", "raise SystemExit('no broker')")
    with pytest.raises(AssertionError, match=r"ended with 1 before it logged 'ready'\nno broker"):
        process.wait_for_log("ready", seconds=50)


def test_a_stopped_process_ends_by_sigterm(processes: Processes) -> None:
    process = processes.start("python", "-c", "import signal; print('up'); signal.pause()")
    process.wait_for_log("up")
    assert process.stop() == -15


def test_the_end_of_a_test_ends_all_that_its_processes_started(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    process = processes.start("python", "-c", STUBBORN)
    process.wait_for_log("started")
    (child,) = children(process.pid)
    process.kill()
    assert is_running(child), "only the process itself was killed"
    processes.end()
    wait_for(lambda: not is_running(child), 10, "the child to end")


def test_processor_time_is_what_the_process_used(processes: Processes) -> None:
    process = processes.start("python", "-c", "while True: pass")
    wait_for(lambda: cpu_seconds(process.pid) > 0.2, 20, "0.2 s of processor time")
    idle = processes.start("python", "-c", "import signal; print('up'); signal.pause()")
    idle.wait_for_log("up")
    before = cpu_seconds(idle.pid)
    wait_for(lambda: cpu_seconds(process.pid) > 0.5, 20, "0.5 s of processor time")
    assert cpu_seconds(idle.pid) - before < 0.05
