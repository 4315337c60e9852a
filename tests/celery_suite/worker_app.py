"""The Celery application of `t/integration`, as a Lightbus worker loads it: `lightbus worker -A` this module.

The settings are those of the test process, which hands them over in LIGHTBUS_CELERY_SUITE_SETTINGS.
"""

from __future__ import annotations

import json
import os
from importlib import import_module

from celery.contrib.testing.app import TestApp

from tests.celery_suite.names import SETTINGS

TASKS = "t.integration.tasks"

app = TestApp(config=json.loads(os.environ[SETTINGS]), set_as_current=True)
app.set_default()
tasks = import_module(TASKS)
app.finalize()
app.register_task(tasks.ClassBasedAutoRetryTask())
