"""`@task`: a function becomes a task of an app, under the name that Celery would give it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from ..core.errors import DeclarationError
from .autoretry import with_autoretry
from .compression import compression_name
from .models import taken_options
from .settings import rate_from
from .task import Task

if TYPE_CHECKING:
    from .app import TaskApp


#: Options of Celery that change what a task does and that this version does not honour, with what to do instead. To
#: take one as a mere attribute would be a silent difference.
REFUSED = {
    "Strategy": "it steers Celery's own worker; leave the task with Celery, or collect in the task what it collected",
    "Request": "it steers Celery's own worker; leave the task with Celery, or use middleware (TaskApp.use)",
}


#: Options that say how Celery registers a task: here each is registered at once.
_WITHOUT_EFFECT = ("shared", "lazy", "filter")

HOOKS = ("before_start", "on_success", "on_failure", "on_retry", "after_return")


def decorate(
    get_app: Callable[[], TaskApp], args: tuple[Any, ...], options: dict[str, Any], *, shared: bool = False
) -> Any:
    """`@task` and `@task(...)`: register a function with the app that `get_app` returns."""
    if len(args) == 1 and callable(args[0]) and not options:
        return make_task(get_app, args[0], {}, shared=shared)
    if args:
        raise DeclarationError(f"@task takes keyword options, or a function alone; got {args!r:.100}")
    return lambda function: make_task(get_app, function, options, shared=shared)


def make_task(
    get_app: Callable[[], TaskApp], function: Callable[..., Any], options: Mapping[str, Any], *, shared: bool = False
) -> Task:
    """The task of a function, registered. A name that is registered already keeps its first task, as in Celery.

    Raises:
        DeclarationError: an option cannot be honoured.
    """
    rest = {key: value for key, value in options.items() if key not in _WITHOUT_EFFECT}
    app = get_app()
    name = rest.pop("name", None) or app.gen_task_name(function.__name__, function.__module__)
    if name in app.tasks:
        return app.tasks[name]
    bind, given = bool(rest.pop("bind", False)), rest.pop("base", None)
    base = app.base_class() if given is None else compat_base(name, given)
    check_options(name, rest)
    _check_rate(name, rest.get("rate_limit"))
    models = taken_options(rest)
    if models is not None:
        rest["_dump_arguments"] = staticmethod(models.dumper(function, bind))
        function = models.validated(get_app, name, function)
    made = build_task(get_app, function, name, rest, bind=bind, base=base)
    made.is_shared, made.follows_app = shared, given is None
    register(app, made)
    return made


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise DeclarationError when an option cannot be honoured."""
    if refused := sorted(key for key in REFUSED.keys() & options.keys() if options[key]):
        reasons = "; ".join(f"{key}: {REFUSED[key]}" for key in refused)
        raise DeclarationError(f"task {name!r}: this version does not honour {', '.join(refused)} ({reasons})")
    try:
        compression_name(options.get("compression"))
    except ValueError as error:
        raise DeclarationError(f"task {name!r}: {error}") from error


def register(app: TaskApp, task: Task) -> None:
    """Let `app` have the task."""
    app.tasks[task.name] = task
    task.on_bound(app)
    app.registered(task)


def register_class_task(get_app: Callable[[], TaskApp], task: Any, options: Mapping[str, Any]) -> Task:
    """`app.register_task`: the instance of a class with a `run` method, or that class. A second one of a name replaces
    the first, as in Celery.

    Raises:
        DeclarationError: it is no task, or an option cannot be honoured.
    """
    app = get_app()
    kind = task if isinstance(task, type) else type(task)
    name = task.name or app.gen_task_name(kind.__name__, kind.__module__)
    base = compat_base(name, kind)
    made: Task = base() if isinstance(task, type) or base is not kind else task
    if base is not kind and not isinstance(task, type):
        vars(made).update(vars(task))
    attributes = {key: getattr(made, key, None) for key in (*REFUSED, "compression")}
    check_options(name, {**attributes, **options})
    signature = inspect.signature(made.run)
    vars(made).update(
        options,
        name=name,
        _get_app=get_app,
        _signature=signature,
        _fitting=_fitting(signature),
        _is_coroutine=inspect.iscoroutinefunction(made.run),
        _hooks=has_hooks(base, ()),
    )
    if made.autoretry_for:
        made.run = with_autoretry(made, made.run)  # type: ignore[method-assign]
    register(app, made)
    return made


def compat_base(name: str, base: Any) -> type[Task]:
    """`base`, or where that is a class on Celery's own Task, one with the same methods on the Task of this package.

    Raises:
        DeclarationError: it is no class of tasks.
    """
    if isinstance(base, type) and issubclass(base, Task):
        return base
    celery = sys.modules.get("celery.app.task")
    if celery is not None and isinstance(base, type) and issubclass(base, celery.Task):
        # Our methods come before Celery's and after the project's, whose `super()` finds ours.
        ours = type("Task", (Task, celery.Task), {"__module__": __name__})
        return type(base.__name__, (base, ours), {"__module__": base.__module__, "__doc__": base.__doc__})
    raise DeclarationError(f"task {name!r}: base must be a subclass of lightbus.compat.Task, got {base!r}")


def has_hooks(base: type[Task], attributes: Collection[str]) -> bool:
    """Whether a task of that class and with those attributes has methods that are called around its run."""
    return any(name in attributes or getattr(base, name) is not getattr(Task, name) for name in HOOKS)


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
        first, *others = signature.parameters.values()
        if first.kind is not first.VAR_POSITIONAL:
            signature = signature.replace(parameters=others)
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
            "errback_header": None if bind else staticmethod(function),
            "_is_coroutine": inspect.iscoroutinefunction(function),
            "_hooks": has_hooks(base, attributes),
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
    found = module.__name__ if module is not None else module_name or "__main__"
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

    return decorate(default_app, args, options, shared=True)


shared_task = task
