"""The bus of one app: fire events, listen to them, serve calls, make calls. It wires the parts; they do the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from .aio import awaitable
from .calling import RpcClient
from .config import resolve_url
from .core.anyevent import checked_pattern
from .core.api import Api, Event, Rpc
from .core.batch import Batch
from .core.claims import ClaimStore
from .core.concurrency import Concurrency
from .core.errors import DeclarationError
from .core.ordering import Ordered
from .core.rate import Rate
from .core.retry import RetryPolicy
from .core.topology import DEAD_LETTER_QUEUE, check_name
from .deadletters import DeadLetters
from .dedupe import Dedupe
from .drivers import open_claim_store, open_transport
from .endpoint import Endpoint
from .event_sender import EventSender
from .listeners import Listener
from .listening import Listening
from .middleware import Middleware, checked
from .ports import Transport
from .publishing import PublishHook
from .serving import CallEndpoint

if TYPE_CHECKING:
    from lightbus_scheduler import Job, Misfire, Overlap, Schedule

    from .outbox import OutboxStore

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A", bound=Api)
F = TypeVar("F", bound=Callable[..., Any])

_NO_OPTIONS: Mapping[str, object] = MappingProxyType({})


class Bus(EventSender):
    """One app on the bus. Thread-safe. Connects on first use, so a module may create it.

    Args:
        name: the app's name; part of its queues' names, so keep it.
        url: the broker; default `LIGHTBUS_URL`, else the embedded broker in `./.lightbus/`.
        options: transport options, as Celery's `broker_transport_options`.
        transport: an open transport in place of `url`, for tests and for sharing a connection.
        dead_letter_queue: where what cannot be handled is kept.
        middleware: wrapped around every handler call of this app's workers, the first outermost; see `use`.
        claims: where listeners with `dedupe` note what they have handled: `sqlite:///path`, `redis://...`, or a store.
    """

    def __init__(
        self,
        name: str,
        *,
        url: str | None = None,
        options: Mapping[str, object] = _NO_OPTIONS,
        transport: Transport | None = None,
        dead_letter_queue: str = DEAD_LETTER_QUEUE,
        middleware: Sequence[Middleware] = (),
        claims: str | ClaimStore = "",
    ) -> None:
        super().__init__(check_name(name, "the app name"))
        self.dead_letter_queue: str = check_name(dead_letter_queue, "the dead-letter queue")
        self._url = url
        self._options = options
        self._transport = transport
        self._owns_transport = transport is None
        self._default_url: str | None = None
        self._rpc: RpcClient | None = None
        store = open_claim_store(claims) if isinstance(claims, str) and claims else claims or None
        self._listening = Listening(self.name, store)
        self._calls = CallEndpoint()
        self._endpoints: list[Endpoint] = []
        self._jobs: list[Job] = []
        self._outboxes: list[OutboxStore] = []
        self._middleware = checked(middleware)

    @property
    def url(self) -> str:
        """The broker's URL, as it was resolved now."""
        return resolve_url(self._url or self._default_url)

    @property
    def has_url(self) -> bool:
        """Whether the program named the broker itself, by `url` or `transport`."""
        return self._url is not None or not self._owns_transport

    def use_default_url(self, url: str, *, options: Mapping[str, object] = _NO_OPTIONS) -> None:
        """Take `url` as the broker unless the program named one. Has an effect only before the first use.

        Args:
            options: the transport options that go with `url`, unless the program gave some.
        """
        if not self.has_url and self._transport is None:
            self._default_url = url
            self._options = self._options or options

    @property
    def transport(self) -> Transport:
        """The way to the broker. Reading it opens nothing."""
        if self._transport is None:
            self._transport = open_transport(self.url, options=self._options)
        return self._transport

    # -- events ------------------------------------------------------------------------------------------------------

    def on(  # noqa: PLR0913  # what a listener is, is said in one place
        self,
        *events: type[Event] | type[Api] | str,
        name: str = "",
        retry: RetryPolicy | None = None,
        soft_limit_seconds: float | None = None,
        hard_limit_seconds: float | None = None,
        rate: str | Rate | None = None,
        concurrency: int | Concurrency | None = None,
        dedupe: str | Dedupe | None = None,
        each_process: bool = False,
        batch: Batch | None = None,
        max_priority: int | None = None,
        ordered_by: str | Callable[[Any], object] | Ordered | None = None,
    ) -> Callable[[F], F]:
        """Decorate the function that listens to `events`; it gets the event, once per event of this app.

        Args:
            events: event classes; an Api for all the events of its contract; a pattern of names, `"support.*.created"`,
                for events that are not known by a contract, which come as an `AnyEvent`.
            name: names the durable queue; default the function's name. Renaming it leaves the old queue behind.
            retry: when and how often a failure is tried again; default `RetryPolicy()`.
            soft_limit_seconds: raise `SoftTimeLimitExceeded` in the function when it runs for longer.
            hard_limit_seconds: end its process when it runs for longer; a failure like any other.
            rate: how often it may begin in one `lightbus worker`, `"100/s"`, `"10/m"` or `"2/h"`; or a `Rate`.
            concurrency: how many of it may run at a time in one `lightbus worker`, all its processes together; or a
                `Concurrency`.
            dedupe: do not handle a message again for so long after it was handled, `"7d"`; or a `Dedupe`. Needs
                `Bus(claims=...)`.
            each_process: every process that runs then gets it for itself, at most once: nothing is kept, retried or
                parked. Without retry, dedupe and max_priority.
            batch: call the function with a list of events; what fails is found out by halves.
            max_priority: 1 to 9: handle events that are fired with a higher `priority` first, where the broker has
                priorities. On RabbitMQ its queue is then no quorum queue, and is lost with its node.
            ordered_by: a field of the events, or a function: events that have the same there are handled one after the
                other, in the order of their arrival, in whichever process; or an `Ordered`. Without rate, concurrency,
                batch, each_process and max_priority.
        """
        self._listening.check(
            each_process=each_process, has_retry=retry is not None, dedupe=dedupe, max_priority=max_priority
        )
        self._listening.check_batch(batch, concurrency)
        heard = tuple(event for one in events if not isinstance(one, str) for event in _events_of(one))
        patterns = tuple(checked_pattern(one) for one in events if isinstance(one, str))
        if not (heard or patterns):
            raise DeclarationError("bus.on() needs at least one event class, an Api that has events, or a pattern")

        def decorate(function: F) -> F:
            listener_name = check_name(name or function.__name__, "the listener name")
            listener = Listener(
                listener_name,
                function,
                heard,
                retry or RetryPolicy(),
                soft_limit_seconds,
                hard_limit_seconds,
                Rate.parse(rate) if isinstance(rate, str) else rate,
                None if dedupe is None else Dedupe.of(dedupe),
                None if concurrency is None else Concurrency.of(concurrency),
                None if ordered_by is None else Ordered.of(ordered_by),
                max_priority,
                patterns,
            )
            self._listening.check_ordered(listener, each_process=each_process, batch=batch)
            self._listening.add(listener, each_process=each_process, batch=batch)
            return function

        return decorate

    # -- schedule ----------------------------------------------------------------------------------------------------

    def schedule(
        self,
        when: str | Schedule,
        *,
        tz: str = "UTC",
        name: str = "",
        misfire: Misfire | None = None,
        overlap: Overlap = "allow",
        jitter_seconds: float = 0.0,
        retry: RetryPolicy | None = None,
    ) -> Callable[[F], F]:
        """Decorate a function that this app's workers run whenever `lightbus beat` finds it due.

        It is called without arguments, or with the slot (an aware datetime in UTC) when it takes one.

        Args:
            when: a cron expression in Debian's dialect, read in `tz`; or a schedule, such as `Every(timedelta(...))`.
            tz: an IANA name.
            name: of its queue and of its entry in the schedule; default the function's name. Renaming it begins anew.
            misfire: what becomes of slots that came due while no `lightbus beat` ran; default: the last one is run.
            overlap: when the run before has not ended: `allow` another, `skip` this one, or `queue-one`: run it then.
            jitter_seconds: run each slot up to that much later; how much is fixed for the slot.
            retry: when and how often a failure is tried again; default `RetryPolicy()`.

        Raises:
            EntryError: a ScheduleError: an expression, a zone or a value that cannot be used.
        """
        # Loaded here, since most programs have no schedule.
        from lightbus_scheduler import Cron, Entry, EntryError, Job, Misfire, ScheduleError

        from .beat.targets import FunctionTarget
        from .scheduled import api_of, listening

        def decorate(function: F) -> F:
            own = check_name(name or function.__name__, "the schedule's name")
            api = api_of(self.name, own)
            self.on(api.api_events["due"], name=own, retry=retry)(listening(function))
            target, entry_id = FunctionTarget(self, own, api), f"{self.name}.{own}"
            try:
                target.check_overlap(overlap)
                entry = Entry(
                    id=entry_id, schedule=Cron(when, tz) if isinstance(when, str) else when,
                    misfire=misfire or Misfire(), overlap=overlap, jitter_seconds=jitter_seconds,
                )  # fmt: skip
            except ScheduleError as error:
                raise EntryError(entry_id, error) from error
            self._jobs.append(Job(entry, target, f"@bus.schedule, {function.__module__}.{function.__qualname__}"))
            return function

        return decorate

    def scheduled(self) -> tuple[Job, ...]:
        """What `schedule` was put over, for `lightbus beat` and tools."""
        return tuple(self._jobs)

    # -- calls -------------------------------------------------------------------------------------------------------

    def serve(
        self,
        implementation: Api,
        *,
        soft_limit_seconds: float | None = None,
        hard_limit_seconds: float | None = None,
        rate: str | Rate | None = None,
        concurrency: int | Concurrency | None = None,
    ) -> None:
        """Answer the calls of an API with the methods of `implementation`, in the workers of this app.

        Args:
            soft_limit_seconds: raise `SoftTimeLimitExceeded` in a method that runs for longer.
            hard_limit_seconds: end the process of a method that runs for longer.
            rate: how often its methods together may begin, as of `on`.
            concurrency: how many of its methods may run at a time, as of `on`.
        """
        self._calls.add(
            implementation, soft_limit_seconds=soft_limit_seconds, hard_limit_seconds=hard_limit_seconds,
            rate=Rate.parse(rate) if isinstance(rate, str) else rate,
            concurrency=None if concurrency is None else Concurrency.of(concurrency),
        )  # fmt: skip

    def client(self, api: type[A]) -> A:
        """A client of `api`: its calls go over the bus and have the contract's types."""
        instance = api.__new__(api)
        instance._caller = self._rpc_client()
        return instance

    def call(self, rpc: Rpc[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call, and wait for the answer; see `BoundRpc.__call__` for what it raises."""
        return cast(R, self._rpc_client().start(rpc, dict(kwargs)).result())

    async def call_async(self, rpc: Rpc[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`call` from a coroutine."""
        answer: Future[Any] = self._rpc_client().start(rpc, dict(kwargs))
        return cast(R, await awaitable(answer))

    def remote(self, api: str, *, wait_seconds: float = 1.0) -> Any:
        """A client of an API without its contract, as a worker announces it now: for shells and exploration.

        Its calls and events have the names of the contract; answers come as plain data. No checker knows them: a
        program takes `client` with a contract, which `lightbus contract pull` writes.

        Raises:
            NotServed: no worker says within `wait_seconds` that it serves `api`.
        """
        from .describing import announced_api

        return self.client(announced_api(self.transport, self.name, api, seconds=wait_seconds))

    # -- around handlers ---------------------------------------------------------------------------------------------

    def use(self, *middleware: Middleware) -> None:
        """Wrap `middleware` around every handler call of this app's workers, inside what is there already.

        Raises:
            DeclarationError: one of them cannot be called.
        """
        self._middleware += checked(middleware)

    @property
    def middleware(self) -> tuple[Middleware, ...]:
        """All that is wrapped around this app's handlers, the outermost first."""
        return self._middleware

    def on_publish(self, *hooks: PublishHook) -> None:
        """Have `hooks` told of each event and call that this bus sends; see `lightbus.publishing`."""
        self._publish_hooks.add(*hooks)

    # -- for workers and tools ---------------------------------------------------------------------------------------

    def add_outbox(self, store: OutboxStore) -> None:
        """Let `lightbus outbox` and the relays in this app's workers know the tables of an outbox."""
        self._outboxes.append(store)

    def outboxes(self) -> tuple[OutboxStore, ...]:
        """What `add_outbox` was told."""
        return tuple(self._outboxes)

    def open_another_transport(self) -> Transport:
        """A connection of its own to the same broker, for whoever works beside this bus and closes it himself.

        Raises:
            DeclarationError: the bus was made with a transport and does not know the way.
        """
        if not self._owns_transport:
            raise DeclarationError(f"bus {self.name!r} was given its transport; it cannot open another one")
        return open_transport(self.url, options=self._options)

    def add_endpoint(self, endpoint: Endpoint) -> None:
        """Let this app's workers answer the queues of `endpoint` too."""
        self._endpoints.append(endpoint)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """All that this app's workers answer; those without a queue are left out."""
        every: list[Endpoint] = [*self._listening.endpoints(), self._calls, *self._endpoints]
        return tuple(endpoint for endpoint in every if endpoint.queues())

    def apis(self) -> tuple[type[Api], ...]:
        """The contracts that this app serves, for tools."""
        return self._calls.apis()

    def listeners(self) -> tuple[Listener, ...]:
        """The listeners of this app, for tools."""
        return self._listening.listeners()

    def broadcast_listeners(self) -> tuple[Listener, ...]:
        """Those with `each_process`, for tools."""
        return self._listening.broadcast_listeners()

    def dead_letters(self) -> DeadLetters:
        """What this app's workers parked, to look at, to replay or to throw away."""
        return DeadLetters(self.transport, self.dead_letter_queue)

    def close(self) -> None:
        """Wait for what is under way and disconnect. A bus that has an URL may be used again afterwards."""
        if self._rpc is not None:
            self._rpc.close()
            self._rpc = None
        self._listening.close()
        if self._transport is not None:
            self._transport.close()
            if self._owns_transport:
                self._transport, self._can_fire, self._can_delay = None, False, False

    @contextmanager
    def on_transport(self, transport: Transport) -> Iterator[None]:
        """Within the block the bus is connected to `transport` in place of its broker; for tests. Clients follow."""
        kept = self._transport, self._owns_transport, self._can_fire, self._can_delay
        self._transport, self._owns_transport, self._can_fire, self._can_delay = transport, False, False, False
        self._listening.begin_test(open_claim_store("memory://"))
        if self._rpc is not None:
            self._rpc.connect_to(transport)
        try:
            yield
        finally:
            self._transport, self._owns_transport, self._can_fire, self._can_delay = kept
            self._listening.end_test()
            if self._rpc is not None:
                self._rpc.connect_to(self.transport)

    def follow(self, now: Callable[[], float]) -> None:
        """Take the time from `now`, in Unix seconds, until `on_transport` ends; for tests."""
        self._listening.follow(now)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return self._listening.now()

    def _rpc_client(self) -> RpcClient:
        if self._rpc is None:
            self._rpc = RpcClient(self.name, self.transport, self._publish_hooks)
        return self._rpc


def _events_of(one: type[Event] | type[Api]) -> tuple[type[Event], ...]:
    return tuple(one.api_events.values()) if issubclass(one, Api) else (one,)
