"""What is loaded inside the old Celery app while tasks move to Lightbus. The only package that imports celery.

`install(app)` is one line after `app = Celery(...)`, and does nothing to tasks that have not moved. For those that did,

- producers publish to `lightbus.Q`, where Q is the queue that Celery's own router chose: `.delay` and `send_task`,
  beat, and the steps of chains, groups and chords that workers publish;
- Celery workers hand over what still reaches them (sent before the move, held with an ETA, sent by old code) and never
  discard it: a consumer step answers each message of a moved or unknown task with `forward`, before Celery decodes it
  or looks at ETA, expiry, revokes and rate limits. Celery itself acknowledges an unknown task and stores FAILURE.

Messages are published on a connection of Celery's own making (its TLS, failover and transport options), with confirms
where the broker has them, and acknowledged afterwards: a crash in between doubles a message and never loses it. It is
a plain connection without a thread, because the process that forwards is the one that forks Celery's pool.

What a message becomes is decided in `forwarding`; what Lightbus does with it is the business of `compat.endpoint`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from functools import partial

from celery import Celery
from celery.app.defaults import DEFAULTS

from ..app import default_app
from ..settings import Settings, backend_setting, urls
from .adoption import adopt
from .beat import moved_entries, watch_beat
from .bridge import bridge_of, described, setting
from .producers import keep_stubs, route_through
from .workers import ForwardStep, forward_strategy

__all__ = ["adopt", "forward_strategy", "forwarded", "install", "is_installed", "moved_entries", "settings_from"]

#: Celery's settings that `Settings` understands by the same name and that are plain values.
_PLAIN_SETTINGS = (
    "accept_content", "enable_utc", "result_expires", "result_failure_expires", "result_extended", "result_serializer",
    "result_accept_content", "task_create_missing_queues",
    "task_serializer", "task_default_queue", "task_queue_max_priority", "task_default_priority", "task_ignore_result",
    "task_store_errors_even_if_ignored", "task_always_eager", "task_eager_propagates", "task_store_eager_result",
    "task_acks_late",
    "task_acks_on_failure_or_timeout", "task_track_started", "task_time_limit", "task_soft_time_limit",
    "task_inherit_parent_priority", "broker_transport_options", "broker_use_ssl", "worker_send_task_events",
    "task_send_sent_event", "event_exchange", "event_serializer", "result_chord_retry_interval",
    "result_chord_join_timeout", "result_chord_expires", "lightbus_oldest_celery", "task_compression",
    "worker_enable_remote_control", "control_exchange", "control_queue_ttl", "control_queue_expires",
    "control_queue_exclusive", "control_queue_durable", "worker_pool_restarts", "worker_state_db",
)  # fmt: skip


def install(celery_app: Celery, *, moved: Iterable[str] = (), beat_entries: Iterable[str] | None = None) -> None:
    """Let the tasks of `celery_app` move to Lightbus. Call it right after `app = Celery(...)`; again is harmless.

    Reads no configuration, so that `config_from_object` may come after it.

    Args:
        moved: names of tasks that Lightbus serves, besides those that this process imports from `lightbus.compat` and
            those in the Celery setting `lightbus_moved`. Needed for a task whose module the Celery side does not
            import, and for one that is still written for Celery and run by `lightbus worker -A`.
        beat_entries: names or patterns of the `beat_schedule` entries that `lightbus beat` fires, besides those in the
            Celery setting `lightbus_beat_entries`. Given, if only empty, the two beats share the schedule; None with no
            such setting: each of them fires all of it.
    """
    bridge = bridge_of(celery_app)
    if beat_entries is not None:
        named = [beat_entries] if isinstance(beat_entries, str) else beat_entries
        bridge.beat_entries = frozenset(named) | (bridge.beat_entries or frozenset())
    bridge.moved.update([moved] if isinstance(moved, str) else moved)
    if bridge.installed:
        return
    bridge.installed = True
    route_through(celery_app)
    celery_app.steps["consumer"].add(ForwardStep)
    keep_stubs(celery_app, bridge)
    watch_beat(celery_app, partial(settings_from, celery_app))
    default_app().configure_later(partial(settings_from, celery_app))


def is_installed(celery_app: Celery) -> bool:
    """Whether `install` was called for this app."""
    return bridge_of(celery_app).installed


def settings_from(celery_app: Celery) -> Settings:
    """What `lightbus.compat` needs to know of a Celery app; reads its configuration.

    Raises:
        ConfigError: a setting has a value that Lightbus cannot work with.
    """
    conf, bridge = celery_app.conf, bridge_of(celery_app)
    values = {name: value for name in _PLAIN_SETTINGS if (value := setting(conf, name, ...)) is not ...}
    for name in conf:  # those that the project has set: Lightbus's backends have defaults of their own
        if backend_setting(name) == name and (value := setting(conf, name)) != DEFAULTS.get(name):
            values[name] = value
    timezone = conf.timezone
    connection = celery_app.connection_for_write()
    read, write = urls(conf.broker_read_url), urls(conf.broker_write_url)
    return dataclasses.replace(
        Settings.from_mapping(values),
        broker_url=write or connection.as_uri(include_password=True),
        broker_read_url=read if read != write else None,
        result_backend=conf.result_backend or None,
        timezone=None if timezone is None else str(timezone),
        # The type of queues that Celery creates as needed; the default queue is among `celery_queues`.
        missing_queue_type=setting(conf, "task_create_missing_queue_type") or "classic",
        celery_queues=tuple(described(celery_app.amqp.queues[name]) for name in sorted(bridge.configured_queues())),
        queue_of=bridge.celery_queue_of,
        moved=frozenset(bridge.moved_names()),
        celery_serves_others=True,
    )


def forwarded(celery_app: Celery) -> Counter[tuple[str, str]]:
    """How many messages this process handed to Lightbus, by task name and origin (`gen<pid>@<host>` of the sender).

    An origin that stays says where old code still runs.
    """
    return Counter(bridge_of(celery_app).counts)
