"""A short soak of three beats; a long one is `python -m tests.faults.beat_soak`."""

from __future__ import annotations

from pathlib import Path

from tests.faults.beat_soak import soak


def test_beats_that_are_killed_and_frozen_send_each_slot_once(redis_url: str, tmp_path: Path) -> None:
    report = soak(2026, 4, 3, "redis", redis_url, tmp_path)

    assert report.is_clean, "\n".join([str(report), *report.faults])
    assert len(report.expected) > 10
