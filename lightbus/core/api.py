"""How an API is declared: one class that its owner and its callers share, with the events it fires and its calls.

    class Tickets(Api, name="support.tickets", version="1.0"):
        class created(Event):
            id: int
            email: str

        class NotFound(ApiError):
            id: int

        @rpc(timeout_seconds=2.0, errors=[NotFound])
        def get(self, *, id: int) -> Ticket:
            raise NotImplementedError

The owner subclasses it and repeats `@rpc()` over its implementation; a caller gets an instance from `bus.client`.
Pure: what a call does on the wire is `lightbus.calling`'s business, reached through the instance's `Caller`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

import msgspec

from .codec import split_version
from .errors import ApiError, DeclarationError
from .topology import check_name

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:  # at run time msgspec does the work, and Python 3.10 does not have it

    def dataclass_transform(*, kw_only_default: bool, frozen_default: bool):
        return lambda cls: cls


P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class EventSpec:
    """Where an event class belongs: `name` is `<api>.<event>`, `version` its API's major.minor."""

    name: str
    version: str

    @property
    def major(self) -> int:
        return split_version(self.version)[0]


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Event(msgspec.Struct, kw_only=True, frozen=True):
    """Base of the events inside an API. Annotated fields are the payload; all are given by keyword.

    A field with a default is an addition that older listeners and senders can live without.
    """

    spec: ClassVar[EventSpec | None] = None


class Caller(Protocol):
    """What a client instance of an API calls through."""

    def start(self, rpc: Rpc[Any, Any], arguments: dict[str, object], timeout_seconds: float | None) -> Future[Any]:
        """Send the call; the future is the answer, converted to the declared type, or one of the call's errors."""

    def start_async(
        self, rpc: Rpc[Any, Any], arguments: dict[str, object], timeout_seconds: float | None
    ) -> Awaitable[Any]:
        """`start` from a coroutine: the answer is awaited on its loop."""


class Api:
    """Base of API contracts; see the head of this module."""

    api_name: ClassVar[str] = ""
    api_version: ClassVar[str] = ""
    api_events: ClassVar[dict[str, type[Event]]] = {}
    api_calls: ClassVar[dict[str, Rpc[Any, Any]]] = {}
    _caller: Caller | None = None

    def __init_subclass__(cls, *, name: str = "", version: str = "") -> None:
        super().__init_subclass__()
        base = next((b for b in cls.__mro__[1:] if getattr(b, "api_name", "")), None)
        if base is not None:
            if name or version:
                raise DeclarationError(f"{cls.__name__} implements {base.__name__}; name and version stand there")
            _check_implementation(cls, cast("type[Api]", base))
            return
        if not name or not version:
            raise DeclarationError(f'write `class {cls.__name__}(Api, name="...", version="1.0")`: both are needed')
        cls.api_name = check_name(name, "the API name")
        try:
            split_version(version)
        except ValueError as error:
            raise DeclarationError(f"API {name!r}: {error}") from error
        cls.api_version = version
        cls.api_events, cls.api_calls = {}, {}
        for key, value in list(vars(cls).items()):
            if isinstance(value, type) and issubclass(value, Event):
                value.spec = EventSpec(f"{name}.{key}", version)
                cls.api_events[key] = value
            elif isinstance(value, Rpc):
                value.full_name = f"{name}.{key}"
                value.api = cls
                cls.api_calls[key] = value

    @classmethod
    def major(cls) -> int:
        """The major version; two majors of one API can be served side by side."""
        return split_version(cls.api_version)[0]


