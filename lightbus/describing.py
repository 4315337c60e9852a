"""Discovery by asking: what a worker answers when it is asked what it is, and how everybody is asked.

There is no registry: a worker that runs has a queue at the exchange `lightbus.describe`, and one that has ended has
none. What is on the wire is in `core.description`.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Protocol

import msgspec

from .contracts.document import api_document
from .core.api import Api
from .core.codec import decode_call, decode_reply, encode_reply
from .core.description import (
    ANY_VERSION,
    ROUTE,
    Description,
    HeardEvent,
    RunningListener,
    ServedApi,
    decode_description,
    encode_description,
    encode_question,
)
from .core.errors import DeclarationError, DecodeError, NotServed, TransportError, Unroutable
from .core.message import ReplyMessage, Route
from .core.times import iso_utc
from .core.topology import DESCRIBE_EXCHANGE, Exchange, Topology, describe_topology, reply_queue, rpc_queue
from .endpoint import Endpoint, asked_for, shared_queues
from .identity import new_origin
from .listeners import Listener
from .orphans import remember
from .ports import Consumer, Delivery, Transport
from .version import VERSION

logger = logging.getLogger("lightbus.describe")

#: How long workers are waited for. One answers within milliseconds, also while all its handlers are busy.
ASK_SECONDS = 1.0
_PREFETCH = 100


class Describable(Protocol):
    """What is asked of an app: `lightbus.Bus` is one."""

    @property
    def name(self) -> str: ...

    @property
    def transport(self) -> Transport: ...

    def endpoints(self) -> Sequence[Endpoint]: ...

    def apis(self) -> Sequence[type[Api]]: ...

    def listeners(self) -> Sequence[Listener]: ...

    def broadcast_listeners(self) -> Sequence[Listener]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningWorker:
    """A worker, made when it starts, in the process that people know its pid of.

    Attributes:
        queues: those that it serves of its apps'; empty for all.
        started_at: Unix time in seconds.
    """

    queues: Collection[str] = ()
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    pid: int = field(default_factory=os.getpid)
    started_at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class Load:
    """What changes while a worker runs; see `Description`."""

    processes: int = 1
    slots: int = 1
    busy: int = 0


def describe(app: Describable, worker: RunningWorker, *, tasks: Sequence[str] = ()) -> Description:
    """What `worker` says of `app`.

    Args:
        tasks: names of the tasks that it runs.
    """
    consumed = {
        queue
        for endpoint in app.endpoints()
        for queue in set(shared_queues(endpoint)) & set(asked_for(endpoint, worker.queues))
    }
    apis = [
        ServedApi(name=api.api_name, version=api.api_version, queue=queue, contract=_contract(api))
        for api in app.apis()
        if (queue := rpc_queue(api.api_name, api.major()).name) in consumed
    ]
    listeners = [
        RunningListener(name=one.name, queue=queue, events=tuple(_heard(one)))
        for one in app.listeners()
        if (queue := f"{app.name}.on.{one.name}") in consumed
    ]
    if not worker.queues:  # who names queues means those that are shared
        listeners += [
            RunningListener(name=one.name, queue="", events=tuple(_heard(one))) for one in app.broadcast_listeners()
        ]
    return Description(
        app=app.name, worker=worker.id, host=os.uname().nodename, pid=worker.pid, lightbus=VERSION,
        started_at=iso_utc(worker.started_at), apis=tuple(apis), listeners=tuple(listeners),
        queues=tuple(sorted(consumed)), tasks=tuple(sorted(tasks)),
    )  # fmt: skip


def can_be_asked(transport: Transport) -> bool:
    """Whether workers answer on that broker: RabbitMQ, Redis and the embedded one.

    Others cannot say that nobody is there, and would keep the queue of each worker that was killed for good.
    """
    return transport.capabilities.returns_unroutable


class Answerer:
    """Answers what is asked on one broker about one app, on the consumer's thread.

    Attributes:
        is_refused: the broker does not let this user be asked; for whoever starts it to note.
    """

    def __init__(self, transport: Transport, description: Description, load: Callable[[], Load]) -> None:
        self._transport = transport
        self._description = description
        self._load = load
        self._consumer: Consumer | None = None
        self.is_refused = False

    def start(self) -> None:
        """Raises TransportError: the broker cannot be reached, or does not let this user."""
        topology = describe_topology(self._description.app, self._description.worker)
        self._transport.declare(topology)
        self._consumer = self._transport.consume(topology.queues, self._on_delivery, prefetch=_PREFETCH)
        if self._description.listeners:
            try:
                remember(
                    self._transport,
                    self._description.app,
                    [one.queue for one in self._description.listeners if one.queue],
                )
            except TransportError as error:  # only `lightbus doctor` misses it
                logger.info("the queues of listeners were not recorded: %s", error)

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _on_delivery(self, delivery: Delivery) -> None:
        delivery.ack()
        try:
            question = decode_call(delivery.wire)
        except DecodeError as error:
            logger.warning("a question about this worker could not be read: %s", error)
            return
        if time.time() >= question.deadline:
            return
        load = self._load()
        said = encode_description(
            msgspec.structs.replace(self._description, processes=load.processes, slots=load.slots, busy=load.busy)
        )
        reply = encode_reply(ReplyMessage(call_id=question.origin.id, payload=said, failed=False))
        # Mandatory: who asked may have left, and its queue with it; then nothing is kept for it, and nobody minds.
        self._transport.publish(reply, Route("", question.reply_to), mandatory=True)


def ask(
    transport: Transport,
    app: str,
    *,
    seconds: float = ASK_SECONDS,
    enough: Callable[[Sequence[Description]], bool] = lambda found: False,
) -> list[Description]:
    """Ask all workers on a broker what they are; their answers by app, host and pid.

    Args:
        app: name of the app that asks.
        seconds: how long to wait for answers, all of it unless `enough` says that no more are needed.

    Raises:
        TransportError: the broker cannot be reached.
    """
    queue = reply_queue(app, f"{os.getpid()}.{uuid.uuid4().hex[:8]}")
    transport.declare(Topology((Exchange(DESCRIBE_EXCHANGE, "topic"),), (queue,)))
    arrived: SimpleQueue[Description] = SimpleQueue()
    origin = new_origin(app)

    def take(delivery: Delivery) -> None:
        delivery.ack()
        try:
            reply = decode_reply(delivery.wire)
            if reply.call_id == origin.id and not reply.failed:
                arrived.put(decode_description(reply.payload))
        except DecodeError as error:
            logger.warning("a worker's answer could not be read: %s", error)

    consumer = transport.consume([queue], take, prefetch=_PREFETCH)
    found: dict[tuple[str, str], Description] = {}
    try:
        now, end = time.time(), time.monotonic() + seconds
        question = encode_question(origin, reply_to=queue.name, deadline=now + seconds, now=now)
        transport.publish(question, ROUTE, mandatory=True).result(seconds)
        while (left := end - time.monotonic()) > 0 and not enough(list(found.values())):
            one = arrived.get(timeout=left)
            found[one.worker, one.app] = one
    except (Unroutable, Empty, FutureTimeout):
        pass  # no worker is there; or all that had something to say have
    finally:
        consumer.close()
        transport.delete(queue.name)
    return sorted(found.values(), key=lambda one: (one.app, one.host, one.pid))


def _heard(listener: Listener) -> list[HeardEvent]:
    known = [
        HeardEvent(name=kind.spec.name, version=kind.spec.version) for kind in listener.events if kind.spec is not None
    ]
    return known + [HeardEvent(name=pattern, version=ANY_VERSION) for pattern in listener.patterns]


def _contract(api: type[Api]) -> dict[str, object] | None:
    try:
        return api_document(api)
    except DeclarationError as error:
        logger.warning("%s: who asks this worker does not get its contract", error)
        return None


def announced_api(transport: Transport, app: str, name: str, *, seconds: float) -> type[Api]:
    """The contract `name` as a class, in its highest version that a worker serves now.

    Raises:
        NotServed: no worker says within `seconds` that it serves it.
    """
    import difflib  # for shells, as what follows: most programs need none of it

    from .contracts.live import live_document, newest_of_each
    from .contracts.remote import remote_class

    def serves(found: Sequence[Description]) -> bool:
        return any(api.name == name and api.contract is not None for one in found for api in one.apis)

    live = newest_of_each(live_document(ask(transport, app, seconds=seconds, enough=serves)))
    apis = {api["name"]: api for api in live["apis"]}
    if name not in apis:
        near = difflib.get_close_matches(name, apis, n=1)
        known = f"did you mean {near[0]!r}?" if near else f"those that run serve {', '.join(apis) or 'none'}"
        raise NotServed(f"no worker says within {seconds:g} s that it serves the API {name!r}: {known}")
    return remote_class(apis[name])
