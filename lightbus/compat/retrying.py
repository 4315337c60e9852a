"""What a retry sends: the request's own message, with one try more. Pure."""

from __future__ import annotations

import inspect
from typing import Any

from ..core.outcome import BROKER_TRAIL_PREFIXES
from .request import Request

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def retry_options(request: Request, ignore_result: bool) -> dict[str, Any]:
    """The options under which the message of `request` is sent again: same id, flow, canvas, limits and headers."""
    delivery = request.delivery_info or {}
    options: dict[str, Any] = {
        "task_id": request.id,
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "group_id": request.group,
        "group_index": request.group_index,
        "shadow": request.shadow,
        "chord": request.chord,
        "chain": request.chain,
        "link": request.callbacks,
        "link_error": request.errbacks,
        "expires": request.expires,
        "time_limit": request.time_limit,
        "soft_time_limit": request.soft_time_limit,
        "headers": {k: v for k, v in (request.headers or {}).items() if not k.startswith(BROKER_TRAIL_PREFIXES)},
        "reply_to": request.reply_to,
        "replaced_task_nesting": request.replaced_task_nesting,
        "origin": request.origin,
        "ignore_result": ignore_result,
        "queue": delivery.get("routing_key"),
        "priority": delivery.get("priority"),
    }
    if request.stamped_headers is not None:
        options["stamped_headers"] = request.stamped_headers
        options |= {key: value for key, value in (request.stamps or {}).items() if key in request.stamped_headers}
    return options


def retry_arguments(
    signature: inspect.Signature, request: Request, args: Any, kwargs: Any
) -> tuple[Any, dict[str, Any]]:
    """Arguments of the next try: those given, and of the request's those that they do not replace.

    With new positional arguments a keyword of the request gives way where it names the same parameter, and the other
    way round, as in Celery 5.7.
    """
    old_args, old_kwargs = request.args or (), dict(request.kwargs or {})
    if args is not None and kwargs is not None:
        return args, dict(kwargs)
    if args is not None:
        positional = [one for one in signature.parameters.values() if one.kind in _POSITIONAL]
        for one in positional[: len(args)]:
            if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
                old_kwargs.pop(one.name, None)
        return args, old_kwargs
    if kwargs is None:
        return old_args, old_kwargs
    new = dict(kwargs)
    try:
        bound = signature.bind_partial(*old_args)
    except TypeError:
        return old_args, new  # the worker that gets it says what does not fit
    for name in list(new):
        known = signature.parameters.get(name)
        if name in bound.arguments and known is not None and known.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            bound.arguments[name] = new.pop(name)
    return bound.args, {**bound.kwargs, **new}
