"""The one line that differs: whose names the project imports."""

from __future__ import annotations

import os

if os.environ["SITE_ENGINE"] == "celery":
    from celery import Celery, Task, current_app, current_task, shared_task
    from celery.utils.log import get_task_logger
else:
    from lightbus.compat import Celery, Task, current_app, current_task, shared_task
    from lightbus.compat.log import get_task_logger

__all__ = ["Celery", "Task", "current_app", "current_task", "get_task_logger", "shared_task"]
