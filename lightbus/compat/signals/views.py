"""What receivers get of a message: by the names that kombu's message and the request of Celery's worker have."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ...core.errors import DecodeError
from ..bodies import read_body
from ..fields import moment

if TYPE_CHECKING:
    from ...ports import Delivery
    from ..recording import Run


@dataclass(frozen=True)
class ReceivedMessage:
    """The message of `task_rejected` and `task_unknown`."""

    delivery: Delivery

    @property
    def headers(self) -> dict[str, Any]:
        return dict(self.delivery.wire.headers)

    @property
    def body(self) -> bytes:
        return self.delivery.wire.body

    @property
    def content_type(self) -> str:
        return self.delivery.wire.content_type

    @property
    def content_encoding(self) -> str:
        return self.delivery.wire.content_encoding

    @property
    def payload(self) -> Any:
        """The decoded body, or None when it cannot be read."""
        with contextlib.suppress(DecodeError):
            return read_body(self.delivery.wire)
        return None

    @property
    def properties(self) -> dict[str, Any]:
        wire = self.delivery.wire
        return {**wire.extra, "correlation_id": wire.correlation_id, "reply_to": wire.reply_to,
                "delivery_mode": 2 if wire.durable else 1, "priority": wire.priority}  # fmt: skip

    @property
    def delivery_info(self) -> dict[str, Any]:
        return {"exchange": "", "routing_key": self.delivery.queue, "redelivered": self.delivery.redelivered}


class ReceivedRequest:
    """The request of `task_received`, which in Celery is not the one that the task sees.

    Attributes:
        name: the task's, or its `shadow`; `type` is always the task's.
        eta, expires: datetimes, or None.
        time_limits: hard and soft.
    """

    def __init__(self, run: Run) -> None:
        request, message = run.request, run.message
        self.id = self.task_id = message.id
        self.type = message.task
        self.name = self.task_name = message.shadow or message.task
        self.task = run.task
        self.app = run.task.app
        self.hostname = request.hostname
        self.args, self.kwargs = request.args, request.kwargs
        self.argsrepr, self.kwargsrepr = message.argsrepr, message.kwargsrepr
        self.root_id, self.parent_id = message.root_id, message.parent_id
        self.group, self.group_index = message.group, message.group_index
        self.reply_to, self.correlation_id = request.reply_to, request.correlation_id
        self.delivery_info: Mapping[str, Any] = request.delivery_info or {}
        self.time_limits = message.timelimit
        self.ignore_result = run.task.ignores_result(request)
        self.stamped_headers, self.stamps = list(message.stamped_headers or ()), dict(message.stamps)
        self.message = ReceivedMessage(run.delivery)
        self.request_dict = self.message.headers
        zone = self.app.settings.zone
        self.eta, self.expires = (_datetime(text, zone) for text in (message.eta, message.expires))

    def __repr__(self) -> str:
        return f"<ReceivedRequest: {self.name}[{self.id}]>"


def _datetime(text: str | None, zone: Any) -> datetime | None:
    return None if text is None else datetime.fromtimestamp(moment(text, zone), zone or timezone.utc)
