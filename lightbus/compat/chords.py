"""Chords on the side of the worker: counting the ends of a header's tasks, then sending the body, or failing it.

The counts lie where the results lie, under Celery's keys, because any worker, Celery's or ours, may run the last task
of a header. A chord whose header has failed fails its body, and everything after it: nobody waits for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError, TransportError
from ..ports import ChordCounter, ChordParts
from . import json, states
from .canvas import Chain, Chord, Group, Signature, as_list, signature
from .exceptions import ChordError, EncodeError
from .groupresult import GroupResult, result_from_tuple
from .results import ResultDocument, exception_from, exception_triple

if TYPE_CHECKING:
    from .app import TaskApp

logger = logging.getLogger(__name__)


class Chords:
    """The chords of one app."""

    def __init__(self, app: TaskApp) -> None:
        self._app = app

    def begin(self, group_id: str, size: int, nested: GroupResult | None) -> None:
        """A chord is about to be sent: `size` ends of tasks are to be waited for.

        Args:
            nested: the results of a header with groups in it; the body's argument is then nested alike.

        Raises:
            ConfigError: the result backend cannot count.
            TransportError: it could not be told.
        """
        structure = None if nested is None else json.dumps({"result": nested.as_tuple()}).encode()
        self._counter().begin_chord(group_id, size, structure, expires_seconds=self._expires_seconds)

    def add(self, group_id: str, count: int) -> None:
        """`count` more ends of tasks are to be waited for."""
        self._counter().extend_chord(group_id, count)

    @property
    def possible(self) -> bool:
        """Whether the result backend can count."""
        return isinstance(self._app.results.backend, ChordCounter)

    def ended(self, body: Mapping[str, Any], document: ResultDocument, group_index: int | None) -> None:
        """A task of a chord's header has ended as `document` says; the last one sends the body.

        Of a task that was refused, because nobody can count or its body is no signature, nothing is counted.

        Args:
            body: the signature of the chord's body, in JSON form.

        Raises:
            TransportError: the end could not be counted, or the body not be sent.
        """
        if not document.group_id or not self.possible:
            return
        try:
            callback = signature(body, app=self._app)
        except (TypeError, ValueError) as error:
            logger.warning("the chord %s has no body that can be sent: %s", document.group_id, error)
            return
        found = self._count(document, group_index)
        if found is None:
            return
        try:
            values = self._values(found.parts, found.structure)
        except ChordError as error:
            logger.error("chord %s failed: %s", document.group_id, error)
            self.fail(callback, error)
        else:
            self._send_body(callback, values)
        self._counter().end_chord(document.group_id, found.claim)

    def unread(self, document: ResultDocument, group_index: int | None) -> None:
        """A task whose message cannot be read, nor in it the body of its chord, has failed: it is counted all the same,
        so that whichever task of the header ends last fails the chord. Where it is itself the last, nobody can.

        Raises:
            TransportError: it could not be counted.
        """
        if not document.group_id or not self.possible:
            return
        if self._count(document, group_index) is not None:
            logger.error(
                "chord %s waits for ever: its last task %s cannot be read, which alone could say which its body is",
                document.group_id, document.task_id,
            )  # fmt: skip

    def _count(self, document: ResultDocument, group_index: int | None) -> ChordParts | None:
        try:
            part = json.dumps([1, document.task_id, document.status, document.result]).encode()
        except ValueError as error:
            raise EncodeError(f"the result of task {document.task_id!r} {error}") from error
        return self._counter().count_part(
            document.group_id or "", document.task_id, group_index, part, expires_seconds=self._expires_seconds
        )

    def _send_body(self, callback: Signature, values: list[Any]) -> None:
        try:
            callback.apply_async((values,))
        except TransportError:
            raise  # a repeat of the member's message may still send it
        except Exception as error:  # the body's own: wrong arguments, an `apply_async` that was overridden
            logger.exception("the body %r of a chord could not be sent", callback)
            self.fail(callback, ChordError(f"Callback error: {error!r}"))

    def fail(self, sig: Signature, error: BaseException, *, errbacks: bool = True) -> None:
        """Store FAILURE for all of `sig`, which will not run, and tell the chord that it is a part of.

        Args:
            errbacks: send the errbacks too. Those of a chain are linked to each of its steps, and sent once.
        """
        triple = exception_triple(error)
        for one, leads in _tasks_of(sig):
            task_id = one.options.get("task_id")
            if not isinstance(task_id, str):
                continue  # nobody knows its id, so nobody waits
            document = ResultDocument(
                task_id=task_id, status=states.FAILURE, result=triple, traceback=str(error),
                date_done=self._app.now_text(), group_id=one.options.get("group_id"),
            )  # fmt: skip
            self._app.results.store(document, reply_to=one.options.get("reply_to") or "", correlation_id=task_id)
            for errback in as_list(one.options.get("link_error")) if errbacks and leads else ():
                signature(errback, app=self._app).apply_async((task_id,))
            outer = one.options.get("chord")
            if isinstance(outer, Mapping):
                self.ended(outer, document, one.options.get("group_index"))
        for later in reversed(as_list(sig.options.get("chain"))):
            self.fail(signature(later, app=self._app), error, errbacks=False)

    def _values(self, parts: Sequence[bytes], structure: bytes | None) -> list[Any]:
        """The body's argument.

        Raises:
            ChordError: a task of the header has failed.
        """
        values: list[tuple[str, Any]] = []
        for part in parts:
            _, task_id, state, result = self._read(part)
            if state in states.PROPAGATE_STATES:
                cause = exception_from(result)
                raise ChordError(f"Dependency {task_id} raised {cause!r}") from cause
            values.append((task_id, result))
        if structure is None:
            return [value for _, value in values]
        shape: Any = json.loads(structure)
        return _arranged(result_from_tuple(shape["result"], self._app), dict(values))

    def _read(self, part: bytes) -> list[Any]:
        try:
            found: Any = json.loads(part)
        except ValueError as error:
            raise ChordError(f"a part of the chord cannot be read: {error}") from error
        if not isinstance(found, list) or len(found) != 4:
            raise ChordError(f"a part of the chord must be a list of four, got {found!r:.100}")
        return found

    def _counter(self) -> ChordCounter:
        backend: object = self._app.results.backend
        if not isinstance(backend, ChordCounter):
            raise ConfigError(
                f"the result backend {self._app.settings.result_backend!r} cannot count the tasks of a chord: "
                "use a Redis, result_backend = 'redis://...'"
            )
        return backend

    @property
    def _expires_seconds(self) -> float | None:
        return self._app.settings.result_expires_seconds


def _arranged(results: GroupResult, by_id: Mapping[str, Any]) -> list[Any]:
    return [_arranged(one, by_id) if isinstance(one, GroupResult) else by_id.get(one.id) for one in results]


def _tasks_of(sig: Signature, leads: bool = True) -> list[tuple[Signature, bool]]:
    """The tasks in `sig` that somebody may wait for, each with whether its errbacks speak for what it is a part of."""
    match sig:
        case Chain():
            return [found for n, one in enumerate(sig.tasks) for found in _tasks_of(one, leads and n == 0)]
        case Group():
            return [found for one in sig.tasks for found in _tasks_of(one, leads)]
        case Chord():
            return [*(found for one in sig.tasks for found in _tasks_of(one, False)), *_tasks_of(sig.body, leads)]
    return [(sig, leads)]
