"""What results of one task and of several have in common: what callers hear while they wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import states
from .results import ResultDocument, fields_of


class Looks:
    """What the caller of `get` wants to hear while it waits."""

    __slots__ = ("_last", "_on_interval", "_on_message")

    def __init__(
        self, on_message: Callable[[dict[str, Any]], Any] | None, on_interval: Callable[[], Any] | None
    ) -> None:
        self._on_message = on_message
        self._on_interval = on_interval
        self._last: ResultDocument | None = None

    def at(self, document: ResultDocument | None) -> None:
        if self._on_message is not None and document is not None and document != self._last:
            self._last = document
            self._on_message(meta_of(document))

    def between(self) -> None:
        if self._on_interval is not None:
            self._on_interval()


def meta_of(document: ResultDocument) -> dict[str, Any]:
    """The document as Celery hands it to callbacks: a dict of its fields, with the exception rebuilt."""
    fields = fields_of(document)
    if document.status in states.EXCEPTION_STATES:
        fields["result"] = document.exception
    return fields
