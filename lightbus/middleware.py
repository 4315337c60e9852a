"""Middleware: what is wrapped around every handler call of a worker.

A middleware is a function from an `Invocation` to a context manager, so one serves plain and coroutine handlers alike:
its own code never awaits. It can look at the message, measure, set up and clean up, and translate an exception. Retry,
acknowledgement and replies are not middleware: they are the worker's business and cannot be taken apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol

from .core.errors import DeclarationError
from .endpoint import Invocation


class Middleware(Protocol):
    """A function from an `Invocation` to a context manager, as `@contextmanager` makes one of a generator."""

    def __call__(self, invocation: Invocation, /) -> AbstractContextManager[object]: ...


def checked(middleware: Sequence[Middleware]) -> tuple[Middleware, ...]:
    """`middleware`, where all of it can be called.

    Raises:
        DeclarationError: something in it cannot.
    """
    for one in middleware:
        if not callable(one):
            raise DeclarationError(
                f"a middleware is a function from an Invocation to a context manager (@contextmanager), got {one!r}"
            )
    return tuple(middleware)


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
