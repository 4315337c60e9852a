"""Tasks: calling one, sending one, and sending it again from within. The decorator is in `decorators`.

A task is an instance of a class made for its function, as in Celery: unknown options become attributes, `delay` goes
through `apply_async`, `self` of a bound task is the task, shared by all its calls.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.errors import TransportError
from ..core.message import Parcel, Route
from ..core.outcome import REPEAT_HEADER
from ..core.rate import Rate
from . import eager
from .asyncresult import AsyncResult
from .canvas import Chunks, Map, Signature, StarMap, signature
from .canvas.replace import replacement_for
from .eagerresult import EagerResult
from .exceptions import MaxRetriesExceededError, Reject, Replaced, Retry
from .request import Request, request_of, running
from .results import ResultDocument
from .retrying import retry_arguments, retry_options
from .sending import prepare
from .serializers import decode, encode

if TYPE_CHECKING:
    from datetime import datetime

    from .app import TaskApp
    from .protocol import TaskMessage
    from .testing import TaskReference

#: Attributes of a task that are options of each of its messages, unless the caller gives them.
_EXEC_OPTIONS = (
    "queue", "exchange", "routing_key", "priority", "expires", "serializer", "compression", "delivery_mode",
    "time_limit", "soft_time_limit",
)  # fmt: skip


class Task:
    """A function that can be sent to a worker. Attributes that are None follow the app's settings.

    Attributes:
        name: its identity on the wire.
        max_retries: repetitions after the first try; None for no limit.
        default_retry_delay: seconds before the next try.
        typing: check the arguments of `delay` and `apply_async` against the function's.
        throws: exception classes that are expected and logged without a traceback.
        time_limit, soft_time_limit: seconds a run may take.
        rate_limit: how often it may begin in one worker, `"10/m"`; 0 for no limit.
        acks_late: acknowledge after the run, so that a crash repeats it.
        autoretry_for: exception classes after which it is tried again by itself, unless they are in
            `dont_autoretry_for`; with the options `retry_kwargs` of `retry`.
        retry_backoff: True, or the seconds from which the delay doubles up to `retry_backoff_max`; with `retry_jitter`
            it is drawn between 0 and that.
    """

    MaxRetriesExceededError = MaxRetriesExceededError
    OperationalError = TransportError

    name: str = ""
    typing: bool = True
    max_retries: int | None = 3
    default_retry_delay: float = 180
    acks_late: bool | None = None
    acks_on_failure: bool | None = None
    ignore_result: bool | None = None
    store_errors_even_if_ignored: bool | None = None
    store_eager_result: bool | None = None
    track_started: bool | None = None
    serializer: str | None = None
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    priority: int | None = None
    expires: float | datetime | None = None
    delivery_mode: int | str | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    rate_limit: str | float | Rate | None = None
    throws: tuple[type[BaseException], ...] = ()
    trail: bool = True
    send_events: bool = True  #: to monitors, when its worker sends events
    resultrepr_maxsize: int = 1024  #: characters of a result that monitors see
    override_max_retries: int | None = None
    autoretry_for: tuple[type[BaseException], ...] = ()
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    retry_kwargs: Mapping[str, Any] = MappingProxyType({})
    retry_backoff: bool | float = False
    retry_backoff_max: float = 600
    retry_jitter: bool = True
    compression: str | None = None
    abstract: bool = True

    _dump_arguments: Callable[[Any, Any], tuple[Any, Any]] | None = None  #: pydantic models of a call to JSON
    _get_app: Callable[[], TaskApp]
    _signature: inspect.Signature
    _fitting: range  #: numbers of positional arguments that suffice alone
    _is_coroutine: bool
    #: The function by whose arguments it is told whether as an errback it is called; without one it is sent.
    errback_header: Callable[..., Any] | None = None

    is_shared: bool = False  #: its app is whichever is the process's own
    follows_app: bool = False  #: its class follows when the app's `Task` is replaced

    @property
    def app(self) -> TaskApp:
        return self._get_app()

    @classmethod
    def on_bound(cls, app: TaskApp) -> None:
        """Called when an app gets a task of this class."""

    def shadow_name(self, args: Any, kwargs: Any, options: Mapping[str, Any]) -> str | None:
        """A name for logs and monitors in place of the task's own; for subclasses."""
        return None

    @property
    def request(self) -> Request:
        """What the task runs for here; outside of a run an empty request."""
        return request_of(self) or Request()

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself."""
        raise NotImplementedError(f"the task {self.name!r} has no run method")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it like a function, here and now: no message, no result.

        A `__call__` of a subclass that calls this one within a run goes on with the request of that run.
        """
        request = request_of(self)
        if request is not None and not request.called_directly and not request.is_entered:
            request.is_entered = True
            return self.run(*args, **kwargs)
        if inspect.iscoroutinefunction(self.run):
            return self.run(*args, **kwargs)
        with running(self, Request(args=args, kwargs=kwargs)):
            return self.run(*args, **kwargs)

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult | EagerResult:
        """Send it with these arguments."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        *,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult | EagerResult:
        """Send it.

        Args:
            args, kwargs: the function's arguments; anything with a JSON form.
            link, link_error: signatures (dicts) to send after success, after failure.
            **options: `countdown`, `eta`, `expires`, `queue`, `priority`, `headers`, `retries`, `ignore_result`,
                `time_limit`, `soft_time_limit`, `root_id`, `parent_id`, `reply_to`, ...; an unknown one becomes an
                AMQP property.

        Returns:
            AsyncResult: once the broker has taken charge; with `task_always_eager` an `EagerResult`.

        Raises:
            TypeError: the arguments do not fit the function.
            ValueError: an argument has no JSON form, or an option cannot be honoured.
            TransportError: the broker did not take it.
        """
        app = self.app
        settings = app.settings  # read first: annotations in them are attributes of this task
        options |= {"task_id": task_id, "link": link, "link_error": link_error, "shadow": shadow}
        args, kwargs, merged = self._call(args, kwargs, options)
        if settings.always_eager:
            # What a worker would get: the arguments as they are after the wire.
            serializer = merged.get("serializer") or settings.task_serializer
            encoded = encode([list(args or ()), dict(kwargs or {})], serializer)
            sent: Any = decode(encoded.body, encoded.content_type, encoded.content_encoding)
            return self.apply(sent[0], sent[1], **merged)
        outgoing = app.outgoing(self.name, args, kwargs, merged)
        sent = app.transport.publish(outgoing.wire, outgoing.route, delay_seconds=outgoing.delay_seconds)
        return app.sent(outgoing, sent)

    def parcel(self, args: Any = None, kwargs: Any = None, **options: Any) -> Parcel:
        """What `apply_async` would publish, with its id, for an outbox: its relay publishes it. Connects to nothing.

        Raises:
            TypeError: the arguments do not fit the function.
            ValueError: an argument has no JSON form, or an option cannot be honoured.
        """
        app = self.app
        args, kwargs, merged = self._call(args, kwargs, options)
        outgoing = app.outgoing(self.name, args, kwargs, merged, declare=False)
        if outgoing.on_published is not None:
            written: Future[None] = Future()
            written.set_result(None)
            outgoing.on_published(written)
        return Parcel(outgoing.wire, outgoing.route, outgoing.delay_seconds)

    def apply(
        self,
        args: Any = None,
        kwargs: Any = None,
        *,
        link: Any = None,
        link_error: Any = None,
        task_id: str | None = None,
        retries: int = 0,
        throw: bool | None = None,
        headers: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> EagerResult:
        """Run it here and now, as a worker would.

        Args:
            throw: raise what the task raises; by default the setting `task_eager_propagates`.
        """
        request = eager.request_for(
            self, args or (), kwargs or {}, {**options, "link": link, "link_error": link_error, "headers": headers},
            task_id=task_id or str(uuid.uuid4()), retries=retries,
        )  # fmt: skip
        throws = self.app.settings.eager_propagates if throw is None else throw
        return eager.run(self, request, throw=throws)

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | str | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Send the running task again, with the same id, to the queue it came from, and raise `Retry`.

        Args:
            args, kwargs: in place of the request's.
            exc: raised when no tries are left.
            throw: False returns the `Retry`.
            countdown: seconds until the next try; by default `default_retry_delay`.
            max_retries: for this time in place of the task's own.

        Raises:
            Retry: it was sent.
            MaxRetriesExceededError: no tries are left, and no `exc` was given.
            Reject: it could not be sent; the message is parked.
        """
        request = self.request
        retries = request.retries + 1
        if request.called_directly:
            _raise_in_context(exc or Retry("Task can be retried", None))
        limit = self.max_retries if max_retries is None else max_retries
        if not eta and countdown is None:
            countdown = self.default_retry_delay
        new_args, new_kwargs = retry_arguments(self._signature, request, args, kwargs)
        options = {**retry_options(request, self.ignores_result(request)), **options}
        options |= {"countdown": countdown, "eta": eta, "retries": retries}
        if self.compression:
            options.setdefault("compression", self.compression)
        signature = Signature(self.name, tuple(new_args), new_kwargs, options, app=self.app)
        if limit is not None and retries > limit:
            if exc:
                _raise_in_context(exc)
            raise self.MaxRetriesExceededError(
                f"Can't retry {self.name}[{request.id}] args:{signature.args} kwargs:{signature.kwargs}",
                task_args=signature.args,
                task_kwargs=signature.kwargs,
            )
        again = Retry(exc=exc, when=eta or countdown, is_eager=request.is_eager, sig=signature)
        if not request.is_eager:
            self._send_again(request, signature)
        if throw:
            raise again
        return again

    def signature(self, args: Any = None, kwargs: Any = None, *, immutable: bool = False, **options: Any) -> Signature:
        """The task with arguments and options, to be sent later or in a chain, group or chord."""
        return Signature(self, args, kwargs, options, immutable=immutable)

    subtask = signature

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """The task with these arguments; those that come later are put before them."""
        return Signature(self, args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """The task with just these arguments; those that come later are left out."""
        return Signature(self, args, kwargs, immutable=True)

    def map(self, it: Any) -> Signature:
        """`[task(x) for x in it]` in one message."""
        return Map(self.s(), it, app=self.app)

    def starmap(self, it: Any) -> Signature:
        """`[task(*x) for x in it]` in one message."""
        return StarMap(self.s(), it, app=self.app)

    def chunks(self, it: Any, n: int) -> Signature:
        """`task(*x)` for each of `it`, as a group of messages with `n` each."""
        return Chunks(self.s(), it, n, app=self.app)

    def replace(self, sig: Any) -> Any:
        """End here, and let `sig` bring this task's result, under its id; what would have followed follows that.

        Raises:
            Ignore: always, in a worker; write `return self.replace(...)`. Where it runs eagerly the value is returned.
            ValueError: `sig` is a part of a chord.
            ImproperlyConfigured: it is an empty chain.
        """
        request = self.request
        replacement = replacement_for(request, sig, self.app)
        if request.is_eager:
            return replacement.apply().get()
        replacement.apply_async()
        raise Replaced("Replaced by new task")

    def add_to_chord(self, sig: Any, lazy: bool = False) -> Any:
        """Send `sig` as one more task of the chord's header that the running task is a part of; returns its result.

        Args:
            lazy: only count it; the caller sends it.

        Raises:
            ValueError: the running task is part of no chord.
        """
        request = self.request
        if not request.chord or not request.group:
            raise ValueError(f"task {self.name!r} is part of no chord here")
        added = signature(sig, app=self.app)
        added.set(
            group_id=request.group, group_index=request.group_index, chord=request.chord, root_id=request.root_id
        )  # fmt: skip
        result = added.freeze()
        self.app.chords.add(request.group, 1)
        return result if lazy else added.apply_async()

    @contextmanager
    def told_as(self) -> Iterator[Any]:
        """The task that receivers of signals get as the sender, with whatever context it wants meanwhile: itself."""
        yield self

    # -- for subclasses ----------------------------------------------------------------------------------------------

    _hooks: bool = False  #: whether the class has any of the following methods of its own

    def before_start(self, task_id: Any, args: Any, kwargs: Any) -> None:
        """Called before the run; what it raises is the task's failure."""

    def on_success(self, retval: Any, task_id: Any, args: Any, kwargs: Any) -> None:
        """Called after the result is stored."""

    def on_failure(self, exc: BaseException, task_id: Any, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called after the failure is stored; `einfo.traceback` is text."""

    def on_retry(self, exc: BaseException, task_id: Any, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called after the task was sent again."""

    def after_return(self, status: str, retval: Any, task_id: Any, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called last, after a success or a failure."""

    def update_state(self, task_id: str | None = None, state: str = "", meta: Any = None) -> None:
        """Store a state of the task's own, for example `state="PROGRESS", meta={"done": 5}`, where results are kept.

        Raises:
            EncodeError: `meta` has no JSON form.
            TransportError: it could not be handed over.
        """
        request = self.request
        key = task_id or request.id
        if not key or not state:
            raise ValueError(f"update_state of {self.name!r} needs a state, and outside of a run a task_id")
        document = ResultDocument(
            task_id=key, status=state, result=meta, group_id=request.group, parent_id=request.parent_id,
            children=[child.as_tuple() for child in request.children],
        )  # fmt: skip
        self.app.results.store(
            document, reply_to=request.reply_to or "", correlation_id=request.correlation_id or key
        )  # fmt: skip

    def send_event(self, type_: str, retry: bool = True, retry_policy: Any = None, **fields: Any) -> None:
        """Send an event of the task's own to monitors, for example `self.send_event("task-progress", done=5)`.

        Sent whether or not the worker sends events of its own, as in Celery; it is gone when nobody listens, and a
        broker that is away loses it (`retry` and `retry_policy` have no effect).

        Raises:
            ValueError: a field has no JSON form.
        """
        request = self.request
        self.app.task_events.send(type_, hostname=request.hostname or "", uuid=request.id, **fields)

    def add_trail(self, result: Any) -> Any:
        """Note `result` as a child of the running task. Celery calls this when a moved task sends one of its own."""
        if self.trail:
            self.request.children.append(result)
        return result

    def AsyncResult(self, task_id: str) -> AsyncResult:
        """The result of a run of this task."""
        return self.app.AsyncResult(task_id)

    def testing_reference(self) -> TaskReference:
        """What `lightbus.testing` needs of a task; see `lightbus.compat.testing`."""
        from .testing import TaskReference  # it is for tests

        return TaskReference(self)

    def check_arguments(self, args: Any, kwargs: Any) -> None:
        """Raise TypeError when the function cannot be called with these."""
        if not kwargs and len(args) in self._fitting:
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}() {error}") from None

    def ignores_result(self, request: Request | TaskMessage | None = None) -> bool:
        """Whether no result is kept: the message says so, else the task, else the settings."""
        if request is not None and request.ignore_result is not None:
            return request.ignore_result
        return self.app.settings.task_ignore_result if self.ignore_result is None else self.ignore_result

    def setting(self, key: str) -> Any:
        """The task's own attribute `key`, or where it is None the app's setting of that name."""
        own = getattr(self, key)
        return getattr(self.app.settings, key) if own is None else own

    def _call(self, args: Any, kwargs: Any, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """The arguments and options of a call, checked, with those of the task where it names none itself."""
        self.app.settings  # noqa: B018  # read first: annotations in them are attributes of this task
        options["shadow"] = options.get("shadow") or self.shadow_name(args, kwargs, options)
        hard, soft = self.time_limit, self.soft_time_limit
        if hard and soft and soft > hard:
            raise ValueError(f"task {self.name!r}: soft_time_limit {soft} must be at most time_limit {hard}")
        if self.typing:
            self.check_arguments(args or (), kwargs or {})
        if self._dump_arguments is not None:
            args, kwargs = self._dump_arguments(args or (), kwargs or {})
        merged = {**self._exec_options(), **options}
        merged.setdefault("add_to_parent", self.trail)
        if merged.get("ignore_result") is None:
            merged["ignore_result"] = self.ignores_result()
        return args, kwargs, merged

    def _exec_options(self) -> dict[str, Any]:
        options = {key: getattr(self, key) for key in _EXEC_OPTIONS if getattr(self, key) is not None}
        for key in ("time_limit", "soft_time_limit"):
            options.setdefault(key, getattr(self.app.settings, key))
        return options

    def _send_again(self, request: Request, signature: Signature) -> None:
        app = self.app
        sending = prepare(
            self.name, signature.args, signature.kwargs, signature.options,
            task_id=str(request.id), now=time.time(), zone=app.settings.zone,
        )  # fmt: skip
        delivery_info = request.delivery_info or {}
        request.sent_again = True
        if delivery_info.get("redelivered"):  # whoever had it before may have sent its next try already
            marked = {**sending.message.headers, REPEAT_HEADER: 1}
            sending = dataclasses.replace(sending, message=msgspec.structs.replace(sending.message, headers=marked))
        # The header `expires` decides, in the worker.
        message = msgspec.structs.replace(sending.message, expiration_seconds=None)
        try:
            if sending.queue and sending.queue != delivery_info.get("routing_key"):
                app.publish(sending)  # the caller asked for another queue
            else:
                app.publish_to(Route("", sending.queue), message, delay_seconds=sending.delay_seconds)
        except (TransportError, ValueError) as error:
            raise Reject(error, requeue=False) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.name, type(self).__module__)

    def __repr__(self) -> str:
        return f"<@task: {self.name}>"


def _unpickled(name: str, module: str) -> Task:
    """The task of that name in the process's own app, once its module is imported; as Celery's tasks are pickled."""
    from .app import default_app  # it needs this module

    importlib.import_module(module)
    return default_app().tasks[name]


def _raise_in_context(error: BaseException) -> None:
    """Raise `error`; as itself when it is being handled already, else with what is being handled as its cause."""
    handled = sys.exc_info()[1]
    if handled is error:
        raise error
    raise error from handled
