"""`lightbus dev`: several apps in one terminal, new code as files change, and nothing left when it ends."""

from __future__ import annotations

import os
import re
import signal

import pytest

from tests.cli.conftest import Project
from tests.cli.test_ls import LISTENER
from tests.processes import ROOT, Process, Processes, is_running, wait_for

SECONDS = 60.0

#: Runs two programs: one that ends by SIGTERM, one that does not hear it; `fails.py` is a third, which ends at once.
PROGRAM = """
import signal, sys
from pathlib import Path
from lightbus.cli.programs import Program, Programs

SLEEPER = "import os, signal, time; print('pid', os.getpid(), flush=True); {}; time.sleep(1000)"
deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)" if "deaf" in sys.argv else "pass"
programs = Programs(
    [
        Program("one", [sys.executable, "-c", SLEEPER.format("pass")], {}),
        Program("other", [sys.executable, "-c", SLEEPER.format(deaf)], {}),
        Program("fails", [sys.executable, "fails.py"], {}),
    ],
    Path.cwd(), sys.stdout.buffer, colours="colours" in sys.argv,
)
signal.signal(signal.SIGTERM, lambda *_: programs.stop())
sys.exit(programs.run())
"""


def pids_in(process: Process, pattern: str = r"pid (\d+)|ready pids?=([\d,]+)") -> set[int]:
    found = re.findall(pattern, process.read_log())
    return {int(pid) for pair in found for group in pair for pid in group.split(",") if pid}


def test_apps_run_together_take_new_code_and_end_together(project: Project, prefix: str) -> None:
    project.write("audit.py", LISTENER.format(prefix=prefix))
    dev = project.start("dev", "-A", "shop", "-A", "audit", name="dev")
    for line in ("shop  | lightbus worker ready", "audit | lightbus worker ready", "beat  | lightbus beat ready"):
        dev.wait_for_log(line, SECONDS)
    assert project.run("fire", f"{prefix}.tickets.created", "id=1", "-A", "shop").code == 0
    dev.wait_for_log("shop  | heard of 1", SECONDS)
    dev.wait_for_log("audit | kept 1", SECONDS)

    project.write("audit.py", LISTENER.format(prefix=prefix).replace('"kept"', '"filed"'))
    wait_for(
        lambda: dev.read_log().count("audit | lightbus worker ready") == 2
        and dev.read_log().count("beat  | lightbus beat ready") == 2,
        SECONDS, "new code", [dev.log],
    )  # fmt: skip
    assert project.run("fire", f"{prefix}.tickets.created", "id=2", "-A", "shop").code == 0
    dev.wait_for_log("audit | filed 2", SECONDS)
    pids = pids_in(dev)
    assert len(pids) >= 4
    dev.signal(signal.SIGINT)
    assert dev.wait() == 0
    assert not any(map(is_running, pids))


@pytest.fixture
def programs(project: Project, processes: Processes) -> Project:
    project.write("programs.py", PROGRAM)
    project.write("fails.py", "import sys; print('it fails', end='', flush=True); sys.exit(3)")
    return project


def start(project: Project, processes: Processes, *arguments: str) -> Process:
    started = processes.start(
        "python", "programs.py", *arguments, name="programs", folder=project.folder,
        environment={"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'scheduler'}"},
    )  # fmt: skip
    wait_for(lambda: len(pids_in(started)) == 2, SECONDS, "both programs", [started.log])
    return started


def test_a_program_that_ends_is_told_of_and_starts_again_when_a_file_changes(
    programs: Project, processes: Processes
) -> None:
    started = start(programs, processes, "colours")
    started.wait_for_log("ended with 3; it starts again when a .py file below this folder changes", SECONDS)
    assert "\x1b[36mone   |\x1b[0m pid" in started.read_log()
    assert "\x1b[32mfails |\x1b[0m it fails\n" in started.read_log()
    programs.write("fails.py", "print('it works now', flush=True)")
    started.wait_for_log("it works now", SECONDS)
    started.wait_for_log("ended with 0", SECONDS)
    assert started.stop() == 0


def test_the_third_stop_ends_what_does_not_hear(programs: Project, processes: Processes) -> None:
    started = start(programs, processes, "deaf")
    started.wait_for_log("deaf", SECONDS)
    for line in ("stopping: ", "stopping now: ", "stopping by force"):
        started.signal(signal.SIGTERM)
        started.wait_for_log(line, SECONDS)
    assert started.wait() == 0
    assert not any(map(is_running, pids_in(started)))


def test_nothing_is_left_when_it_is_killed(programs: Project, processes: Processes) -> None:
    started = start(programs, processes)
    os.kill(started.pid, signal.SIGKILL)  # this process alone

    wait_for(lambda: not any(map(is_running, pids_in(started))), SECONDS, "the programs to end", [started.log])


def test_without_an_app_it_says_what_to_do(empty: Project) -> None:
    ended = empty.run("dev")

    assert ended.code == 78
    assert "say -A MODULE" in ended.sentence
