"""Chords on the side of the worker: counting the ends of a header's tasks, then sending the body, or failing it.

The counts lie where the results lie, as Celery has them there, because any worker, Celery's or ours, may run the last
task of a header. There are three ways: Redis counts the ends with what they brought (`ChordCounter`); stores with an
atomic counter count a bare number, and the results are read at the end (`ChordTally`); for all others the task
`celery.chord_unlock` looks again and again whether all results are there.

A chord whose header has failed fails its body, and everything after it: nobody waits for ever.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.errors import DecodeError, TransportError
from ..result_ports import ChordCounter, ChordTally
from . import states
from .backends.celery_class import UncountedResults
from .canvas import Chain, Chord, Group, Signature, as_list, signature
from .canvas.builtin import UNLOCK
from .chordpauses import Pauses
from .errbacks import errbacks_to_send
from .exceptions import ChordError, ChordsRefused, EncodeError, Retry, TimeoutError
from .groupresult import GroupResult, result_from_tuple
from .request import Request
from .results import ResultDocument, exception_from, exception_triple
from .serializers import Codec

if TYPE_CHECKING:
    from ..result_ports import ResultBackend
    from .app import TaskApp
    from .task import Task

logger = logging.getLogger(__name__)

#: Pauses between the tries to send the body of a chord that was counted to its end.
RETRY_PAUSES_SECONDS: Sequence[float] = (0.1, 0.5, 2.0)
#: When `celery.chord_unlock` looks for the first time; Celery's default too.
FIRST_LOOK_SECONDS = 1.0


class Chords:
    """The chords of one app."""

    def __init__(self, app: TaskApp) -> None:
        self._app = app

    def begin(self, header: GroupResult, size: int, body: Signature, pauses: Pauses) -> None:
        """A chord is about to be sent: `size` ends of tasks are to be waited for.

        Args:
            header: a header with groups in it has the body's argument nested alike.
            body: gets what the counting needs to know, if anything.

        Raises:
            ChordsRefused: the result backend cannot count.
            TransportError: it could not be told.
        """
        match self._backend():
            case ChordCounter() as counter:
                nested = any(isinstance(one, GroupResult) for one in header.results)
                counter.begin_chord(
                    header.id,
                    size,
                    _document(header, self._codec) if nested else None,
                    expires_seconds=self._expires_seconds,
                )
            case ChordTally() as counter:
                body["chord_size"] = size
                counter.begin_tally(
                    header.id, size, _document(header, self._codec), expires_seconds=self._expires_seconds
                )
            case _:
                self._send_unlock(header, body, pauses)

    def add(self, group_id: str, count: int) -> None:
        """`count` more ends of tasks are to be waited for.

        Raises:
            ChordsRefused: this backend counts a header that is known from the beginning.
        """
        counter = self._backend()
        if not isinstance(counter, ChordCounter):
            raise ChordsRefused("a task can be added to a chord only where the results are in Redis")
        counter.extend_chord(group_id, count)

    @property
    def possible(self) -> bool:
        """Whether the result backend can count, or keeps what can be waited for."""
        return self._app.results.keeps and not isinstance(self._app.results.backend, UncountedResults)

    @property
    def reads_results(self) -> bool:
        """Whether a chord reads what its header's tasks have stored, so that they must store it."""
        return self.possible and not isinstance(self._app.results.backend, ChordCounter)

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
        match self._backend():
            case ChordCounter() as counter:
                self._count(counter, callback, document, group_index)
            case ChordTally() as counter:
                self._tally(counter, callback, document.group_id)
        # Otherwise `celery.chord_unlock` is on its way, and looks at what is stored.

    def _count(
        self, counter: ChordCounter, callback: Signature, document: ResultDocument, group_index: int | None
    ) -> None:
        group_id = str(document.group_id)
        part = _part_of(document, self._codec)
        found = counter.count_part(
            group_id, document.task_id, group_index, part, expires_seconds=self._expires_seconds
        )  # fmt: skip
        if found is None:
            return
        try:
            values = self._values(found.parts, found.structure)
        except ChordError as error:
            logger.error("chord %s failed: %s", group_id, error)
            self.fail(callback, error)
            counter.end_chord(group_id, found.claim, keeps_parts=True)
        else:
            self._send_body(callback, values)
            counter.end_chord(group_id, found.claim)

    def _tally(self, counter: ChordTally, callback: Signature, group_id: str) -> None:
        size = callback.get("chord_size")
        counted = counter.tally(
            group_id, size if isinstance(size, int) else None, expires_seconds=self._expires_seconds
        )  # fmt: skip
        if counted is None:
            self.fail(callback, ChordError(f"GroupResult {group_id} no longer exists"))
        elif counted.complete:
            found: Any = self._codec.loads(counted.group)
            header: GroupResult = result_from_tuple(found["result"], self._app)
            # A repeat of the member's message would count it once more, so a passing loss is borne here.
            for pause in (*RETRY_PAUSES_SECONDS, None):
                try:
                    self._finish(header, callback, wait_seconds=self._app.settings.chord_join_seconds)
                    break
                except TransportError:
                    if pause is None:
                        raise
                    time.sleep(pause)
            counter.end_tally(group_id)

    def unlock(self, task: Task, header: GroupResult, callback: Signature, pauses: Pauses) -> None:
        """What `celery.chord_unlock` does: send the body if all tasks of the header have ended, else look again later.

        Raises:
            Retry: not yet, or the results could not be read, or the body not be sent.
            MaxRetriesExceededError: not yet, and it may not look again; the body has failed.
        """
        settings = self._app.settings
        pause = settings.chord_retry_seconds if pauses.interval_seconds is None else pauses.interval_seconds
        error: Exception | None = None
        try:
            if header.ready():
                self._finish(header, callback, wait_seconds=0.0)
                return
        except TransportError as lost:  # nobody else looks: it has to look again
            error = lost
        except DecodeError as unreadable:
            self.fail(callback, ChordError(f"a result of the chord cannot be read: {unreadable}"))
            return
        waited = pause * task.request.retries
        if settings.result_expires_seconds is not None and waited > settings.result_expires_seconds:
            # Results older than that are removed: what is missing now will never be there.
            self.fail(callback, ChordError(f"tasks of the header have no result after {waited:.0f} s"))
            return
        try:
            raise task.retry(exc=error, countdown=pause, max_retries=pauses.max_retries)
        except Retry:
            raise
        except Exception as refused:
            self.fail(callback, ChordError(f"chord_unlock could not be retried: {refused!r}"))
            raise

    def _finish(self, header: GroupResult, callback: Signature, *, wait_seconds: float) -> None:
        """Send the body with the results of a header whose tasks have ended, or fail it."""
        try:
            values = self._joined(header, time.monotonic() + wait_seconds)
        except ChordError as error:
            logger.error("chord %s failed: %s", header.id, error)
            self.fail(callback, error)
        else:
            self._send_body(callback, values)

    def _joined(self, header: GroupResult, deadline: float) -> list[Any]:
        values: list[Any] = []
        for one in header.results:
            if isinstance(one, GroupResult):
                values.append(self._joined(one, deadline))
                continue
            try:
                value = one.get(max(0.0, deadline - time.monotonic()), propagate=False, disable_sync_subtasks=False)
            except TimeoutError as error:
                raise ChordError(f"Dependency {one.id} raised {error!r}") from error
            except DecodeError as error:
                raise ChordError(f"the result of {one.id} cannot be read: {error}") from error
            if one.state in states.PROPAGATE_STATES:
                raise ChordError(f"Dependency {one.id} raised {value!r}") from value
            values.append(value)
        return values

    def _send_unlock(self, header: GroupResult, body: Signature, pauses: Pauses) -> None:
        """Have somebody look whether the header has ended: whoever serves the body, on either side."""
        named: dict[str, Any] = {"interval": pauses.interval_seconds, "max_retries": pauses.max_retries}
        named["result"] = [one.as_tuple() for one in header.results]
        first = _first_task(body)
        own = self._app.tasks.get(first.task)
        self._app.send_task(
            UNLOCK, (header.id, body), named, countdown=FIRST_LOOK_SECONDS, route_name=first.task, ignore_result=True,
            queue=first.options.get("queue") or (own.queue if own is not None else None),
            priority=first.options.get("priority"), add_to_parent=False,
        )  # fmt: skip

    def unread(self, document: ResultDocument, group_index: int | None) -> None:
        """A task whose message cannot be read, nor in it the body of its chord, has failed: it is counted all the same,
        so that whichever task of the header ends last fails the chord. Where it is itself the last, nobody can.

        Raises:
            TransportError: it could not be counted.
        """
        if not document.group_id or not self.possible:
            return
        if self._is_last(document, group_index):
            logger.error(
                "chord %s waits for ever: its last task %s cannot be read, which alone could say which its body is",
                document.group_id, document.task_id,
            )  # fmt: skip

    def _is_last(self, document: ResultDocument, group_index: int | None) -> bool:
        """Count the task; whether all others of its header had ended."""
        group_id = str(document.group_id)
        match self._backend():
            case ChordCounter() as counter:
                part = _part_of(document, self._codec)
                found = counter.count_part(
                    group_id, document.task_id, group_index, part, expires_seconds=self._expires_seconds
                )  # fmt: skip
                return found is not None
            case ChordTally() as counter:
                tally = counter.tally(group_id, None, expires_seconds=self._expires_seconds)
                return tally is not None and tally.complete
        return False  # `celery.chord_unlock` looks at what is stored

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
        if isinstance(sig, Group) and error.__cause__ is not None:
            error = error.__cause__  # the tasks of a group fail with what failed first, as in Celery
        triple = exception_triple(error)
        for one, told in _tasks_of(sig):
            task_id = one.options.get("task_id")
            if not isinstance(task_id, str):
                continue  # nobody knows its id, so nobody waits
            sent = self._tell_errbacks(one, told, error) if errbacks else []
            document = ResultDocument(
                task_id=task_id, status=states.FAILURE, result=triple, traceback=str(error), children=sent,
                date_done=self._app.now_text(), group_id=one.options.get("group_id"),
            )  # fmt: skip
            self._app.results.store(document, reply_to=one.options.get("reply_to") or "", correlation_id=task_id)
            outer = one.options.get("chord")
            if isinstance(outer, Mapping):
                self.ended(outer, document, one.options.get("group_index"))
        for later in reversed(as_list(sig.options.get("chain"))):
            self.fail(signature(later, app=self._app), error, errbacks=False)

    def _tell_errbacks(self, sig: Signature, errbacks: Sequence[Any], error: BaseException) -> list[Any]:
        """Call or send the errbacks of a task that will not run; those that are called get a request that says which.

        Returns:
            list: what was sent, as children of that task: one group, as of Celery.
        """
        request = Request(
            id=sig.id, task=sig.task, args=list(sig.args), kwargs=dict(sig.kwargs), called_directly=False,
            root_id=sig.options.get("root_id"), parent_id=sig.options.get("parent_id"),
        )  # fmt: skip
        to_send = errbacks_to_send(self._app, errbacks, request, error, None)
        sent = [errback.apply_async((sig.id,)) for errback in to_send]
        return [GroupResult(str(uuid.uuid4()), sent, app=self._app).as_tuple()] if sent else []

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
        shape: Any = self._codec.loads(structure)
        return _arranged(result_from_tuple(shape["result"], self._app), dict(values))

    def _read(self, part: bytes) -> list[Any]:
        try:
            found: Any = self._codec.loads(part)
        except ValueError as error:
            raise ChordError(f"a part of the chord cannot be read: {error}") from error
        if not isinstance(found, list) or len(found) != 4:
            raise ChordError(f"a part of the chord must be a list of four, got {found!r:.100}")
        return found

    def _backend(self) -> ResultBackend:
        backend = self._app.results.backend
        if backend is None or not self.possible:
            raise ChordsRefused(
                f"the result backend {str(self._app.settings.result_backend).partition('://')[0]!r} cannot count the "
                "tasks of a chord: use one that keeps results, for example result_backend = 'redis://...'"
            )
        return backend

    @property
    def _codec(self) -> Codec:
        return self._app.settings.result_codec

    @property
    def _expires_seconds(self) -> float | None:
        settings = self._app.settings
        return (
            settings.result_expires_seconds
            if settings.chord_expires_seconds is None
            else settings.chord_expires_seconds
        )


