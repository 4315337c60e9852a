"""A signal: who is connected to it, and how they are called. Celery's behaviour, without Celery.

While `celery.signals` is loaded a signal is only a name for Celery's of the same name: what was connected here moves
there at the next use, and the rest follows from Celery's own rules. It is never loaded for this.
"""

from __future__ import annotations

import inspect
import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)

#: Pauses between the calls of a receiver that is connected with `retry=True`, as in Celery: 2, 4, ... 30 seconds.
RETRY_STEP_SECONDS, RETRY_MOST_SECONDS = 2.0, 30.0


@dataclass(frozen=True, slots=True)
class Connection:
    """One receiver. `receiver` is a weak reference to it when `weak`."""

    receiver: Any
    sender: object
    weak: bool
    dispatch_uid: Hashable | None
    retry: bool

    @property
    def key(self) -> tuple[Hashable, Hashable]:
        """Two connections with the same key are one."""
        return self.dispatch_uid or _identity(self.live()), _identity(self.sender)

    def live(self) -> Callable[..., Any] | None:
        """The receiver, or None when nobody else holds it any more."""
        found: Callable[..., Any] | None = self.receiver() if self.weak else self.receiver
        return found

    def hears(self, sender: object) -> bool:
        return self.sender is None or _identity(self.sender) == _identity(sender)


class Signal:
    """Calls its receivers when it is sent.

    Args:
        name: Celery's.
        providing_args: names of the arguments with which it is sent; for people.
    """

    def __init__(self, name: str, providing_args: Sequence[str] = ()) -> None:
        self.name = name
        self.providing_args = set(providing_args)
        self._connections: tuple[Connection, ...] = ()
        self._celery: Any = None
        self._lock = threading.Lock()

    @property
    def receivers(self) -> Sequence[Any]:
        """What is connected. Empty: there is nobody to call, and the arguments need not be made."""
        if self._celery is None and not connect_to_celery(self):
            return self._connections
        found: Sequence[Any] = self._celery.receivers
        return found

    def connect(
        self,
        receiver: Callable[..., Any] | None = None,
        sender: object = None,
        weak: bool = True,
        dispatch_uid: Hashable | None = None,
        retry: bool = False,
    ) -> Any:
        """Call `receiver(signal=..., sender=..., **arguments)` when it is sent. Also a decorator, with options or not.

        Args:
            sender: only when this object, or this text, is the sender.
            weak: do not keep the receiver alive: it is disconnected when nobody else holds it.
            dispatch_uid: the receiver's identity, so that connecting it again does nothing.
            retry: a call that raises is repeated until it does not.

        Raises:
            ValueError: it does not take keyword arguments of any name.
        """
        if receiver is None:
            return lambda function: self.connect(function, sender, weak, dispatch_uid, retry)
        if self._celery is not None or connect_to_celery(self):
            return self._celery.connect(receiver, sender=sender, weak=weak, dispatch_uid=dispatch_uid, retry=retry)
        if not callable(receiver) or not _takes_keywords(receiver):
            raise ValueError(f"a receiver of {self.name} must take keyword arguments (**kwargs), got {receiver!r:.100}")
        if retry and dispatch_uid is None:
            dispatch_uid = _identity(receiver)
        kept: Any = _reference(receiver) if weak and not retry else receiver
        added = Connection(kept, sender, weak and not retry, dispatch_uid, retry)
        with self._lock:
            alive = tuple(one for one in self._connections if one.live() is not None)
            self._connections = alive if added.key in [one.key for one in alive] else (*alive, added)
        return receiver

    def disconnect(
        self,
        receiver: Callable[..., Any] | None = None,
        sender: object = None,
        weak: bool | None = None,
        dispatch_uid: Hashable | None = None,
    ) -> bool:
        """Undo a `connect` with the same arguments (`weak` has no effect); whether there was one."""
        if self._celery is not None or connect_to_celery(self):
            return bool(self._celery.disconnect(receiver, sender=sender, dispatch_uid=dispatch_uid))
        key = (dispatch_uid or _identity(receiver), _identity(sender))
        with self._lock:
            left = tuple(one for one in self._connections if one.key != key)
            found = len(left) < len(self._connections)
            self._connections = left
        return found

    def has_listeners(self, sender: object = None) -> bool:
        """Whether somebody would be called for that sender."""
        if self._celery is not None or connect_to_celery(self):
            return bool(self._celery.has_listeners(sender))
        return any(one.hears(sender) and one.live() is not None for one in self._connections)

    def send(self, sender: object, **named: Any) -> list[tuple[Callable[..., Any], Any]]:
        """Call the receivers in turn; each with what it returned, or with what it raised, which is logged."""
        if self._celery is not None or connect_to_celery(self):
            answers: list[tuple[Callable[..., Any], Any]] = self._celery.send(sender, **named)
            return answers
        responses: list[tuple[Callable[..., Any], Any]] = []
        for connection in self._connections:
            receiver = connection.live()
            if receiver is None or not connection.hears(sender):
                continue
            try:
                call = _called_until_it_works if connection.retry else _called
                responses.append((receiver, call(receiver, {"signal": self, "sender": sender, **named})))
            except Exception as error:  # the receiver's own code; the others are called all the same
                logger.exception("Signal handler %r raised: %r", receiver, error)
                responses.append((receiver, error))
        return responses

    send_robust = send  # Django's name for it

    def __repr__(self) -> str:
        return f"<Signal: {self.name} providing_args={self.providing_args!r}>"


def connect_to_celery(signal: Signal) -> bool:
    """Make `signal` a name for Celery's signal, if Celery's are loaded; whether it is one now."""
    module = sys.modules.get("celery.signals")
    theirs = None if module is None else getattr(module, signal.name, None)  # None: still being loaded, or not in 5.4
    if theirs is None:
        return False
    with signal._lock:
        if signal._celery is None:
            for one in signal._connections:
                receiver = one.live()
                if receiver is not None:
                    theirs.connect(
                        receiver, sender=one.sender, weak=one.weak, dispatch_uid=one.dispatch_uid, retry=one.retry
                    )
            signal._connections = ()
            signal._celery = theirs
    return True


def _called(receiver: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    return receiver(**arguments)


def _called_until_it_works(receiver: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    pause = 0.0
    while True:
        try:
            return receiver(**arguments)
        except Exception as error:  # noqa: BLE001 - that is what the receiver's author asked for
            pause = min(pause + RETRY_STEP_SECONDS, RETRY_MOST_SECONDS)
            logger.error("signal receiver %r raised %r; called again in %g s", receiver, error, pause)
            time.sleep(pause)


def _identity(target: object) -> Hashable:
    if isinstance(target, (str, bytes)):
        return target  # a sender that is a name
    function = getattr(target, "__func__", None)
    return id(target) if function is None else (id(getattr(target, "__self__", None)), id(function))


def _reference(receiver: Callable[..., Any]) -> Any:
    return weakref.WeakMethod(receiver) if inspect.ismethod(receiver) else weakref.ref(receiver)


def _takes_keywords(receiver: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(receiver).parameters.values()
    except (TypeError, ValueError):  # a builtin that does not say
        return True
    return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
