"""The shop's Celery app."""

from __future__ import annotations

from celery import Celery

import lightbus.drivers.sqlite  # noqa: F401  # Celery then knows the embedded broker; no other broker needs this line
from lightbus.compat.bridge import install

from .settings import BROKER, RESULTS

app = Celery("shop", broker=BROKER, backend=RESULTS)
app.conf.update(
    task_default_queue="shop",
    broker_connection_retry_on_startup=True,
)
install(app)  # the bridge: does nothing until a task moves
app.autodiscover_tasks(["shop"])
