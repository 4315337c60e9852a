"""Commands that look: `celery inspect` and Flower ask them. The answers have the form of Celery's worker's."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import kombu

from ...core.topology import TASK_QUEUE_PREFIX
from ...version import VERSION
from .panel import Panel, Reply, is_true, listed
from .revoking import take_revokes

if TYPE_CHECKING:
    from ..app import TaskApp

_INFO_FIELDS = (
    "id", "name", "args", "kwargs", "type", "hostname", "time_start", "acknowledged", "delivery_info", "worker_pid",
)  # fmt: skip
_TASK_FIELDS = ("exchange", "routing_key", "rate_limit")


def ping(panel: Panel, **_: Any) -> Reply:
    return {"ok": "pong"}


def clock(panel: Panel, **_: Any) -> Reply:
    return {"clock": panel.tick()}


def hello(panel: Panel, from_node: str = "", revoked: Any = None, **_: Any) -> Reply:
    """Mingle: take the other's revokes, which come as a list or, before Celery 5.7, as a mapping; give ours."""
    if from_node == panel.node.hostname:
        return None
    if revoked:
        take_revokes(panel.node, revoked)
    return {"revoked": panel.app.revokes.ids(told_only=True), "clock": panel.tick()}


def report(panel: Panel, **_: Any) -> Reply:
    results = str(panel.app.settings.result_backend or "disabled").partition(":")[0]
    lines = [
        f"software -> lightbus:{VERSION} kombu:{kombu.__version__} py:{platform.python_version()}",
        f"platform -> system:{platform.system()} arch:{platform.machine()} imp:{platform.python_implementation()}",
        f"settings -> transport:{panel.connection.transport_cls} results:{results}",
        f"tasks -> {', '.join(sorted({**panel.app.adopted, **panel.app.tasks}))}",
    ]
    return {"ok": "\n" + "\n".join(lines) + "\n"}


def conf(panel: Panel, with_defaults: Any = False, **_: Any) -> Reply:
    return _plain(panel.node.conf(is_true(with_defaults)))


def stats(panel: Panel, **_: Any) -> Reply:
    totals, prefetch = panel.worker.totals()
    broker = panel.connection.info()
    broker.pop("password", None)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    settings = panel.app.settings
    return {
        "total": totals,
        "pid": panel.worker.pid,
        "clock": str(panel.tick()),
        "uptime": round(time.time() - panel.started),
        "pool": {
            "implementation": "lightbus.worker:Supervisor",
            "max-concurrency": len(panel.worker.pids) * panel.worker.threads,
            "processes": list(panel.worker.pids),
            "max-tasks-per-child": "N/A",
            "put-guarded-by-semaphore": True,
            "timeouts": [settings.soft_time_limit or 0, settings.time_limit or 0],
            "writes": "N/A",
        },
        "broker": _plain(broker),
        "prefetch_count": prefetch,
        "rusage": {name.removeprefix("ru_"): getattr(usage, name) for name in dir(usage) if name.startswith("ru_")},
    }


def active(panel: Panel, safe: Any = False, **_: Any) -> Reply:
    return [_info(one, pid, safe=is_true(safe)) for pid, one in panel.held("active")]


def reserved(panel: Panel, **_: Any) -> Reply:
    return [_info(one, pid) for pid, one in panel.held("reserved")]


def scheduled(panel: Panel, **_: Any) -> Reply:
    """Nothing: what is due later lies in the broker, for whichever worker is there then."""
    return []


def revoked(panel: Panel, **_: Any) -> Reply:
    return panel.app.revokes.ids()


def registered(panel: Panel, taskinfoitems: Any = None, builtins: Any = False, **_: Any) -> Reply:
    items = [one for one in taskinfoitems or _TASK_FIELDS if isinstance(one, str) and not one.startswith("_")]
    lines = []
    for name, task in sorted({**panel.app.adopted, **panel.app.tasks}.items()):
        told = [f"{item}={value}" for item in items if (value := getattr(task, item, None)) is not None]
        lines.append(f"{name} [{' '.join(told)}]" if told else name)
    return lines


def active_queues(panel: Panel, **_: Any) -> Reply:
    names = sorted({name for _, queues in panel.worker.ask("queues") for name in queues or ()})
    return [dict(_as_kombu(panel.app, name).as_dict(recurse=True)) for name in names]


def query_task(panel: Panel, ids: Any = (), **_: Any) -> Reply:
    wanted = set(listed(ids))
    return {
        one["id"]: [state, _info(one, pid)]
        for state in ("reserved", "active")  # the later one wins: it may begin between the two questions
        for pid, one in panel.held(state)
        if one["id"] in wanted
    }


def memsample(panel: Panel, **_: Any) -> Reply:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.2f}MB"


def _info(one: Mapping[str, Any], pid: int, *, safe: bool = False) -> dict[str, Any]:
    told = {**one, "worker_pid": pid if one.get("time_start") else None}
    if safe:
        told |= {"args": one.get("argsrepr"), "kwargs": one.get("kwargsrepr")}
    return {name: told[name] for name in _INFO_FIELDS}


def _as_kombu(app: TaskApp, name: str) -> kombu.Queue:
    known = app.settings.celery_queue(name.removeprefix(TASK_QUEUE_PREFIX))
    arguments: dict[str, Any] | None = dict(known.arguments) or None
    if name.startswith(TASK_QUEUE_PREFIX):
        return kombu.Queue(name, kombu.Exchange(""), routing_key=name, queue_arguments=arguments)
    exchange = kombu.Exchange(known.exchange or name, type=known.exchange_type)
    return kombu.Queue(name, exchange, routing_key=known.routing_key or name, queue_arguments=arguments)


def _plain(value: Any) -> Any:
    """In JSON's types; what has none by its repr."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items() if not str(key).startswith("__")}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else repr(value)
