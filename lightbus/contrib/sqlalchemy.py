"""SQLAlchemy sessions that live for one message, and pools that no forked process shares.

Session = scoped_session(sessionmaker(engine), scopefunc=message_scope)
bus.use(session_per_message(Session))
forget_pool_in_children(engine)
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.engine import Engine
from sqlalchemy.orm import scoped_session

from .. import Invocation, Middleware, current_delivery


def message_scope() -> tuple[str, int]:
    """For `scoped_session(..., scopefunc=message_scope)`: a session per message, and per thread outside of handlers.

    Coroutines need it: they share a thread, and with SQLAlchemy's own scope would share their session.
    """
    handled = current_delivery()
    return ("thread", threading.get_ident()) if handled is None else ("message", id(handled))


def session_per_message(session: scoped_session[Any]) -> Middleware:
    """A middleware that removes `session` after each message, so that the next one begins with a new one.

    A failure rolls back what was not committed. Success commits nothing: that is the handler's decision.
    """

    @contextmanager
    def around(invocation: Invocation) -> Iterator[None]:
        try:
            yield
        except BaseException:
            session.rollback()
            raise
        finally:
            session.remove()

    return around


def forget_pool_in_children(engine: Engine) -> None:
    """Give each process that is forked from now on an empty pool; the connections of this process stay its own."""
    reference = weakref.ref(engine)

    def forget() -> None:
        known = reference()
        if known is not None:
            known.dispose(close=False)  # not closed: the parent goes on using them

    os.register_at_fork(after_in_child=forget)
