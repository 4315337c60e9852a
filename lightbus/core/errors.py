"""The errors of Lightbus, drawn as the tree they form. The branch says whose fault it is.

LightbusError
|- ConfigError            what the program was told: options, settings, the app to load
|- DeclarationError       an API, event, listener or task that is declared wrongly
|- MessageError           a message that cannot be handled as it is; it is parked, the worker lives on
|  |- DecodeError             its bytes, headers or content type
|  |- HandlerNotFound         its name
|  `- BadArguments            its fields or arguments
|- TransportError         the outside: broker, network
|  |- BrokerUnreachable       no connection could be made
|  |- AccessRefused           the broker refused the credentials or the virtual host
|  |- ConnectionLost          the connection broke and did not come back in time
|  |- NotConfirmed            the broker refused a message, or did not confirm it in time
|  |- Unwritable              the message cannot be written as the broker wants it; nothing was sent
|  |- Unroutable              no queue takes the message
|  |- TopologyMismatch        a queue or exchange exists with other arguments
|  |- PartlyPublished         of many messages some were not published
|  `- NotLeading              another process leads the schedule now; nothing was sent
|- ScheduleStateError     what a store keeps of the schedule is not there, or cannot be read
|- CallError              an RPC that brought no answer of its own
|  |- NotServed               nobody serves it; it did not run
|  |- CallTimeout             no answer by the deadline; `may_have_run`
|  |- Expired                 the server met it after its deadline; it did not run
|  |- Rejected                the server refused it as wrong; it did not run
|  `- RemoteError             the server's handler failed with an error its API does not declare
|- HandlerStopped         a handler that did not come to its own end
|  |- SoftTimeLimitExceeded   raised in it at its soft limit, so that it can clean up
|  |- TimeLimitExceeded       its process was ended at its hard limit
|  `- WorkerLost              its process died under it
`- ApiError               base of the errors that an API declares; they cross the wire as themselves
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


class LightbusError(Exception):
    """Base of every error that Lightbus raises on purpose. Any other exception is a defect: please report it."""


class ConfigError(LightbusError):
    """The program was told something that cannot work: an option, a setting, or the app to load."""


class DeclarationError(LightbusError):
    """An API, event, listener or task is declared in a way that cannot work."""


class MessageError(LightbusError):
    """A message cannot be handled as it is. `reason` is the word under which it is parked."""

    reason = "bad-message"


class DecodeError(MessageError):
    """The bytes, headers or content type of a message are not what its format asks for."""

    reason = "undecodable"


class BadArguments(MessageError):
    """The fields or arguments of a message do not fit what its name declares."""

    reason = "bad-arguments"


class HandlerNotFound(MessageError):
    """The worker knows no handler under the message's name."""

    reason = "unknown-name"

    def __init__(self, name: str, known: Collection[str]) -> None:
        # Of a long name no more than that: the search for what is near takes time by the square of the length.
        import difflib  # only a mistake needs it

        near = difflib.get_close_matches(name[:200], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "does the worker import its module?"
        super().__init__(f"no handler for {name!r:.200}: {hint}")
        self.name = name


class TransportError(LightbusError):
    """The broker or the way to it failed."""


class BrokerUnreachable(TransportError):
    """No connection to the broker could be made."""


class AccessRefused(TransportError):
    """The broker answered, but refused the user, the password or the virtual host."""


class ConnectionLost(TransportError):
    """The connection broke and did not come back in time. What was not confirmed may or may not have arrived."""


class NotConfirmed(TransportError):
    """The broker refused a message, or did not confirm it in time."""


class Unwritable(TransportError):
    """A message cannot be written in the broker's format: a header, a property, or their size. Nothing was sent."""


class Unroutable(TransportError):
    """No queue would take the message: nobody listens under that exchange and routing key."""


class TopologyMismatch(TransportError):
    """A queue or exchange exists already with other arguments than were asked for."""


class PartlyPublished(TransportError):
    """Some of many messages were not published; the text says why the first was not.

    Attributes:
        failed: their numbers, counted from 0.
        begun: how many were begun; those from that number on were not.
    """

    def __init__(self, text: str, *, failed: tuple[int, ...] = (), begun: int = 0) -> None:
        super().__init__(text)
        self.failed = failed
        self.begun = begun


class NotLeading(TransportError):
    """Another process leads the schedule, or may lead it: nothing was sent and nothing recorded."""


class ScheduleStateError(LightbusError):
    """What a store keeps of the schedule is not there any more, or cannot be read. Nothing is guessed in its place."""


class CallError(LightbusError):
    """An RPC brought no answer of its own."""


class NotServed(CallError):
    """Nobody serves the call; it did not run."""


class CallTimeout(CallError):
    """No answer came by the deadline.

    Attributes:
        may_have_run: False only where it is certain that no server started the call.
    """

    def __init__(self, text: str, *, may_have_run: bool = True) -> None:
        super().__init__(text)
        self.may_have_run = may_have_run


class Expired(CallError):
    """A server met the call after its deadline and did not run it."""


class Rejected(CallError):
    """The server refused the call as wrong (its arguments, its version); it did not run."""


class RemoteError(CallError):
    """The server's handler failed with an error that its API does not declare.

    Attributes:
        error_type: the class name of the error on the server, for example `"ValueError"`.
    """

    def __init__(self, text: str, *, error_type: str = "") -> None:
        super().__init__(text)
        self.error_type = error_type


class HandlerStopped(LightbusError):
    """A handler did not come to its own end."""


class SoftTimeLimitExceeded(HandlerStopped):
    """Raised in a handler that runs for longer than its soft limit: its chance to clean up and end."""

    def __init__(self, text: str = "the handler ran for longer than its soft time limit") -> None:
        super().__init__(text)


class TimeLimitExceeded(HandlerStopped):
    """A handler ran for longer than its hard limit, and its process was ended."""


class WorkerLost(HandlerStopped):
    """A handler's process died under it: killed, out of memory, a crash in native code.

    Attributes:
        crashes: processes that the message took down; 0 when it was stopped for another reason.
    """

    def __init__(self, text: str, *, crashes: int = 0) -> None:
        super().__init__(text)
        self.crashes = crashes


class Terminated(HandlerStopped):
    """A handler was ended because somebody asked for it.

    Attributes:
        signum: the signal that they named.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"it was terminated by remote control (signal {signum})")
        self.signum = signum


class ApiError(LightbusError):
    """Base of the errors that an API declares: `class NotFound(ApiError): id: int`.

    The annotated fields are given by keyword, travel with the error, and are attributes on the other side.
    """

    def __init__(self, text: str = "", **fields: Any) -> None:
        declared = {name for cls in type(self).__mro__ for name in vars(cls).get("__annotations__", {})}
        if fields.keys() != declared:
            raise TypeError(f"{type(self).__name__} takes the fields {sorted(declared)}, got {sorted(fields)}")
        self.text = text
        self.fields = fields
        for name, value in fields.items():
            setattr(self, name, value)
        details = ", ".join(f"{name}={value!r}" for name, value in fields.items())
        super().__init__(text or details)
