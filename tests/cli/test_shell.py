"""`lightbus shell`: a script on stdin, and a person at a terminal with IPython and without."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Project
from tests.processes import wait_for

PLAIN = """
import importlib.util

find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "IPython" else find(name, *rest)

from lightbus.cli.__main__ import main

main()
"""


class Terminal:
    """A program at a terminal of its own, and what it shows."""

    def __init__(self, arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
        self._end, inner = pty.openpty()
        os.set_blocking(self._end, False)
        self.shown = ""
        self.log = folder / f"terminal-{os.path.basename(arguments[1])}.log"
        self._process = subprocess.Popen(
            arguments, cwd=folder, env=environment, stdin=inner, stdout=inner, stderr=inner, start_new_session=True
        )
        os.close(inner)

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def wait_for(self, text: str, seconds: float = 60) -> None:
        def seen() -> bool:
            try:
                self.shown += os.read(self._end, 65536).decode(errors="replace")
            except OSError:  # nothing to read at the moment, or the program has ended
                assert self._process.poll() is None or text in self.shown, self.shown
            self.log.write_text(self.shown)
            return text in self.shown

        wait_for(seen, seconds, repr(text), [self.log])

    def end(self) -> int:
        try:
            return self._process.wait(30)
        finally:
            self._process.kill()
            os.close(self._end)


@pytest.fixture
def environment(project: Project) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("LIGHTBUS_")}
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "scheduler"), own.get("PYTHONPATH", "")]
    ipython = project.folder / "ipython"  # a prompt of plain lines: the other asks the terminal what it can do
    project.write(
        "ipython/profile_default/ipython_config.py", "get_config().TerminalInteractiveShell.simple_prompt = True"
    )
    return own | {"PYTHONPATH": os.pathsep.join(paths), "TERM": "dumb", "NO_COLOR": "1", "IPYTHONDIR": str(ipython)}


def test_at_a_terminal_python_has_clients_of_what_runs_and_completes_them(
    project: Project, prefix: str, environment: dict[str, str]
) -> None:
    worker = project.worker("-A", "shop", "-c", "1")
    project.write("plain.py", PLAIN)
    arguments = ["shell", "-A", "shop", "--wait", "5"]
    plain = Terminal([sys.executable, "plain.py", *arguments], project.folder, environment)
    ipython = Terminal([sys.executable, "-m", "lightbus.cli", *arguments], project.folder, environment)
    for terminal, prompt in ((plain, ">>> "), (ipython, "In [1]: ")):
        terminal.wait_for(f"{prefix}_tickets: {prefix}.tickets 1.0, status, pid, sizes")
        terminal.wait_for(prompt)
    plain.type(f"{prefix}_tickets.stat\tid=7)\n")
    plain.wait_for("'ticket 7 is open'")
    plain.type("\x04")
    ipython.type(f"get_ipython().complete('{prefix}_tickets.s')[1]\n")
    ipython.wait_for("['.sizes', '.status']")
    ipython.type(f"remote('{prefix}.tickets').status(id=8)\n")
    ipython.wait_for("'ticket 8 is open'")
    ipython.type("bus.fire(Tickets.created(id=9))\n")
    worker.wait_for_log("heard of 9")
    ipython.type("exit\n")
    assert plain.end() == 0
    assert ipython.end() == 0


def test_without_a_terminal_stdin_is_a_program(project: Project, prefix: str, environment: dict[str, str]) -> None:
    def run(program: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lightbus.cli", "shell", "-A", "shop"], input=program, cwd=project.folder,
            env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    good = run("for number in range(2):\n    print(bus.name, number, len(workers()))\n")
    assert good.stdout == f"{prefix} 0 0\n{prefix} 1 0\n", good.stderr
    bad = run("print(remote('nobody.there'))")
    assert bad.returncode == 1
    assert "lightbus: no worker says within 1 s that it serves the API 'nobody.there'" in bad.stderr