class Rpc(Generic[P, R]):
    """One call of an API. On the class it is the reference that `bus.call` takes; on an instance it is callable."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        errors: Sequence[type[ApiError]] = (),
        idempotent: bool = False,
    ) -> None:
        if timeout_seconds <= 0:
            raise DeclarationError(f"{function.__qualname__}: timeout_seconds must be above 0, got {timeout_seconds}")
        self.function = function
        self.timeout_seconds = timeout_seconds
        self.errors = {error.__name__: error for error in errors}
        self.idempotent = idempotent
        self.name = function.__name__
        self.full_name = ""  #: `<api>.<call>`, set when the API class is made
        self.api: type[Api] | None = None
        self.__doc__ = function.__doc__
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            if parameter.kind is not parameter.KEYWORD_ONLY:
                raise DeclarationError(
                    f"{function.__qualname__}: parameter {parameter.name!r} must be keyword-only, so that the call can "
                    "grow; write `def name(self, *, ...)`"
                )

    @overload
    def __get__(self, instance: None, owner: type[Api]) -> Rpc[P, R]: ...
    @overload
    def __get__(self, instance: Api, owner: type[Api]) -> BoundRpc[P, R]: ...
    def __get__(self, instance: Api | None, owner: type[Api]) -> Rpc[P, R] | BoundRpc[P, R]:
        return self if instance is None else BoundRpc(self, instance)

    def __repr__(self) -> str:
        return f"<rpc {self.full_name or self.name}>"


class BoundRpc(Generic[P, R]):
    """A call on an instance: of a client it goes to the bus, of an implementation it runs right here."""

    __slots__ = ("_instance", "_timeout_seconds", "rpc")

    def __init__(self, rpc: Rpc[P, R], instance: Api, timeout_seconds: float | None = None) -> None:
        self.rpc = rpc
        self._instance = instance
        self._timeout_seconds = timeout_seconds

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call, and wait for the answer.

        Raises:
            CallError: there was no answer; the subclass says why.
            ApiError: an error that the API declares.
            BadArguments: the arguments do not fit the declaration; nothing was sent.
        """
        caller = self._instance._caller
        if caller is None:
            return cast(R, self.rpc.function(self._instance, *args, **kwargs))
        return cast(R, caller.start(self.rpc, dict(kwargs), self._timeout_seconds).result())

    def start(self, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Call without waiting, so that several can be under way."""
        return self._remote().start(self.rpc, dict(kwargs), self._timeout_seconds)

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        """Call from a coroutine."""
        return self._remote().start_async(self.rpc, dict(kwargs), self._timeout_seconds)

    def with_options(self, *, timeout_seconds: float) -> BoundRpc[P, R]:
        """The same call with another timeout."""
        return BoundRpc(self.rpc, self._instance, timeout_seconds)

    def _remote(self) -> Caller:
        if self._instance._caller is None:
            raise DeclarationError(f"{self.rpc!r} belongs to an implementation here; take a client from bus.client()")
        return self._instance._caller


class _Decorator(Protocol):
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> Rpc[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], R], /) -> Rpc[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Rpc[Any, Any]: ...


def rpc(
    *,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    errors: Sequence[type[ApiError]] = (),
    idempotent: bool = False,
) -> _Decorator:
    """Declare a method of an API as a call; the owner's subclass repeats it over the implementation.

    Args:
        timeout_seconds: how long a caller waits; also the life of the message.
        errors: the `ApiError`s it may raise; they reach the caller as themselves.
        idempotent: running it twice does no harm, so a server that dies half-way leaves it to another one.
    """

    def decorate(function: Callable[..., Any], /) -> Rpc[Any, Any]:
        return Rpc(function, timeout_seconds=timeout_seconds, errors=errors, idempotent=idempotent)

    return cast(_Decorator, decorate)


def _check_implementation(cls: type[Api], contract: type[Api]) -> None:
    for name in contract.api_calls:
        own = vars(cls).get(name)
        if own is not None and not isinstance(own, Rpc):
            raise DeclarationError(
                f"{cls.__name__}.{name} implements a call of {contract.__name__}: put @rpc() over it"
            )
        if isinstance(own, Rpc):
            declared = contract.api_calls[name]
            own.full_name, own.api = declared.full_name, contract
            wanted = set(inspect.signature(declared.function).parameters) - {"self"}
            offered = set(inspect.signature(own.function).parameters) - {"self"}
            if wanted != offered:
                raise DeclarationError(
                    f"{cls.__name__}.{name} takes {sorted(offered)}, but the contract says {sorted(wanted)}"
                )
