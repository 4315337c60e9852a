"""Stages of `staged.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Processes
from tests.worker.staged import Staged


@pytest.fixture
def staged(tmp_path: Path, sqlite_url: str, processes: Processes) -> Iterator[Staged]:
    """On the embedded broker."""
    made = Staged(tmp_path, sqlite_url, processes)
    yield made
    made.close()


@pytest.fixture
def each_staged(tmp_path: Path, broker_url: str, processes: Processes) -> Iterator[Staged]:
    """On each broker."""
    made = Staged(tmp_path, broker_url, processes)
    yield made
    made.close()
