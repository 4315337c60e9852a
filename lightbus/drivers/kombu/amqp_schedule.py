"""The schedule on RabbitMQ: a queue that holds the state and whose one active consumer is the leader.

    lightbus.schedule            every record, as messages; `x-single-active-consumer`: the broker hands all of it to
                                 one process, and to the next one the moment that one's connection ends
    lightbus.schedule.commands   commands for the leader

The firings, the records of their decisions and the acknowledgements of commands go out on the channel that consumes
the state, in one AMQP transaction. So a process that the broker has given up can send nothing: its connection is
closed. The connection is never opened anew by itself; whoever lost it asks again, and begins from the state.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, TypeVar

import amqp
import msgspec

from ...core.errors import ConnectionLost, NotConfirmed, NotLeading, ScheduleStateError, TransportError
from ...core.message import Parcel
from ..sqlite.schedule import read_record
from .amqp_declare import delayed_route
from .amqp_errors import CHANNEL_ERRORS, CONNECTION_ERRORS
from .amqp_options import read_options
from .amqp_wire import message_of
from .link import connect

QUEUE = "lightbus.schedule"
COMMANDS = "lightbus.schedule.commands"
#: RabbitMQ closes a channel that leaves a message unacknowledged for 30 minutes; all of the state is rewritten earlier.
REWRITE_AFTER_SECONDS = 600.0
REWRITE_AFTER_MESSAGES = 1000
RECORDS_PER_MESSAGE = 2000
LOOK_FOR_STATE_SECONDS = 2.0
ANSWER_SECONDS = 10.0


_NO_RECORD = b"null"

T = TypeVar("T")


class _Numbered(msgspec.Struct):
    """A message of the state, of which only its place in the order is read."""

    sequence: int


class _State(_Numbered):
    """A message of the state. Records that came later go before."""

    records: dict[str, msgspec.Raw]


class AmqpScheduleStore:
    """See `ports.ScheduleStore`. For one thread."""

    def __init__(self, url: str, options: Mapping[str, object]) -> None:
        self._url = url
        self._options = read_options(options)
        self._connection: Any = None
        self._forget()

    def _forget(self) -> None:
        self._channel: Any = None
        self._state: list[tuple[int, int, bytes]] = []  # sequence, delivery tag and body, until the term begins
        self._tags: list[int] = []
        self._records: dict[str, bytes] = {}  # encoded, as it takes a fraction of the room
        self._sequence = 0
        self._waiting: dict[str, Mapping[str, Any]] = {}
        self._term = ""
        self._rewrite_at = 0.0
        self._look_at = 0.0
        self._beat_at = 0.0
        self._answers: dict[str, Mapping[str, Any]] = {}

    # -- leading

    def lead(self) -> str:
        with self._talking():
            if self._connection is None:
                self._open()
            self._read(0.001)
            if not self._term and self._state:
                self._begin_term()
            elif not self._term and time.monotonic() >= self._look_at:
                self._look_for_state()
            elif self._term and (time.monotonic() >= self._rewrite_at or len(self._tags) > REWRITE_AFTER_MESSAGES):
                self._rewrite()
        return self._term

    def _open(self) -> None:
        self._forget()
        self._connection = connect(self._url, self._options)
        exists = self._exists()
        channel = self._channel = self._connection.connection.channel()
        channel.tx_select()
        if not exists:
            channel.queue_declare(
                QUEUE, durable=True, auto_delete=False, arguments={"x-single-active-consumer": True}
            )  # fmt: skip
            self._publish_state({})
            channel.tx_commit()
        channel.queue_declare(COMMANDS, durable=True, auto_delete=False)
        channel.basic_consume(QUEUE, callback=self._on_state, consumer_tag=uuid.uuid4().hex)
        self._look_at = time.monotonic() + LOOK_FOR_STATE_SECONDS

    def _exists(self) -> bool:
        channel = self._connection.connection.channel()
        try:
            channel.queue_declare(QUEUE, passive=True)
        except amqp.NotFound:
            return False
        channel.close()
        return True

    def _begin_term(self) -> None:
        """All of the state has been handed over, or the rest of it is on its way: read it all."""
        while self._channel.queue_declare(QUEUE, passive=True).message_count:
            self._read(0.05)
        self._state.sort(reverse=True)
        while self._state:  # each goes when it is read: with very many records the state is large
            self._sequence, tag, body = self._state.pop()
            self._tags.append(tag)
            for entry_id, raw in _decoded(body, _State).records.items():
                if (record := bytes(raw)) == _NO_RECORD:
                    self._records.pop(entry_id, None)
                else:
                    read_record(entry_id, record, QUEUE)
                    self._records[entry_id] = record
        self._term = uuid.uuid4().hex  # from here on, what arrives is what we write
        self._rewrite()
        self._channel.basic_qos(0, 100, False)
        self._channel.basic_consume(COMMANDS, callback=self._on_command, consumer_tag=uuid.uuid4().hex)

    def _look_for_state(self) -> None:
        """The state is with the leader, or comes to us. When nobody has it, it was deleted."""
        self._look_at = time.monotonic() + LOOK_FOR_STATE_SECONDS
        queue = self._channel.queue_declare(QUEUE, passive=True)
        if not self._state and not queue.message_count and queue.consumer_count == 1:
            raise ScheduleStateError(
                f"the queue {QUEUE!r}, which keeps the state of the schedule, is empty: somebody has purged it. "
                "Begin anew with `lightbus beat --new-state`, which takes every slot until then as decided"
            )

    def _on_state(self, message: Any) -> None:
        if self._term:
            self._tags.append(message.delivery_tag)  # our own record, back to be kept
            return
        body = message.body if isinstance(message.body, bytes) else message.body.encode()
        self._state.append((_decoded(body, _Numbered).sequence, message.delivery_tag, body))

    def _rewrite(self) -> None:
        """All of the state as new messages, in place of the old ones."""
        old, self._tags = self._tags, []
        if not self._publish_all(self._records):
            self._publish_state({})  # there is always a message to be handed over
        for tag in old:
            self._channel.basic_ack(tag)
        self._channel.tx_commit()
        self._rewrite_at = time.monotonic() + REWRITE_AFTER_SECONDS

    def _publish_all(self, records: Mapping[str, bytes]) -> bool:
        """Some messages, each with a part of the records. False when there is none."""
        entries = iter(records.items())
        while part := dict(islice(entries, RECORDS_PER_MESSAGE)):
            self._publish_state(part)
        return bool(records)

    def _publish_state(self, records: Mapping[str, bytes]) -> None:
        self._sequence += 1
        raw = {entry_id: msgspec.Raw(record) for entry_id, record in records.items()}
        body = msgspec.json.encode({"sequence": self._sequence, "records": raw})
        message = amqp.Message(body, content_type="application/json", delivery_mode=2)
        self._channel.basic_publish(message, exchange="", routing_key=QUEUE)

    def load(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for entry_id in list(self._records):
            yield entry_id, msgspec.json.decode(self._records[entry_id])

    def commit(
        self, records: Mapping[str, Mapping[str, Any] | None], messages: Sequence[Parcel], done: Sequence[str] = ()
    ) -> None:
        if not self._term:
            raise NotLeading("another process leads the schedule on this broker")
        with self._talking():
            for parcel in messages:
                route = parcel.route
                if parcel.delay_seconds > 0:
                    route = delayed_route(route, parcel.delay_seconds)
                self._channel.basic_publish(
                    message_of(parcel.wire), exchange=route.exchange, routing_key=route.routing_key
                )  # fmt: skip
            encoded = {entry_id: msgspec.json.encode(record) for entry_id, record in records.items()}
            self._publish_all(encoded)
            for tag in done:
                self._channel.basic_ack(int(tag))
            self._channel.tx_commit()
        for tag in done:
            self._waiting.pop(tag, None)
        for entry_id, record in encoded.items():
            if record == _NO_RECORD:
                self._records.pop(entry_id, None)
            else:
                self._records[entry_id] = record

    # -- commands

    def commands(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        with self._talking():
            for tag, command in list(self._waiting.items()):
                if command.get("do") != "report":
                    break  # a report is given once all is done that was asked for before it
                del self._waiting[tag]
                raw = {entry_id: msgspec.Raw(record) for entry_id, record in self._records.items()}
                answer = amqp.Message(msgspec.json.encode(raw), correlation_id=str(command.get("request")))
                self._channel.basic_publish(answer, exchange="", routing_key=str(command.get("reply_to")))
                self._channel.basic_ack(int(tag))
                self._channel.tx_commit()
        return [(tag, command) for tag, command in self._waiting.items() if command.get("do") != "report"]

    def is_waiting(self, request: str) -> bool:
        """A leader answers what is asked later later, so its answer says that the command is done."""
        if self._term:
            return any(command.get("request") == request for command in self._waiting.values())
        self.records()
        return bool(self._term)

    def _on_command(self, message: Any) -> None:
        try:
            command = json.loads(message.body)
        except ValueError:
            command = None
        # one that is no command is answered as one that is not known: it is dropped, and that is logged
        known = command if isinstance(command, dict) else {"do": repr(message.body[:40])}
        self._waiting[str(message.delivery_tag)] = known

    def post(self, command: Mapping[str, Any]) -> None:
        own = self._connection is None
        with self._talking():
            if own:  # without consuming the state: that would be to stand for leader
                self._connection = connect(self._url, self._options)
                self._channel = self._connection.connection.channel()
                self._channel.tx_select()
                self._channel.queue_declare(COMMANDS, durable=True, auto_delete=False)
            self._post(command)
        if own:
            self.resign()

    def _post(self, command: Mapping[str, Any]) -> None:
        message = amqp.Message(msgspec.json.encode(command), content_type="application/json", delivery_mode=2)
        self._channel.basic_publish(message, exchange="", routing_key=COMMANDS)
        self._channel.tx_commit()

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        """Asks the leader; where there is none, leads for as long as reading takes."""
        request, deadline = uuid.uuid4().hex, time.monotonic() + ANSWER_SECONDS
        asked = False
        while time.monotonic() < deadline:
            if self.lead():
                return dict(self.load())
            with self._talking():
                if not asked:
                    reply_to = self._channel.queue_declare("", exclusive=True, auto_delete=True).queue
                    self._channel.basic_consume(reply_to, callback=self._on_answer, no_ack=True)
                    self._post({"do": "report", "request": request, "reply_to": reply_to})
                    asked = True
                self._read(0.05)
            if request in self._answers:
                return self._answers[request]
        raise NotConfirmed(f"no `lightbus beat` has answered within {ANSWER_SECONDS:g} s: is the leader frozen?")

    def _on_answer(self, message: Any) -> None:
        self._answers[str(message.properties.get("correlation_id"))] = json.loads(message.body)

    def reset(self) -> None:
        self.resign()
        with self._talking():
            self._connection = connect(self._url, self._options)
            channel = self._connection.connection.channel()
            for queue in (QUEUE, COMMANDS):
                channel.queue_delete(queue)
        self.resign()

    # -- the connection

    def wait(self, seconds: float) -> None:
        if self._connection is None:
            time.sleep(seconds)
            return
        with suppress(TransportError, ScheduleStateError), self._talking():  # `lead` will meet it again
            self._read(max(0.001, seconds))

    def resign(self) -> None:
        connection, self._connection = self._connection, None
        self._forget()
        if connection is not None:
            with suppress(*CONNECTION_ERRORS, *CHANNEL_ERRORS, ValueError):
                connection.release()
            connection.collect()

    def _read(self, seconds: float) -> None:
        """Take what has arrived within `seconds`, and keep the heart beating."""
        connection = self._connection.connection
        now = time.monotonic()
        if now >= self._beat_at:
            self._beat_at = now + self._options.heartbeat_seconds / 4
            connection.heartbeat_tick(rate=2)
        with suppress(TimeoutError):
            connection.drain_events(timeout=seconds)
            while True:
                connection.drain_events(timeout=0.001)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """What breaks is broken for good: the connection is dropped, and with it the lead."""
        try:
            yield
        except (*CONNECTION_ERRORS, *CHANNEL_ERRORS) as error:
            self.resign()
            raise ConnectionLost(f"the schedule's connection broke: {error}") from error
        except (TransportError, ScheduleStateError):
            self.resign()
            raise


def _decoded(body: bytes, kind: type[T]) -> T:
    """Raises ScheduleStateError: it is no message of the state."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ScheduleStateError(
            f"the queue {QUEUE!r}, which keeps the state of the schedule, holds a message that cannot be read: "
            f"{body[:60]!r}; remove it, or begin anew with `lightbus beat --new-state`, which takes every slot until "
            "then as decided"
        ) from error
