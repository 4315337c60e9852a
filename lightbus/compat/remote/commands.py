"""The commands of remote control: Celery's by their names, those of them that are refused, and the project's own.

One that raises is answered with `{"error": repr}`, as one that is not here: kombu's node sees to that.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from . import changing, looking, revoking
from .custom import custom_commands
from .panel import Command, Panel, Reply


def _refused(name: str, panel: Panel, **_: Any) -> Reply:
    return {"error": f"{name} looks into a Celery worker's memory; a Lightbus worker does not offer it"}


#: As Celery's older tools name them.
_OLD_NAMES = {
    "dump_conf": "conf", "dump_schedule": "scheduled", "dump_reserved": "reserved", "dump_active": "active",
    "dump_revoked": "revoked", "dump_tasks": "registered",
}  # fmt: skip


def commands() -> dict[str, Command]:
    """By name."""
    looks: tuple[Command, ...] = (
        looking.ping, looking.hello, looking.clock, looking.report, looking.conf, looking.stats, looking.active,
        looking.reserved, looking.scheduled, looking.revoked, looking.registered, looking.active_queues,
        looking.query_task, looking.memsample,
    )  # fmt: skip
    revokes: tuple[Command, ...] = (revoking.revoke, revoking.terminate, revoking.revoke_by_stamped_headers)
    changes: tuple[Command, ...] = (
        changing.enable_events, changing.disable_events, changing.heartbeat, changing.rate_limit, changing.time_limit,
        changing.add_consumer, changing.cancel_consumer, changing.pool_grow, changing.pool_shrink,
        changing.pool_restart, changing.autoscale, changing.shutdown, changing.election,
    )  # fmt: skip
    found: dict[str, Command] = {one.__name__: one for one in (*looks, *revokes, *changes)}
    found |= {old: found[new] for old, new in _OLD_NAMES.items()}
    found |= {name: partial(_refused, name) for name in ("objgraph", "memdump")}
    return found | custom_commands()
