from __future__ import annotations

import os
from typing import Any

from .engine import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shopsite.settings")


class FSApp(Celery):
    """Celery's own class is subclassed by projects: configuration in a hook, names of tasks of their own making."""

    def gen_task_name(self, name: str, module: str) -> str:
        return str(super().gen_task_name(name, module.replace("shop.deep.", "shop.")))


app = FSApp("shopsite", include=["shop.extra"])
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
finalized: list[Any] = []


@app.on_after_finalize.connect
def set_up_periodic_tasks(sender: Any, **_: Any) -> None:
    finalized.append(sender.main)
    sender.add_periodic_task(30.0, sender.signature("shop.tasks.add", (1, 2)), name="add every half minute")


@app.task(bind=True)
def debug_task(self: Any) -> Any:
    return [self.name, self.app.main, self.request.task, self.request.id is not None]
