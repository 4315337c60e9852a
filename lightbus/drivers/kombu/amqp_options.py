"""The transport options of AMQP that are Lightbus's, checked and read; the others are py-amqp's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...core.errors import ConfigError
from .tls import tls_of

HEARTBEAT = "heartbeat"
PUBLISH_TIMEOUT = "publish_timeout_seconds"
DELAY_QUEUE_TYPE = "delay_queue_type"

#: Of kombu's other transports: a project that shares one set of options between them may name these too.
_OTHERS = frozenset({"visibility_timeout", "queue_order_strategy", "priority_steps", "global_keyprefix"})
_OURS = _OTHERS | {HEARTBEAT, PUBLISH_TIMEOUT, DELAY_QUEUE_TYPE}


@dataclass(frozen=True, slots=True)
class AmqpOptions:
    """How connections to RabbitMQ behave.

    Attributes:
        heartbeat_seconds: asked for (AMQP counts in whole seconds); the broker may lower it. A peer that is silent for
            two of them is gone.
        publish_timeout_seconds: how long a publish waits for its confirm.
        delay_queue_type: of the ladder's queues, where they have to be made: `quorum` or `classic`.
        tls: what kombu's `Connection(ssl=...)` takes.
        connection: what py-amqp's connection is given.
    """

    heartbeat_seconds: float
    publish_timeout_seconds: float
    delay_queue_type: str
    tls: object
    connection: Mapping[str, object]

    @property
    def silence_seconds(self) -> float:
        """How long to wait for a broker that owes an answer, or that does not take what is written."""
        return 2 * self.heartbeat_seconds


def read_options(options: Mapping[str, object]) -> AmqpOptions:
    """Raises ConfigError: a value is not what it has to be."""
    tls, options = tls_of(options)
    return AmqpOptions(
        tls=tls,
        heartbeat_seconds=_seconds(options, HEARTBEAT, default=10.0, least=1.0),
        publish_timeout_seconds=_seconds(options, PUBLISH_TIMEOUT, default=10.0, least=0.05),
        delay_queue_type=str(options.get(DELAY_QUEUE_TYPE, "quorum")),
        connection={key: value for key, value in options.items() if key not in _OURS},
    )


def _seconds(options: Mapping[str, object], name: str, *, default: float, least: float) -> float:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < least:
        raise ConfigError(f"transport option {name!r} is a number of seconds, {least:g} or more, got {value!r}")
    return float(value)
