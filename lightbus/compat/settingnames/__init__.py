"""Every setting of Celery by name: its default, its old spelling, and what becomes of it here. Pure.

This is the one table of names. `settings` says what the values that have an effect turn into, `conf` answers
`app.conf` from it, and the page docs/migration/compatibility.md is written from it.
"""

from __future__ import annotations

from .messages import MESSAGES
from .results import RESULTS
from .setting import DIFFERS, NO_EFFECT, REFUSED, WORKS, Setting, Verdict
from .tasks import TASKS
from .workers import WORKERS

__all__ = [
    "BY_NAME", "DIFFERS", "NO_EFFECT", "OLD_TO_NEW", "PAGE", "REFUSED", "SETTINGS", "WORKS", "Setting", "Verdict",
]  # fmt: skip

PAGE = "docs/migration/compatibility.md"

#: In Celery's order.
SETTINGS: tuple[Setting, ...] = (*MESSAGES, *RESULTS, *TASKS, *WORKERS)

BY_NAME = {one.name: one for one in SETTINGS}
OLD_TO_NEW = {one.old_name: one.name for one in SETTINGS}
