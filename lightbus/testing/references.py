"""What a test names a message by: an event class, a call, or whatever else says how it is read. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable
from unittest.mock import ANY

from ..core.api import Event, Rpc
from ..core.codec import decode_call, decode_event, kind_of, split_version
from ..core.errors import DecodeError
from ..core.message import Wire
from ..core.schema import CallSchema, encode_event, event_decoder

Fields = Mapping[str, object]


class Reference(Protocol):
    """One kind of message, as a test sees it."""

    @property
    def name(self) -> str:
        """As in logs, for example `shop.orders.placed`."""

    def fields(self, args: Sequence[object], kwargs: Fields) -> Fields:
        """The fields that these parameters make, with defaults, as a receiver gets them.

        Raises:
            BadArguments, TypeError: they do not fit the declaration.
        """

    def read(self, wire: Wire) -> Fields | None:
        """The fields of a message of this kind; None for any other."""


class TaskReference(Reference, Protocol):
    """What is sent to one queue and answers for itself."""

    def incoming(self, args: Sequence[object], kwargs: Fields, message_id: str) -> tuple[Wire, str]:
        """The message that these parameters make, and the queue that it arrives in."""


@runtime_checkable
class HasReference(Protocol):
    """What can be named in a test besides events and calls; a task of `lightbus.compat` is one."""

    def testing_reference(self) -> TaskReference: ...


class EventReference:
    """See `Reference`."""

    def __init__(self, kind: type[Event]) -> None:
        if kind.spec is None:
            raise TypeError(f"event {kind.__qualname__} belongs to no Api: define it inside an Api class")
        self._kind = kind
        self._spec = kind.spec
        self._decode = event_decoder(kind)

    @property
    def name(self) -> str:
        return self._spec.name

    def fields(self, args: Sequence[object], kwargs: Fields) -> Fields:
        event = self._kind(*args, **kwargs)
        return self._as_fields(event if has_any(kwargs) else self._decode(encode_event(event)))

    def read(self, wire: Wire) -> Fields | None:
        if kind_of(wire) != "event":
            return None
        message = decode_event(wire)
        if (message.name, split_version(message.version)[0]) != (self._spec.name, self._spec.major):
            return None
        return self._as_fields(self._decode(message.payload))

    def _as_fields(self, event: Event) -> Fields:
        return {name: getattr(event, name) for name in self._kind.__struct_fields__}


class CallReference:
    """See `Reference`."""

    def __init__(self, rpc: Rpc[Any, Any]) -> None:
        if rpc.api is None:
            raise TypeError(f"{rpc!r} belongs to no Api: define it inside an Api class")
        self._rpc = rpc
        self._major = rpc.api.major()
        self._schema = CallSchema(rpc)

    @property
    def name(self) -> str:
        return self._rpc.full_name

    def fields(self, args: Sequence[object], kwargs: Fields) -> Fields:
        if args:
            raise TypeError(f"{self.name} takes keyword arguments only, got {list(args)!r:.100}")
        if has_any(kwargs):
            return self._schema.bind(kwargs)
        return self._schema.decode_arguments(self._schema.encode_arguments(kwargs))

    def read(self, wire: Wire) -> Fields | None:
        if kind_of(wire) != "call":
            return None
        message = decode_call(wire)
        if (message.name, split_version(message.version)[0]) != (self.name, self._major):
            return None
        return self._schema.decode_arguments(message.payload)


def reference_of(named: object) -> Reference:
    """The reference for what a test names.

    Raises:
        TypeError: it is nothing that is sent.
    """
    if isinstance(named, type) and issubclass(named, Event):
        return EventReference(named)
    if isinstance(named, Rpc):
        return CallReference(named)
    if isinstance(named, HasReference):
        return named.testing_reference()
    raise TypeError(f"expected an event class, a call of an Api or a task, got {named!r:.100}")


def has_any(values: Fields) -> bool:
    """Whether one of the values stands for any."""
    return any(value is ANY for value in values.values())


def name_of(wire: Wire) -> str:
    """What a message is called in logs, as far as it can be read."""
    try:
        match kind_of(wire):
            case "event":
                return decode_event(wire).name
            case "call":
                return decode_call(wire).name
    except DecodeError:
        pass
    return str(wire.headers.get("task") or wire.headers.get("cloudEvents_type") or "a message without a name")
