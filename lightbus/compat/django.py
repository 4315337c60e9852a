"""What Celery adds for Django: tasks that are sent when the transaction commits, and the names of installed apps.

Database connections around a task are the business of `lightbus.contrib.django`, which the worker uses by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from .task import Task


def is_django() -> bool:
    """Whether this is a Django project: its settings are named, and Django is installed."""
    return bool(os.environ.get("DJANGO_SETTINGS_MODULE")) and find_spec("django") is not None


def installed_packages() -> list[str]:
    """The packages of Django's installed apps. Django is set up when it is not yet."""
    import django
    from django.apps import apps

    if not apps.ready:
        django.setup()
    return [config.name for config in apps.get_app_configs()]


class DjangoTask(Task):
    """A task in a Django project; the base class of all tasks there, unless the app names another."""

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """`delay` once the database transaction commits; nothing when it is rolled back."""
        _on_commit(partial(self.delay, *args, **kwargs))

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """`apply_async` once the database transaction commits; nothing when it is rolled back."""
        _on_commit(partial(self.apply_async, *args, **kwargs))


def _on_commit(send: Callable[[], object]) -> None:
    from django.db import transaction

    transaction.on_commit(send)
