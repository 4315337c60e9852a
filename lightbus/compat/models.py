"""Tasks with `pydantic=True`: arguments become the models of their annotations in the worker, and a model that is
returned, or given by the caller, becomes JSON.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any

from ..core.errors import DeclarationError

_OPTIONS = ("pydantic", "pydantic_strict", "pydantic_context", "pydantic_dump_kwargs")
_NAMED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class ModelOptions:
    """What the options of a task say about its models.

    Attributes:
        strict, context: for pydantic's `model_validate`; `celery_app` and `celery_task_name` are added to the context.
        dump_kwargs: for `model_dump`.
    """

    strict: bool = False
    context: Mapping[str, Any] = field(default_factory=dict)
    dump_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def validated(self, get_app: Callable[[], Any], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, called with models and returning JSON."""
        signature, hints = inspect.signature(function), _hints(function)
        returned = _alternatives(hints.get("return"))

        def bound(args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
            arguments = signature.bind(*args, **kwargs)
            for key, value in arguments.arguments.items():
                model = _model(hints.get(key), value)
                if model is not None:
                    context = {**self.context, "celery_app": get_app(), "celery_task_name": name}
                    arguments.arguments[key] = model.model_validate(value, strict=self.strict, context=context)
            return arguments

        def dumped(result: Any) -> Any:
            if _is_model(type(result)) and any(isinstance(one, type) and isinstance(result, one) for one in returned):
                return result.model_dump(**{"mode": "json", **self.dump_kwargs})
            return result

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                arguments = bound(args, kwargs)
                return dumped(await function(*arguments.args, **arguments.kwargs))

            return run_async

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            arguments = bound(args, kwargs)
            return dumped(function(*arguments.args, **arguments.kwargs))

        return run

    def dumper(self, function: Callable[..., Any], bind: bool) -> Callable[[Any, Any], tuple[Any, Any]]:
        """What makes JSON of the models in a call's arguments, where the worker makes the equal model of it again.

        Others stay what they are, and are refused when the message is written.
        """
        hints = _hints(function)
        names = [key for key, one in inspect.signature(function).parameters.items() if one.kind in _NAMED]
        names = names[1:] if bind else names

        def dumped(key: str | None, value: Any) -> Any:
            model = _model(hints.get(key), value) if key is not None and _is_model(type(value)) else None
            if model is None or hasattr(type(value), "__json__"):
                return value
            try:
                data = value.model_dump(**{"mode": "json", **self.dump_kwargs})
                again = model.model_validate(data, strict=self.strict, context=dict(self.context))
            except Exception:  # noqa: BLE001 - the model's own validators, which may work only in a worker
                return value
            return data if again == value else value

        def dump(args: Any, kwargs: Any) -> tuple[Any, Any]:
            keys: Iterator[str | None] = iter([*names, *[None] * len(args)])
            return (
                [dumped(key, value) for key, value in zip(keys, args)],  # noqa: B905 - there are enough keys
                {key: dumped(key, value) for key, value in kwargs.items()},
            )

        return dump


def taken_options(options: dict[str, Any]) -> ModelOptions | None:
    """Take the options about models out of a task's `options`; None where it has no `pydantic=True`.

    Raises:
        DeclarationError: pydantic is not installed.
    """
    wanted, strict, context, dump_kwargs = (options.pop(key, None) for key in _OPTIONS)
    if not wanted:
        return None
    try:
        import pydantic  # noqa: F401
    except ImportError as error:
        raise DeclarationError("a task with pydantic=True needs pydantic: pip install pydantic") from error
    return ModelOptions(bool(strict), context or {}, dump_kwargs or {})


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, AttributeError, TypeError):  # a name that is only there for type checkers
        return dict(getattr(function, "__annotations__", {}))


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """`Model`, or of `Model | None` the model."""
    if typing.get_origin(hint) in (typing.Union, UnionType):
        return tuple(one for one in typing.get_args(hint) if one is not type(None))
    return () if hint is None else (hint,)


def _model(hint: Any, value: Any) -> Any:
    """The model that the argument `value` is made to, or None."""
    found = _alternatives(hint)
    if len(found) != 1 or not _is_model(found[0]) or (value is None and found[0] is not hint):
        return None
    return found[0]


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and hasattr(kind, "model_validate") and hasattr(kind, "model_dump")
