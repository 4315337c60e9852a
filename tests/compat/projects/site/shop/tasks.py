from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from shopsite.celery import app
from shopsite.engine import Task, current_app, current_task, get_task_logger, shared_task

logger = get_task_logger(__name__)


class Order(BaseModel):
    id: int
    note: str = ""


class Counted(Task):
    abstract = True
    counted = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.counted += 1
        return [self.counted, super().__call__(*args, **kwargs)]

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        options["headers"] = {**(options.get("headers") or {}), "sent_by": "Counted"}
        return super().apply_async(args, kwargs, **options)


class ClassTask(Task):
    name = "shop.class_task"

    def run(self, x: int) -> Any:
        return [x, self.name, self.request.retries, self.app.main]


app.register_task(ClassTask())


@shared_task
def add(x: int, y: int) -> int:
    return x + y


@shared_task(bind=True, base=Counted)
def counted(self: Any, x: int) -> Any:
    return [x, self.request.sent_by, self.request.headers["sent_by"]]


@shared_task(bind=True)
def annotated(self: Any) -> Any:
    if self.request.retries < self.max_retries:
        raise self.retry()
    return [self.request.retries, self.max_retries, self.default_retry_delay]


@app.task(pydantic=True)
def model(order: Order, other: Order | None = None) -> Order:
    return Order(id=order.id + (other.id if other else 0), note=type(order).__name__)


@shared_task
def logged() -> Any:
    return [logger.parent.name if logger.parent else None, current_task.name, current_app.main]


@shared_task(bind=True)
def configuration(self: Any) -> Any:
    conf = current_app.conf
    return [
        conf.shop_limit, conf.task_compression, conf.timezone, conf["result_extended"], conf.worker_prefetch_multiplier,
        sorted(name for name in self.app.tasks if not name.startswith("celery.")),
    ]  # fmt: skip


@shared_task(bind=True)
def connections(self: Any) -> Any:
    with self.app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=3)
        return connection.connected
