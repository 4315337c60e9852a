"""`@task`: a function becomes a task of an app, under the name that Celery would give it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..core.errors import DeclarationError
from .autoretry import with_autoretry
from .settings import rate_from
from .task import Task

if TYPE_CHECKING:
    from .app import TaskApp


#: Options of Celery that change what a task does and that this version does not honour. To take one as a mere attribute
#: would be a silent difference; such a task stays with Celery for now.
REFUSED = frozenset(
    {
        "pydantic", "pydantic_strict", "pydantic_context", "pydantic_dump_kwargs", "Strategy", "Request",
        "compression", "reject_on_worker_lost", "retry_on_worker_lost",
    }
)  # fmt: skip


HOOKS = ("before_start", "on_success", "on_failure", "on_retry", "after_return")


def decorate(get_app: Callable[[], TaskApp], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """`@task` and `@task(...)`: register a function with the app that `get_app` returns."""
    if len(args) == 1 and callable(args[0]) and not options:
        return make_task(get_app, args[0], {})
    if args:
        raise DeclarationError(f"@task takes keyword options, or a function alone; got {args!r:.100}")
    return lambda function: make_task(get_app, function, options)


def make_task(get_app: Callable[[], TaskApp], function: Callable[..., Any], options: Mapping[str, Any]) -> Task:
    """The task of a function, registered. A name that is registered already keeps its first task, as in Celery.

    Raises:
        DeclarationError: an option cannot be honoured.
    """
    rest = dict(options)
    app = get_app()
    name = rest.pop("name", None) or task_name(function.__name__, function.__module__, app.main)
    if name in app.tasks:
        return app.tasks[name]
    bind, base = bool(rest.pop("bind", False)), rest.pop("base", None) or Task
    if not (isinstance(base, type) and issubclass(base, Task)):
        raise DeclarationError(f"task {name!r}: base must be a subclass of lightbus.compat.Task, got {base!r}")
    if rest.get("serializer") not in (None, "json"):
        raise DeclarationError(
            f"task {name!r}: serializer {rest['serializer']!r} is not supported; Lightbus sends JSON"
        )
    if refused := sorted(key for key in REFUSED & rest.keys() if rest[key]):
        raise DeclarationError(
            f"task {name!r}: this version does not honour {', '.join(refused)}; leave the task with Celery, or take "
            "the option out and do it in the task (self.retry in an except block, for example)"
        )
    _check_rate(name, rest.get("rate_limit"))
    made = build_task(get_app, function, name, rest, bind=bind, base=base)
    app.tasks[name] = made
    return made


def _check_rate(name: str, value: object) -> None:
    try:
        rate_from(value)
    except (DeclarationError, ValueError) as error:
        raise DeclarationError(f"task {name!r}: rate_limit cannot be {value!r}: {error}") from error


def build_task(
    get_app: Callable[[], TaskApp],
    function: Callable[..., Any],
    name: str,
    attributes: Mapping[str, Any],
    *,
    bind: bool = False,
    base: type[Task] = Task,
) -> Task:
    """The task of a function, not registered anywhere."""
    signature = inspect.signature(function)
    if bind:
        signature = signature.replace(parameters=list(signature.parameters.values())[1:])
    made = type(
        function.__name__,
        (base,),
        {
            "name": name,
            "run": function if bind else staticmethod(function),
            "__doc__": function.__doc__,
            "__module__": function.__module__,
            "__wrapped__": staticmethod(function),
            "_get_app": staticmethod(get_app),
            "_signature": signature,
            "_fitting": _fitting(signature),
            "_is_coroutine": inspect.iscoroutinefunction(function),
            "_hooks": any(name in attributes or getattr(base, name) is not getattr(Task, name) for name in HOOKS),
            **attributes,
        },
    )
    task: Task = made()
    task.__qualname__ = function.__qualname__  # type: ignore[attr-defined]  # tools print it
    if task.autoretry_for:
        task.run = with_autoretry(task, task.run)  # type: ignore[method-assign]
    return task


def _fitting(signature: inspect.Signature) -> range:
    """How many positional arguments a call may have that has no others."""
    parameters = signature.parameters.values()
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if any(one.kind is one.KEYWORD_ONLY and one.default is one.empty for one in parameters):
        return range(0)
    most = sys.maxsize if any(one.kind is one.VAR_POSITIONAL for one in parameters) else len(positional) + 1
    return range(sum(one.default is one.empty for one in positional), most)


def task_name(function_name: str, module_name: str, main: str | None) -> str:
    """The name that Celery gives a task: `module.function`, where `__main__` becomes the app's name if it has one."""
    module = sys.modules.get(module_name)
    found = module.__name__ if module is not None else module_name
    if found == "__main__" and main:
        found = main
    return f"{found}.{function_name}" if found else function_name


def task(*args: Any, **options: Any) -> Any:
    """Decorator: make a function a task of the process's app.

    Use it bare or with options: `name`, `bind`, `max_retries`, `default_retry_delay`, `acks_late`, `ignore_result`,
    `queue`, `priority`, `expires`, `time_limit`, `soft_time_limit`, `track_started`, `throws`, `typing`,
    `autoretry_for` and its family, `base`. Any other keyword becomes an attribute of the task.
    """
    from .app import default_app  # app imports this module

    return decorate(default_app, args, options)


shared_task = task
