"""The stage: a copy of the project in a folder of its own, edited and run there, so that the original stays as it is."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from .ledger import Ledger
from .programs import Program, Web, wait_for

PROJECT = Path(__file__).resolve().parents[1]
PARTS = ("contracts", "shop", "support", "journal.py")

BEFORE = "from celery import shared_task as task\n"
AFTER = "from lightbus.compat import task\n"

CELERY_QUEUE = "shop"
LIGHTBUS_QUEUE = "lightbus.shop"
DEAD_QUEUE = "lightbus.dead"

#: Quicker to start; a worker of a real project leaves them out.
CELERY_OPTIONS = ("--without-gossip", "--without-mingle", "--without-heartbeat")


class Stage:
    """A copy of the project on one broker, and the processes that run it.

    Args:
        folder: an empty folder; gets `project/`, `var/` (what the project makes) and `logs/`.
        broker: the broker's URL.
        environment: added to what the programs get.
    """

    def __init__(self, folder: Path, broker: str, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.broker = broker
        self.project, self.var, self.logs = folder / "project", folder / "var", folder / "logs"
        for made in (self.project, self.var, self.logs):
            made.mkdir(parents=True)
        for part in PARTS:
            source, target = PROJECT / part, self.project / part
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        self._environment = {
            "LIGHTBUS_URL": broker,
            "SHOP_RESULTS": broker if broker.startswith("redis") else "rpc://",
            "SHOP_FOLDER": str(self.var),
            "PYTHONDONTWRITEBYTECODE": "1",  # an edit within the same second must not meet an old .pyc
            "C_FORCE_ROOT": "1",
            **(environment or {}),
        }
        self._programs: list[Program] = []

    @property
    def ledger(self) -> Ledger:
        """The count as it is now."""
        return Ledger.read(self.var / "journal.jsonl")

    @property
    def all_logs(self) -> list[Path]:
        return [program.log for program in self._programs]

    # -- the move

    def move(self, *, to_lightbus: bool) -> list[str]:
        """Edit the one import of `shop/tasks.py`; returns the diff's changed lines."""
        file = self.project / "shop" / "tasks.py"
        old, new = (BEFORE, AFTER) if to_lightbus else (AFTER, BEFORE)
        text = file.read_text()
        if text.count(old) != 1:
            raise ValueError(f"{file} should contain the line {old.strip()!r} once")
        changed = text.replace(old, new)
        file.write_text(changed)
        lines = difflib.unified_diff(text.splitlines(), changed.splitlines(), "shop/tasks.py", "shop/tasks.py", n=0)
        return [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]

    # -- processes; each returns at once, `.wait_for_log(...)` says when it is there

    def celery(self) -> Program:
        """A worker of the shop's Celery app."""
        arguments = ["-m", "celery", "-A", "shop.celery", "worker", "-l", "INFO", "-c", "2", *CELERY_OPTIONS]
        return self._start("celery", arguments)

    def lightbus(self, application: str, processes: int = 1) -> Program:
        """A Lightbus worker of `shop` or `support`."""
        serve = str(Path(__file__).with_name("serve.py"))
        return self._start(f"lightbus-{application}", [serve, application, str(processes)])

    def web(self) -> Web:
        """A process of the web shop, running the code as it is now."""
        web = Web(["-m", "shop.web"], self.project, self._log("web"), self._environment)
        self._programs.append(web)
        return web

    def end(self) -> None:
        """kill -9 whatever still runs."""
        for program in self._programs:
            program.end()

    def wait_for_runs(self, ids: list[str], seconds: float) -> None:
        """Wait until each of these tasks has run."""

        def look() -> bool:
            return self.ledger.ran(*ids)

        wait_for(look, seconds, f"{len(ids)} tasks to run", self.all_logs)

    def _start(self, name: str, arguments: list[str]) -> Program:
        program = Program(arguments, self.project, self._log(name), self._environment)
        self._programs.append(program)
        return program

    def _log(self, name: str) -> Path:
        number = sum(1 for program in self._programs if program.log.name.startswith(name)) + 1
        return self.logs / f"{name}-{number}.log"


CELERY_READY = "ready."
LIGHTBUS_READY = "ready."
