"""A short soak of three beats; a long one is `python -m tests.faults.beat_soak`."""

from __future__ import annotations

from pathlib import Path

import lightbus.compat  # noqa: F401 - the beats' project needs it: where it is absent, this file is left out
from tests.faults.beat_soak import soak


def test_beats_that_are_killed_and_frozen_send_each_slot_once(redis_url: str, tmp_path: Path) -> None:
    report = soak(2026, 3, 2, "redis", redis_url, tmp_path)

    assert report.is_clean, "\n".join([str(report), *report.faults])
    assert len(report.expected) > 10
