"""Where results go and come from: kept under their ids (see `backends`), sent to the caller's queue (`rpc://`), or
nowhere.

Three shapes behind one protocol. The formats are `results`'; keys, expiry and wake-ups are the result backend's.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Protocol

from ..core.errors import ConfigError, DecodeError, NotConfirmed
from ..core.message import Route, Wire
from ..core.topology import Topology, is_own_reply_queue, is_reply_queue, reply_queue
from ..forks import renewed_after_fork
from ..result_ports import ChordCounter, Expiring, GroupKeeper, KeepsSuccess
from . import states
from .backends import open_backend
from .results import ResultDocument, decode_result, document_from, encode_result
from .serializers import content_type_of
from .settings import Settings

if TYPE_CHECKING:
    from ..ports import Consumer, Delivery, Transport
    from ..result_ports import ResultBackend

logger = logging.getLogger(__name__)

_KEPT_ANSWERS = 10_000  #: answers that nobody has asked for yet; the oldest go first


class ResultStore(Protocol):
    """Results of tasks by their ids. Thread-safe.

    Attributes:
        keeps: any process can read what was stored, and a Celery worker can overwrite it.
        backend: where it is kept, if it is.
        announces: who waits is woken, and need not look again and again.
    """

    keeps: bool

    @property
    def announces(self) -> bool: ...

    @property
    def backend(self) -> ResultBackend | None: ...

    def expect(self, task_id: str) -> str:
        """Get ready for the result of a task about to be sent; the queue to name in its `reply_to`, or `""`."""

    def store(self, document: ResultDocument, *, reply_to: str, correlation_id: str) -> None:
        """Make the result known.

        Raises:
            EncodeError: it cannot be written down.
            TransportError: it could not be handed over.
        """

    def fetch(self, task_id: str) -> ResultDocument | None:
        """What is known now."""

    def wait(self, task_id: str, *, timeout_seconds: float) -> ResultDocument | None:
        """What is known as soon as something new is, or at the timeout."""

    def forget(self, task_id: str) -> None: ...

    def save_group(self, group_id: str, document: bytes) -> None:
        """Keep which tasks make a group: JSON, `{"result": [[id, parent], children]}`.

        Raises:
            ConfigError: the backend keeps no groups.
        """

    def load_group(self, group_id: str) -> bytes | None: ...

    def delete_group(self, group_id: str) -> None: ...

    def remove_expired(self) -> None:
        """Remove what is older than `result_expires`, where it does not go by itself."""

    def close(self) -> None: ...


def open_result_store(
    settings: Settings, transport: Callable[[], Transport], backend: ResultBackend | None = None
) -> ResultStore:
    """The store that `settings.result_backend` names; `backend` in its place where it is given.

    Raises:
        ConfigError: see `backends.open_backend`.
    """
    named = settings.result_backend or "disabled"
    scheme = named.partition(":")[0].lower() if isinstance(named, str) else ""
    if scheme == "disabled" and backend is None:
        return NoResults()
    settings.result_codec.check("result_serializer")
    if backend is not None:
        return KeptResults(backend, settings)
    if scheme in ("rpc", "amqp"):
        return RepliedResults(transport, settings)
    return KeptResults(open_backend(settings), settings)


def wait_for(published: Future[None], timeout_seconds: float) -> None:
    """Wait until the broker has taken charge of a message.

    Raises:
        TransportError: it has not, or not in time.
    """
    try:
        published.result(timeout=timeout_seconds)
    except FutureTimeout as error:
        raise NotConfirmed(f"the broker did not confirm a message within {timeout_seconds} s") from error


class KeptResults:
    """Results kept under the task's id until they expire."""

    keeps = True

    def __init__(self, backend: ResultBackend, settings: Settings) -> None:
        self.backend = backend
        self._one_step = backend if isinstance(backend, KeepsSuccess) else None
        self._settings = settings

    def expect(self, task_id: str) -> str:
        return ""

    def store(self, document: ResultDocument, *, reply_to: str = "", correlation_id: str = "") -> None:
        data = encode_result(document, max_bytes=self._settings.result_max_bytes, codec=self._settings.result_codec)
        expires = self._settings.result_expires_seconds
        if document.status == states.FAILURE and self._settings.result_failure_expires_seconds is not None:
            expires = self._settings.result_failure_expires_seconds
        # A second run of the same message must not take back what the caller may have read.
        if self._one_step is not None:
            kept = self._one_step.store_unless_success(document.task_id, data, expires_seconds=expires)
            if kept is None:
                return
        else:
            kept = self.backend.fetch(document.task_id)
        if kept is None or not self._is_success(kept):
            self.backend.store(document.task_id, data, expires_seconds=expires)

    def fetch(self, task_id: str) -> ResultDocument | None:
        data = self.backend.fetch(task_id)
        return None if data is None else decode_result(data, self._settings.result_codec)

    def wait(self, task_id: str, *, timeout_seconds: float) -> ResultDocument | None:
        data = self.backend.wait(task_id, timeout_seconds=timeout_seconds)
        return None if data is None else decode_result(data, self._settings.result_codec)

    def forget(self, task_id: str) -> None:
        self.backend.forget(task_id)

    @property
    def announces(self) -> bool:
        return isinstance(self.backend, ChordCounter)  # those that count by themselves are those that publish

    def save_group(self, group_id: str, document: bytes) -> None:
        self._groups().store_group(group_id, document, expires_seconds=self._settings.result_expires_seconds)

    def load_group(self, group_id: str) -> bytes | None:
        return self._groups().fetch_group(group_id)

    def delete_group(self, group_id: str) -> None:
        self._groups().forget_group(group_id)

    def remove_expired(self) -> None:
        if isinstance(self.backend, Expiring) and self._settings.result_expires_seconds is not None:
            self.backend.remove_expired(self._settings.result_expires_seconds)

    def _groups(self) -> GroupKeeper:
        backend: object = self.backend
        if not isinstance(backend, GroupKeeper):
            raise ConfigError(f"the result backend {type(backend).__name__} keeps no groups")
        return backend

    def close(self) -> None:
        self.backend.close()

    def _is_success(self, data: bytes) -> bool:
        try:
            return decode_result(data, self._settings.result_codec).status == states.SUCCESS
        except DecodeError:
            return False  # nobody can read it: better a result that can be


