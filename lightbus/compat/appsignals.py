"""The signals that a Celery app itself sends: `on_configure`, `on_after_configure`, `on_after_finalize`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

Receiver = Callable[..., Any]


class AppSignal:
    """Receivers that are called with `sender` and keywords. One that raises is logged, as in Celery."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._receivers: list[Receiver] = []

    def connect(self, receiver: Receiver | None = None, **_: Any) -> Any:
        """Have `receiver` called; also as a decorator, bare or called. Celery's further options have no effect."""
        if receiver is None:
            return self.connect
        if receiver not in self._receivers:
            self._receivers.append(receiver)
        return receiver

    def disconnect(self, receiver: Receiver) -> bool:
        """Do not call it any more; whether it was connected."""
        connected = receiver in self._receivers
        if connected:
            self._receivers.remove(receiver)
        return connected

    def send(self, sender: object, **keywords: Any) -> None:
        """Call every receiver."""
        for receiver in list(self._receivers):
            try:
                receiver(sender=sender, signal=self, **keywords)
            except Exception:
                logger.exception("receiver %r of %s failed", receiver, self.name)

    def __repr__(self) -> str:
        return f"<AppSignal {self.name}>"
