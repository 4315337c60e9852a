"""Schedules (cron expressions in two labelled dialects, intervals, single moments), their slots, and what is due.

This package knows nothing of any message bus and needs the standard library only; `Solar` needs astral.
It computes and decides; sending, remembering and waiting are left to the caller.
"""

from .commands import new_command
from .cron import Cron
from .entries import Decision, Entry, Misfire, Overlap, Progress, message_id
from .errors import CronError, EntryError, ScheduleError
from .expression import Dialect, Expression, parse, parse_celery
from .kinds import Every, Once, Schedule, Window, between, last_between
from .plan import Plan
from .ports import Firing, Job, Store
from .runner import Runner
from .solar import Solar

__all__ = [
    "Cron", "CronError", "Decision", "Dialect", "Entry", "EntryError", "Every", "Expression", "Firing", "Job",
    "Misfire", "Once", "Overlap", "Plan", "Progress", "Runner", "Schedule", "ScheduleError", "Solar", "Store", "Window",
    "between", "last_between", "message_id", "new_command", "parse", "parse_celery",
]  # fmt: skip
