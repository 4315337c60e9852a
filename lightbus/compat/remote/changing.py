"""Commands that change the worker: its tasks' limits, its queues, its processes, whether it sends events, its end."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ...core.errors import ConfigError, DeclarationError
from ...core.topology import TASK_QUEUE_PREFIX
from ..settings import rate_from
from .facts import Refused
from .panel import Panel, Reply

logger = logging.getLogger("lightbus.worker")


class Shutdown(SystemExit):
    """The worker is told to stop; Celery's does not answer that either."""


def enable_events(panel: Panel) -> Reply:
    switch = panel.app.task_events.switch
    if switch.on:
        return {"ok": "task events already enabled"}
    switch.on = True
    logger.info("events of tasks enabled by remote control")
    return {"ok": "task events enabled"}


def disable_events(panel: Panel) -> Reply:
    switch = panel.app.task_events.switch
    if not switch.on:
        return {"ok": "task events already disabled"}
    switch.on = False
    logger.info("events of tasks disabled by remote control")
    return {"ok": "task events disabled"}


def heartbeat(panel: Panel) -> Reply:
    panel.beat()


def rate_limit(panel: Panel, task_name: str = "", rate_limit: Any = None, **_: Any) -> Reply:
    try:
        rate = rate_from(rate_limit)
    except (ValueError, DeclarationError) as error:
        return {"error": f"Invalid rate limit string: {error!r}"}
    if panel.task(task_name) is None:
        logger.error("rate limit for unknown task %s", task_name)
        return {"error": "unknown task"}
    _change_task(panel, task_name, {"rate_limit": rate_limit or 0})
    try:
        panel.node.rates.set(task_name, rate)
    except ConfigError as error:  # `worker_disable_rate_limits`: taken and of no effect, as in Celery
        logger.warning("the rate limit of %s has no effect: %s", task_name, error)
    if rate is None:
        return {"ok": "rate limit disabled successfully"}
    return {"ok": "new rate limit set successfully"}


def time_limit(panel: Panel, task_name: str = "", hard: Any = None, soft: Any = None, **_: Any) -> Reply:
    if panel.task(task_name) is None:
        logger.error("time limit for unknown task %s", task_name)
        return {"error": "unknown task"}
    _change_task(panel, task_name, {"time_limit": _seconds(hard), "soft_time_limit": _seconds(soft)})
    logger.info("new time limits for %s: soft=%s hard=%s", task_name, soft, hard)
    return {"ok": "time limits set successfully"}


def add_consumer(panel: Panel, queue: str = "", **_: Any) -> Reply:
    """Serve what Celery would put into `queue`: that is in `lightbus.<queue>`. The exchange is Celery's affair."""
    name = queue if queue.startswith(TASK_QUEUE_PREFIX) else TASK_QUEUE_PREFIX + queue
    panel.worker.tell(f"queue {name}", "add_queue", {"queue": name})
    return {"ok": f"add consumer {queue}"}


def cancel_consumer(panel: Panel, queue: str = "", **_: Any) -> Reply:
    for name in dict.fromkeys((queue, TASK_QUEUE_PREFIX + queue.removeprefix(TASK_QUEUE_PREFIX))):
        panel.worker.tell(f"queue {name}", "leave_queue", {"queue": name})
    return {"ok": f"no longer consuming from {queue}"}


def pool_grow(panel: Panel, n: Any = 1, **_: Any) -> Reply:
    return _resize(panel, int(n), "grow")


def pool_shrink(panel: Panel, n: Any = 1, **_: Any) -> Reply:
    return _resize(panel, -int(n), "shrink")


def pool_restart(panel: Panel, **_: Any) -> Reply:
    """Load the code anew, in all processes: no list of modules is needed for that."""
    if not panel.app.settings.pool_restarts:
        raise ValueError("Pool restarts not enabled")
    panel.worker.say("reload")
    return {"ok": "reload started"}


def autoscale(panel: Panel, max: Any = None, min: Any = None, **_: Any) -> Reply:
    bounds = [None if one is None else int(one) for one in (max, min)]
    try:
        most, least = panel.worker.request("autoscale", bounds)
    except Refused as refused:
        raise ValueError(str(refused)) from None  # as Celery's worker raises, and answers, it
    return {"ok": f"autoscale now max={most} min={least}"}


def shutdown(panel: Panel, msg: str = "Got shutdown from remote", **_: Any) -> Reply:
    logger.warning("%s", msg)
    panel.worker.say("stop")
    raise Shutdown(0)


def election(panel: Panel, **_: Any) -> Reply:
    """A Lightbus worker does not vote: no answer, as from a Celery worker without gossip."""


def _resize(panel: Panel, by: int, word: str) -> Reply:
    if by:
        try:
            panel.worker.request("resize", by)
        except Refused as refused:
            if str(refused) != "autoscale":
                return {"error": str(refused)}
            return {"error": f"pool_{word} is not supported with autoscale. Adjust autoscale range instead."}
    return {"ok": f"pool will {word}"}


def _change_task(panel: Panel, name: str, change: Mapping[str, object]) -> None:
    for attribute, value in change.items():
        setattr(panel.task(name), attribute, value)  # for what this node tells of it
    panel.worker.tell(f"task {name} {' '.join(change)}", "task", {"task": name, **change})


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)
