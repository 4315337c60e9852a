"""Who sends, and because of what: the `Origin` of a message, from the app and the message being handled."""

from __future__ import annotations

import time
import uuid

from .core.message import Origin
from .endpoint import current_delivery


def new_origin(app: str) -> Origin:
    """A fresh id now, in the conversation of the message being handled here, if there is one."""
    message_id = uuid.uuid4().hex
    cause = current_delivery()
    if cause is None:
        return Origin(id=message_id, source=app, sent_at=time.time(), correlation_id=message_id)
    return Origin(
        id=message_id,
        source=app,
        sent_at=time.time(),
        correlation_id=cause.correlation_id or cause.id,
        causation_id=cause.id,
        trace=cause.trace,
    )
