"""How a chord waits whose results are kept where nobody can count."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """How `celery.chord_unlock` waits, where it has to: a chord's own options, or None for the settings'."""

    interval_seconds: float | None = None
    max_retries: int | None = None
