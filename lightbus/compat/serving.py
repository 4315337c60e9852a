"""What is made sure of before an app's tasks are served: its settings can be carried out, and what is risky is said."""

from __future__ import annotations

import logging

from .serializers import accepts, check
from .settings import Settings

logger = logging.getLogger(__name__)

_PICKLE = "application/x-python-serialize"


class ServingCheck:
    """Of one app. A risk is said once, however many endpoints and processes ask."""

    def __init__(self) -> None:
        self._warned = False

    def of(self, settings: Settings) -> None:
        """Raises ConfigError: a serializer is not known, or its library is not installed."""
        check("task_serializer", settings.task_serializer)
        check("event_serializer", settings.event_serializer)
        if accepts(_PICKLE, settings.accept_content) and not self._warned:
            self._warned = True
            logger.warning("accept_content lets pickle in: who can write to this worker's queues can run code in it")
