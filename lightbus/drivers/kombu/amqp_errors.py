"""py-amqp's and the socket's errors become ours here, once; everything inside knows only ours."""

from __future__ import annotations

import ssl

from amqp import exceptions as amqp

from ...core.errors import (
    AccessRefused,
    BrokerUnreachable,
    ConnectionLost,
    NotConfirmed,
    TopologyMismatch,
    TransportError,
    Unroutable,
)

#: What a broken connection raises: the whole connection has to be opened anew.
CONNECTION_ERRORS: tuple[type[Exception], ...] = (amqp.ConnectionError, OSError, EOFError)
#: What closes one channel and leaves the connection alone.
CHANNEL_ERRORS: tuple[type[Exception], ...] = (amqp.ChannelError,)


def connect_error(error: Exception, where: str) -> TransportError:
    """Why no connection to `where` (an URL without its password) could be made."""
    if isinstance(error, amqp.AccessRefused):
        return AccessRefused(f"{where} refused the user or the password: check the URL")
    if isinstance(error, amqp.NotAllowed):
        return AccessRefused(f"{where} does not let this user into the virtual host, or there is none of that name")
    if isinstance(error, ssl.SSLError):
        return BrokerUnreachable(f"TLS with {where} failed: {error}")
    return BrokerUnreachable(f"no connection to {where}: {_text(error)}; is the broker running, is the address right?")


def declare_error(error: Exception, what: str) -> TransportError:
    """Why `what` (for example "queue 'x'") could not be declared."""
    if isinstance(error, amqp.PreconditionFailed | amqp.ResourceLocked):
        return TopologyMismatch(f"{what} exists with other arguments: {_text(error)}")
    if isinstance(error, amqp.NotFound):
        return TopologyMismatch(f"{what} was expected to exist already: {_text(error)}")
    if isinstance(error, amqp.AccessRefused):
        return AccessRefused(f"the broker does not let this user declare {what}: {_text(error)}")
    return ConnectionLost(f"the connection broke while {what} was declared: {_text(error)}")


def publish_error(error: Exception, exchange: str, routing_key: str) -> TransportError:
    """Why the broker closed the channel on a message for `exchange`."""
    if isinstance(error, amqp.NotFound):
        return Unroutable(f"there is no exchange {exchange!r}: nobody has declared it on this broker")
    return NotConfirmed(f"the broker refused a message for {exchange!r} with key {routing_key!r}: {_text(error)}")


def _text(error: Exception) -> str:
    reply = getattr(error, "reply_text", None)
    return str(reply) if reply else (str(error) or type(error).__name__)
