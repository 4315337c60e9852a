"""Cron expressions in two labelled dialects, and the instants at which they fire.

This package knows nothing of any message bus and needs the standard library only.
It computes; starting, sending, remembering and waiting are left to the caller.
"""

from .cron import Cron
from .expression import CronError, Dialect, Expression, parse, parse_celery

__all__ = ["Cron", "CronError", "Dialect", "Expression", "parse", "parse_celery"]
