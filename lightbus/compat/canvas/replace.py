"""What a task sends in its own place (`Task.replace`): it inherits the task's id, followers, group and chord."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..exceptions import ImproperlyConfigured
from .builtin import ACCUMULATE
from .compose import Chain, Group, pipe, signature
from .signature import Signature

if TYPE_CHECKING:
    from ..app import TaskApp
    from ..request import Request


def replacement_for(request: Request, value: Any, app: TaskApp) -> Signature:
    """The signature to send in place of the task of `request`.

    Raises:
        ValueError: it is a part of a chord.
        ImproperlyConfigured: it is an empty chain.
    """
    sig = signature(value, app=app).clone()
    if "chord" in sig.options:
        raise ValueError(f"{sig!r} is part of a chord: a task cannot be replaced by it")
    if isinstance(sig, Chain) and not sig.tasks:
        raise ImproperlyConfigured("Cannot replace with an empty chain")
    ends_in_group = isinstance(sig, Group) or (isinstance(sig, Chain) and isinstance(sig.tasks[-1], Group))
    if ends_in_group:  # a group has no end of its own to take the task's place
        sig = pipe(sig, Signature(ACCUMULATE, kwargs={"index": 0}, app=app))
    last = sig.tasks[-1] if isinstance(sig, Chain) else sig
    for callback in request.callbacks or ():
        last.link(signature(callback, app=app))
    for errback in request.errbacks or ():
        sig.link_error(signature(errback, app=app))
    sig.freeze(request.id)
    nesting = request.replaced_task_nesting + 1
    within = {"group_id": request.group, "group_index": request.group_index, "chord": request.chord}
    sig.options.update({key: value for key, value in within.items() if value is not None})
    sig.set(root_id=request.root_id, replaced_task_nesting=nesting)
    for step in reversed(request.chain or ()):
        sig = pipe(sig, signature(step, app=app).clone(replaced_task_nesting=nesting))
    return sig