class _NoGroups:
    """Of stores that keep nothing."""

    def save_group(self, group_id: str, document: bytes) -> None:
        raise ConfigError("groups are saved in a result backend that keeps results, and rpc:// and disabled do not")

    def load_group(self, group_id: str) -> bytes | None:
        raise ConfigError("groups are restored from a result backend that keeps results; rpc:// and disabled do not")

    def delete_group(self, group_id: str) -> None:
        """There is none."""

    def remove_expired(self) -> None:
        """There is nothing."""


class RepliedResults(_NoGroups):
    """Results sent as messages to the queue that the caller named; only the process that sent a task can read its own.

    One reply queue and one consumer per process, made when the first task is sent, and anew after a fork.
    """

    keeps = False
    announces = True
    backend = None

    def __init__(self, transport: Callable[[], Transport], settings: Settings) -> None:
        self._transport = transport
        self._settings = settings
        self._queue = ""
        self._consumer: Consumer | None = None
        self._start_lock = threading.Lock()
        self._news = threading.Condition()
        self._answers: OrderedDict[str, ResultDocument] = OrderedDict()
        self._parents: list[Consumer | None] = []
        renewed_after_fork(self)

    def renew_after_fork(self) -> None:
        """See `lightbus.forks.Renewable`: the reply queue is the parent's, and so are the answers."""
        self._parents.append(self._consumer)
        self._consumer, self._queue = None, ""
        self._start_lock, self._news = threading.Lock(), threading.Condition()
        self._answers = OrderedDict()

    def expect(self, task_id: str) -> str:
        with self._start_lock:
            if self._consumer is None:
                queue = reply_queue("celery-results", uuid.uuid4().hex)
                transport = self._transport()
                transport.declare(Topology(queues=(queue,)))
                self._consumer = transport.consume([queue], self._on_answer, prefetch=100)
                self._queue = queue.name
            return self._queue

    def store(self, document: ResultDocument, *, reply_to: str, correlation_id: str) -> None:
        codec = self._settings.result_codec
        data = encode_result(document, max_bytes=self._settings.result_max_bytes, codec=codec)
        if not reply_to:
            return  # nobody waits
        if not is_reply_queue(reply_to):  # or anybody could have a worker write into any queue
            logger.error(
                "the result of task %r is not sent: its message asks for it in %.100r, which is no queue for results",
                document.task_id, reply_to,
            )  # fmt: skip
            return
        answer = Wire(
            body=data, content_type=content_type_of(codec.name), content_encoding=codec.encoding,
            correlation_id=correlation_id or document.task_id,
            # In Redis an empty queue of a Celery caller leaves no trace; what may be forgotten would be dropped there.
            durable=not is_own_reply_queue(reply_to),
        )  # fmt: skip
        wait_for(self._transport().publish(answer, Route("", reply_to)), self._settings.publish_timeout_seconds)

    def fetch(self, task_id: str) -> ResultDocument | None:
        with self._news:
            return self._answers.get(task_id)

    def wait(self, task_id: str, *, timeout_seconds: float) -> ResultDocument | None:
        deadline = time.monotonic() + timeout_seconds
        with self._news:
            before = self._answers.get(task_id)
            while self._answers.get(task_id) is before and (left := deadline - time.monotonic()) > 0:
                self._news.wait(left)
            return self._answers.get(task_id)

    def forget(self, task_id: str) -> None:
        with self._news:
            self._answers.pop(task_id, None)

    def close(self) -> None:
        with self._start_lock:
            if self._consumer is not None:
                self._consumer.close()
            self._consumer = None

    def _on_answer(self, delivery: Delivery) -> None:
        try:
            wire, codec = delivery.wire, self._settings.result_codec
            document = document_from(codec.loads_as(wire.body, wire.content_type, wire.content_encoding))
        except (DecodeError, ValueError):
            delivery.ack()  # whoever wrote that: it is no answer, and a reply queue has no other reader
            return
        delivery.ack()  # before anybody hears of it, who may then close this
        with self._news:
            key = document.task_id or delivery.wire.correlation_id
            known = self._answers.get(key)
            if known is None or known.status not in states.READY_STATES or document.status in states.READY_STATES:
                self._answers[key] = document
                self._answers.move_to_end(key)
            while len(self._answers) > _KEPT_ANSWERS:
                self._answers.popitem(last=False)
            self._news.notify_all()


class NoResults(_NoGroups):
    """No result backend: nothing is kept, and asking says so."""

    keeps = False
    announces = False
    backend = None

    def expect(self, task_id: str) -> str:
        return ""

    def store(self, document: ResultDocument, *, reply_to: str = "", correlation_id: str = "") -> None:
        pass

    def fetch(self, task_id: str) -> ResultDocument | None:
        raise ConfigError("no result backend is configured: set result_backend, for example to redis://localhost/1")

    def wait(self, task_id: str, *, timeout_seconds: float) -> ResultDocument | None:
        return self.fetch(task_id)

    def forget(self, task_id: str) -> None:
        self.fetch(task_id)

    def close(self) -> None:
        pass
