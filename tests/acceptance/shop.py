"""The example project `examples/shop` for the acceptance tests: its stage, its steps, and a broker of its own."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.brokers import Brokers

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "shop"
if str(EXAMPLE) not in sys.path:
    sys.path.insert(0, str(EXAMPLE))  # as `python examples/shop/demo.py` has it

from rehearsal.ledger import LISTENERS, Ledger  # noqa: E402  (the path comes first)
from rehearsal.programs import Program, WaitedInVain, Web, tail, wait_for  # noqa: E402
from rehearsal.stage import CELERY_READY, DEAD_QUEUE, LIGHTBUS_QUEUE, LIGHTBUS_READY, Stage  # noqa: E402
from rehearsal.steps import ORDERS, Move  # noqa: E402

__all__ = [
    "BROKERS", "CELERY_READY", "DEAD_QUEUE", "EXAMPLE", "LIGHTBUS_QUEUE", "LIGHTBUS_READY", "LISTENERS", "ORDERS",
    "Ledger", "Move", "Program", "Stage", "WaitedInVain", "Web", "broker", "stage_on", "tail", "wait_for",
]  # fmt: skip

BROKERS = ("amqp", "redis", "sqlite")


@contextlib.contextmanager
def broker(kind: str, brokers: Brokers, folder: Path) -> Iterator[str]:
    """URL of an empty broker that nobody else has."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'bus.db'}"
    else:
        with brokers.vhost() if kind == "amqp" else brokers.redis_database() as url:
            yield url


@contextlib.contextmanager
def stage_on(url: str, folder: Path) -> Iterator[Stage]:
    """A copy of the project on the broker; what still runs at the end of the block is killed."""
    paths = [str(ROOT), str(ROOT / "scheduler"), os.environ.get("PYTHONPATH", "")]
    stage = Stage(folder / "stage", url, {"PYTHONPATH": os.pathsep.join(path for path in paths if path)})
    try:
        yield stage
    finally:
        stage.end()
