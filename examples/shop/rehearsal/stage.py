"""The stage: a copy of the project in a folder of its own, edited and run there; the original stays as it is."""

from __future__ import annotations

import contextlib
import difflib
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from lightbus.drivers import open_transport
from lightbus.ports import Transport

from .ledger import LISTENERS, Ledger
from .programs import Program, Web, wait_for

PROJECT = Path(__file__).resolve().parents[1]
PARTS = ("contracts", "shop", "support", "journal.py")

BEFORE = "from celery import shared_task as task\n"
AFTER = "from lightbus.compat import task\n"

CELERY_QUEUE = "shop"
LIGHTBUS_QUEUE = "lightbus.shop"
DEAD_QUEUE = "lightbus.dead"
QUEUES = (CELERY_QUEUE, LIGHTBUS_QUEUE, *(f"support.on.{listener}" for listener in LISTENERS))

#: What the two workers log when they serve.
CELERY_READY = "ready."
LIGHTBUS_READY = "lightbus worker ready"

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
        self._transport: Transport | None = None
        self._dead_before = 0

    @property
    def ledger(self) -> Ledger:
        """The count as it is now."""
        return Ledger.read(self.var / "journal.jsonl")

    @property
    def forwarded(self) -> set[str]:
        """Ids of the tasks that one side handed to the other.

        Celery's worker logs each one; a task that Lightbus handed to Celery has the mark when it runs there. (Where
        Lightbus runs a task the mark is gone: what the task sends must not inherit it.)
        """
        found = set(self.ledger.marked)
        for log in self.all_logs:
            found |= set(re.findall(r"forwarded name=\S+ id=(\S+)", log.read_text(errors="replace")))
        return found

    @property
    def transport(self) -> Transport:
        """This process's own way to the broker, to look into queues."""
        if self._transport is None:
            self._transport = open_transport(self.broker)
        return self._transport

    @property
    def broker_name(self) -> str:
        """For people: what it is and where, without a password."""
        kind = self.transport.capabilities.name
        if self.broker.startswith("sqlite"):
            return kind
        parts = urlsplit(self.broker)
        port = f":{parts.port}" if parts.port else ""
        return f"{kind} at {parts.hostname or 'localhost'}{port}{parts.path or '/'}"

    @contextlib.contextmanager
    def watched(self, look: Callable[[Ledger], None]) -> Iterator[None]:
        """Within the block `look` gets the ledger a few times per second, in a thread of its own."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.2):
                look(self.ledger)

        thread = threading.Thread(target=watch, name="ledger")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

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

    def lightbus(self, *applications: str, processes: int = 1) -> Program:
        """A Lightbus worker of `shop`, of `support`, or of both."""
        named = [argument for application in applications for argument in ("-A", application)]
        arguments = ["-m", "lightbus.cli", "worker", *named, "--processes", str(processes)]
        return self._start(f"lightbus-{'-'.join(applications)}", arguments)

    def web(self) -> Web:
        """A process of the web shop, running the code as it is now."""
        web = Web(["-m", "shop.web"], self.project, self._log("web"), self._environment)
        self._programs.append(web)
        return web

    def end(self) -> None:
        """kill -9 whatever still runs."""
        for program in self._programs:
            program.end()
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def wait_for_runs(self, ids: list[str], seconds: float) -> None:
        """Wait until each of these tasks has run."""

        def look() -> bool:
            return self.ledger.ran(*ids)

        wait_for(look, seconds, f"{len(ids)} tasks to run", self.all_logs)

    # -- the broker

    def waiting(self, queue: str) -> int:
        """Messages that wait in a queue."""
        return self.transport.message_count(queue) or 0

    def waiting_dead(self) -> int:
        """Messages parked since `left_over` looked."""
        return self.waiting(DEAD_QUEUE) - self._dead_before

    def left_over(self) -> list[str]:
        """The project's queues in which there are messages already, so that a count here would be wrong."""
        self._dead_before = self.waiting(DEAD_QUEUE)
        return [queue for queue in QUEUES if self.waiting(queue)]

    def clean_up(self) -> None:
        """Remove the project's queues from the broker."""
        for queue in QUEUES:
            self.transport.delete(queue)

    def _start(self, name: str, arguments: list[str]) -> Program:
        program = Program(arguments, self.project, self._log(name), self._environment)
        self._programs.append(program)
        return program

    def _log(self, name: str) -> Path:
        number = sum(1 for program in self._programs if program.log.name.startswith(name)) + 1
        return self.logs / f"{name}-{number}.log"
