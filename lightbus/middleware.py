"""Middleware: what is wrapped around every handler call of a worker.

A middleware is a function from an `Invocation` to a context manager, so one serves plain and coroutine handlers alike:
its own code never awaits. It can look at the message, measure, set up and clean up, and translate an exception. Retry,
acknowledgement and replies are not middleware: they are the worker's business and cannot be taken apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack

from .endpoint import Invocation

Middleware = Callable[[Invocation], AbstractContextManager[object]]


def entered(middleware: Sequence[Middleware], invocation: Invocation) -> ExitStack:
    """All of `middleware` entered in order, to be left in reverse."""
    stack = ExitStack()
    try:
        for wrap in middleware:
            stack.enter_context(wrap(invocation))
    except BaseException:
        stack.close()
        raise
    return stack