def _document(header: GroupResult, codec: Codec) -> bytes:
    return codec.dumps({"result": header.as_tuple()})


def _first_task(sig: Signature) -> Signature:
    """The task by whose name a canvas is routed where it is sent as a whole."""
    match sig:
        case Chain() | Group() if sig.tasks:
            return _first_task(sig.tasks[0])
        case Chord() if sig.tasks:
            return _first_task(sig.tasks[0])
    return sig


def _arranged(results: GroupResult, by_id: Mapping[str, Any]) -> list[Any]:
    return [_arranged(one, by_id) if isinstance(one, GroupResult) else by_id.get(one.id) for one in results]


def _tasks_of(sig: Signature, leads: bool = True, around: Sequence[Any] = ()) -> list[tuple[Signature, list[Any]]]:
    """The tasks in `sig` that somebody may wait for, each with the errbacks to be told of its end.

    Args:
        leads: its errbacks speak for what it is a part of.
        around: errbacks of that.
    """
    errbacks = [*around, *(one for one in as_list(sig.options.get("link_error")) if one not in around)] if leads else []
    match sig:
        case Chain():
            return [found for n, one in enumerate(sig.tasks) for found in _tasks_of(one, leads and n == 0, errbacks)]
        case Group():
            return [found for one in sig.tasks for found in _tasks_of(one, leads, errbacks)]
        case Chord():
            header = [found for one in sig.tasks for found in _tasks_of(one, False)]
            return [*header, *_tasks_of(sig.body, leads, errbacks)]
    return [(sig, errbacks)]


def _part_of(document: ResultDocument, codec: Codec) -> bytes:
    """What a task brings to its chord, as Celery keeps it.

    Raises:
        EncodeError: its result cannot be written.
    """
    try:
        return codec.dumps([1, document.task_id, document.status, document.result])
    except ValueError as error:
        raise EncodeError(f"the result of task {document.task_id!r} {error}") from error
