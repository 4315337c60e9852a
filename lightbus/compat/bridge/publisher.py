"""Publishing from inside a Celery worker: one message at a time, confirmed, on a connection of Celery's making."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from amqp.exceptions import MessageNacked
from celery import Celery
from kombu.exceptions import OperationalError

from ...core.message import Wire
from ...core.outcome import REPEAT_HEADER

logger = logging.getLogger(__name__)

CONFIRM_TIMEOUT_SECONDS = 10.0
PRECONDITION_FAILED = 406  #: AMQP's reply to a declaration that differs from what stands


class NotPublished(Exception):
    """A message could not be handed to the broker, or the broker did not confirm it."""


class Publisher:
    """Publishes wires on a connection of its own, opened at the first one, each confirmed before the next."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._connection: Any = None
        self._channel: Any = None
        self._declared: set[str] = set()

    def publish(self, wire: Wire, queue: Any) -> None:
        """Publish to `queue`, which is declared first. A broken connection is replaced once.

        Raises:
            NotPublished: it did not work; the broker may have the message all the same.
        """
        was_open = self._channel is not None
        try:
            self._try(wire, queue)
        except NotPublished:
            if not was_open:
                raise
            # An idle connection may long be dead. Whether the first try arrived is not known: say so.
            self._try(msgspec.structs.replace(wire, headers={**wire.headers, REPEAT_HEADER: 1}), queue)

    def _try(self, wire: Wire, queue: Any) -> None:
        if self._connection is None:
            self._connection = self._new_connection()
        errors = (*self._connection.connection_errors, *self._connection.channel_errors)
        try:
            if self._channel is None:
                self._connection.ensure_connection(max_retries=1, timeout=CONFIRM_TIMEOUT_SECONDS)
                self._channel = self._connection.channel()
            self._declare(queue)
            self._write(wire, queue.name)
        except (*errors, OperationalError, OSError, MessageNacked) as error:
            self._close()
            raise NotPublished(f"{type(error).__name__}: {error}") from error

    def _write(self, wire: Wire, queue_name: str) -> None:
        channel = self._channel
        properties: dict[str, Any] = {**wire.extra, "delivery_mode": 2 if wire.durable else 1}
        for key in ("message_id", "correlation_id", "reply_to"):
            if getattr(wire, key):
                properties[key] = getattr(wire, key)
        if wire.expiration_seconds is not None:
            properties["expiration"] = str(round(wire.expiration_seconds * 1000))
        message = channel.prepare_message(
            wire.body,
            priority=wire.priority,
            content_type=wire.content_type or None,
            content_encoding=wire.content_encoding or None,
            headers=dict(wire.headers),
            properties=properties,
        )
        if _is_amqp(self._connection):
            # Without a listener for returned messages py-amqp raises: an unroutable message is an error.
            channel.basic_publish(
                message, exchange="", routing_key=queue_name, mandatory=True,
                timeout=CONFIRM_TIMEOUT_SECONDS, confirm_timeout=CONFIRM_TIMEOUT_SECONDS,
            )  # fmt: skip
        else:
            channel.basic_publish(message, exchange="", routing_key=queue_name)

    def _declare(self, queue: Any) -> None:
        if queue.name in self._declared:
            return
        try:
            queue(self._channel).declare()
        except self._connection.channel_errors as error:
            if getattr(error, "reply_code", None) != PRECONDITION_FAILED:
                raise
            # It stands with other arguments than Celery's settings give. Messages are safe there all the same.
            logger.warning("queue %s is not declared again: %s", queue.name, error)
            self._channel = self._connection.channel()  # the broker closed the other one
        self._declared.add(queue.name)

    def _new_connection(self) -> Any:
        connection = self._app.connection_for_write()
        if not _is_amqp(connection):
            return connection  # a write that returned is all the confirmation there is
        return self._app.connection_for_write(transport_options={"confirm_publish": True})

    def _close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        self._declared.clear()
        connection.collect(socket_timeout=1.0)


def _is_amqp(connection: Any) -> bool:
    return bool(connection.get_transport_cls().driver_type == "amqp")
