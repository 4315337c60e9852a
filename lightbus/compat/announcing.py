"""What whoever sends a task tells of it: the signals around a publish, and the event `task-sent`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.message import Route, Wire
from .protocol import TaskMessage, encode_task
from .signals import after_task_publish, before_task_publish, task_sent

if TYPE_CHECKING:
    from .events import TaskEvents

#: The AMQP properties that a receiver may change, by their fields of `Wire`; others go into `Wire.extra`.
_FIELDS = ("correlation_id", "reply_to", "priority")


def wire_of(message: TaskMessage, route: Route, *, fixed: Collection[str] = ()) -> Wire:
    """The message as it is published: encoded, after whoever listens to `before_task_publish` has changed it.

    Args:
        fixed: headers that stay as they are.

    Raises:
        ValueError: an argument cannot be written as JSON.
    """
    if not before_task_publish.receivers:
        return encode_task(message)
    wire = encode_task(message)
    headers, properties = dict(wire.headers), _properties(wire)
    body = _body(message)
    before_task_publish.send(
        message.task, body=body, exchange=route.exchange, routing_key=route.routing_key, declare=[], headers=headers,
        properties=properties, retry_policy={},
    )  # fmt: skip
    args, kwargs, embed = body
    # Encoded again: the objects in the body are the caller's own, and a receiver may have changed them too.
    again = encode_task(msgspec.structs.replace(message, args=tuple(args), kwargs=kwargs, **embed))
    headers |= {key: wire.headers[key] for key in fixed}
    return _with_properties(msgspec.structs.replace(again, headers=headers), properties)


def published(message: TaskMessage, wire: Wire, route: Route, events: TaskEvents | None) -> None:
    """Tell that a message was handed to the broker.

    Args:
        events: where `task-sent` goes; None where nobody asked for it.
    """
    headers: Mapping[str, Any] = wire.headers
    if after_task_publish.receivers:
        after_task_publish.send(
            message.task, body=_body(message), headers=dict(headers), exchange=route.exchange,
            routing_key=route.routing_key,
        )  # fmt: skip
    if task_sent.receivers:
        task_sent.send(
            message.task, task_id=message.id, task=message.task, args=message.args, kwargs=message.kwargs,
            eta=message.eta, taskset=message.group,
        )  # fmt: skip
    if events is not None:
        events.send(
            "task-sent", uuid=message.id, root_id=message.root_id or message.id, parent_id=message.parent_id,
            name=message.task, args=message.argsrepr, kwargs=message.kwargsrepr, retries=message.retries,
            eta=message.eta, expires=message.expires, queue="" if route.exchange else route.routing_key,
            exchange=route.exchange, routing_key=route.routing_key,
        )  # fmt: skip


def _body(message: TaskMessage) -> tuple[Any, Any, dict[str, Any]]:
    """As Celery has it before it is serialised."""
    embed = {
        "callbacks": message.callbacks, "errbacks": message.errbacks, "chain": message.chain, "chord": message.chord,
    }  # fmt: skip
    return message.args, message.kwargs, embed


def _properties(wire: Wire) -> dict[str, Any]:
    properties: dict[str, Any] = {**wire.extra, "correlation_id": wire.correlation_id, "reply_to": wire.reply_to}
    if wire.priority is not None:
        properties["priority"] = wire.priority
    return properties


def _with_properties(wire: Wire, properties: Mapping[str, Any]) -> Wire:
    own = {key: properties[key] for key in _FIELDS if key in properties}
    return msgspec.structs.replace(wire, **own, extra={k: v for k, v in properties.items() if k not in _FIELDS})
