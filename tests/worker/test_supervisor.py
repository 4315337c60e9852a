"""The parent of the worker's processes, with children that only wait: no broker is needed to see what it does."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.processes import Process, Processes, children, is_running, wait_for

PROGRAM = """
import logging, os, select, signal, sys, time
from lightbus.core.errors import AccessRefused, BrokerUnreachable
from lightbus.worker import Autoscale, Oversight, Supervisor
from lightbus.worker.supervisor import ChildFailed

logging.basicConfig(format="%(message)s", level="INFO")
mode = sys.argv[1]

def child(supervised):
    if mode == "refused":
        raise AccessRefused("the broker refused the password")
    if mode == "slow":
        print("child starts", flush=True)
        time.sleep(60)
    if mode == "defect":
        raise RuntimeError("boom")
    if mode == "short" and os.path.exists("started"):
        os._exit(9)
    open("started", "w").close()
    reader, writer = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: mode == "stubborn" or os.write(writer, b"s"))
    supervised.ready()
    print("child ready", flush=True)
    watched = [reader] if mode == "stubborn" else [reader, supervised.life, supervised.channel]
    select.select(watched, [], [])
    print("child done", flush=True)

try:
    scale = Autoscale(3, 1, grow_seconds=0.1, shrink_seconds=0.6) if mode == "scale" else None
    supervisor = Supervisor(int(sys.argv[2]), child, Oversight(autoscale=scale))
    sys.exit(supervisor.run(lambda pids: print("ready", *pids, flush=True)))
except ChildFailed as error:
    print(f"failed: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def started(processes: Processes, program: Path, mode: str = "wait", number: int = 2) -> Process:
    process = processes.start("python", program, mode, str(number), name=mode)
    process.wait_for_log("ready ")
    wait_for(lambda: process.read_log().count("child ready") == number, 10, "all children to be ready", [process.log])
    return process


def test_a_stop_lets_every_child_finish_and_exits_with_0(processes: Processes, program: Path) -> None:
    process = started(processes, program)

    assert process.stop() == 0
    assert process.read_log().count("child done") == 2


def test_ctrl_c_is_a_stop(processes: Processes, program: Path) -> None:
    process = started(processes, program)
    process.signal(signal.SIGINT)

    assert process.wait() == 0


def test_a_second_stop_kills_and_exits_with_1(processes: Processes, program: Path) -> None:
    process = started(processes, program, "stubborn")
    process.signal(signal.SIGTERM)
    process.wait_for_log("stopping 2 processes")
    process.signal(signal.SIGTERM)

    assert process.wait() == 1


def test_a_child_that_dies_is_replaced(processes: Processes, program: Path) -> None:
    process = started(processes, program)
    first = children(process.pid)
    os.kill(first[0], signal.SIGKILL)
    wait_for(lambda: process.read_log().count("child ready") == 3, 10, "a third child", [process.log])

    assert "was killed by SIGKILL; another starts" in process.read_log()
    assert len(children(process.pid)) == 2
    assert process.stop() == 0


def test_children_that_die_at_once_are_restarted_with_growing_pauses(processes: Processes, program: Path) -> None:
    process = processes.start("python", program, "short", "2", name="short")
    log = process.wait_for_log("another starts in 0.8 s")

    assert "another starts in 0.2 s" in log
    assert "ended with exit code 9" in log
    assert process.stop() == 0


def test_children_end_when_the_supervisor_is_killed(processes: Processes, program: Path) -> None:
    process = started(processes, program)
    pids = children(process.pid)
    process.kill()

    wait_for(lambda: not any(is_running(pid) for pid in pids), 10, "the children to end", [process.log])
    assert process.read_log().count("child done") == 2


@pytest.mark.parametrize(
    "mode, code, said", [("refused", 77, "the broker refused the password"), ("defect", 70, "exit code 70")]
)
def test_a_first_child_that_cannot_start_ends_the_worker_with_its_reason_once(
    processes: Processes, program: Path, mode: str, code: int, said: str
) -> None:
    process = processes.start("python", program, mode, "4", name=mode)

    assert process.wait() == code
    assert process.read_log().count("failed: ") == 1
    assert said in process.read_log()


def test_a_stop_while_the_first_child_starts_ends_it(processes: Processes, program: Path) -> None:
    process = processes.start("python", program, "slow", "4", name="slow")
    process.wait_for_log("child starts")

    assert process.stop() == 0


def test_idle_processes_leave_one_by_one_down_to_the_minimum(processes: Processes, program: Path) -> None:
    process = started(processes, program, "scale", 3)
    wait_for(lambda: len(children(process.pid)) == 1, 20, "two children to leave", [process.log])

    log = process.read_log()
    assert log.index("autoscale: 2 processes, were 3") < log.index("autoscale: 1 processes, were 2")
    assert log.count("child done") == 2
    assert "another starts" not in log
    assert process.stop() == 0
