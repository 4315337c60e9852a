"""A small project in the test's folder, and `lightbus` run in it as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT, Process, Processes

CONTRACTS = """
from datetime import date

from lightbus import Api, ApiError, Event, rpc


class Tickets(Api, name="{prefix}.tickets", version="1.0"):
    class created(Event):
        id: int
        email: str = ""
        due: date | None = None

    class NotFound(ApiError):
        id: int

    @rpc(timeout_seconds=5.0, errors=[NotFound])
    def status(self, *, id: int, reader: str = "") -> str:
        raise NotImplementedError

    @rpc()
    def pid(self) -> int:
        raise NotImplementedError

    @rpc()
    def sizes(self, *, of: list[str]) -> dict[str, int]:
        raise NotImplementedError
"""

BUS = """
from __future__ import annotations

import os

from contracts import Tickets
from lightbus import Bus, rpc

bus = Bus("{prefix}")


class OurTickets(Tickets):
    @rpc()
    def status(self, *, id: int, reader: str = "") -> str:
        if id == 404:
            raise Tickets.NotFound(id=id)
        return f"ticket {{id}} is open" + (f" for {{reader}}" if reader else "")

    @rpc()
    def pid(self) -> int:
        return os.getpid()

    @rpc()
    def sizes(self, *, of: list[str]) -> dict[str, int]:
        return {{text: len(text) for text in of}}


bus.serve(OurTickets())


@bus.on(Tickets.created)
def remember(event: Tickets.created) -> None:
    print(f"heard of {{event.id}} {{event.email!r}} {{event.due}}", flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line on stderr, besides the one that tells of the embedded broker."""
        lines = [line for line in self.err.splitlines() if not line.startswith("no broker")]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("lightbus: "), self.err
        return lines[0].removeprefix("lightbus: ")

    def json(self) -> Any:
        assert self.code in (0, 1), self.err
        return json.loads(self.out)


class Project:
    """Files in `folder`, and commands run there."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder = folder
        self._processes = processes
        self.environment: dict[str, str] = {}

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def run(self, *arguments: str, seconds: float = 30) -> Ended:
        """Run `lightbus` with `arguments` to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "lightbus.cli", *arguments], cwd=self.folder, env=self._environment(),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout, done.stderr)

    def python(self, *arguments: str, seconds: float = 60) -> Ended:
        """Run a program of the project to its end."""
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=self._environment(),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, name: str = "lightbus") -> Process:
        """Start `lightbus` with `arguments`, its output in one log."""
        environment = {**self.environment, "LIGHTBUS_URL": self.environment.get("LIGHTBUS_URL", "")}
        return self._processes.start(
            "python", "-m", "lightbus.cli", *arguments, name=name, environment=environment, folder=self.folder
        )

    def worker(self, *arguments: str) -> Process:
        """A worker that consumes."""
        process = self.start("worker", *arguments, name="worker")
        process.wait_for_log("lightbus worker ready pids=")
        return process

    def _environment(self) -> Mapping[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("LIGHTBUS_")}
        paths = (str(ROOT), str(ROOT / "scheduler"), own.get("PYTHONPATH", ""))
        return own | {"PYTHONPATH": os.pathsep.join(path for path in paths if path), "NO_COLOR": "1"} | self.environment


@pytest.fixture
def empty(tmp_path: Path, processes: Processes) -> Project:
    """A folder without a project."""
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(folder, processes)


@pytest.fixture
def project(empty: Project, prefix: str) -> Project:
    """`contracts.py` and `shop.py`, an app that serves calls and listens, on the embedded broker of its folder."""
    empty.write("contracts.py", CONTRACTS.format(prefix=prefix))
    empty.write("shop.py", BUS.format(prefix=prefix))
    return empty


@pytest.fixture
def each_broker(project: Project, broker_url: str) -> Project:
    """The same project on each broker."""
    project.environment["LIGHTBUS_URL"] = broker_url
    return project
