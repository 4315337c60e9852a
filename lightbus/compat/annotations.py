"""Celery's `task_annotations`: attributes that the settings give to tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..core.errors import ConfigError
from .loading import import_path
from .task import Task


def annotate(task: Task, annotations: Any) -> None:
    """Set on `task` what the annotations say about its name, and then what they say about every task.

    Of several annotations the first that says something is taken, for each of both, as in Celery.

    Args:
        annotations: a mapping of names (or "*") to attributes, an object with `annotate(task)` or `annotate_any()`, the
            path of such a class, or a sequence of these.

    Raises:
        ConfigError: an annotation is none of these.
    """
    each = [_about(task, one) for one in _each(annotations)]
    for column in (0, 1):
        attributes = next((found[column] for found in each if found[column]), None)
        for key, value in (attributes or {}).items():
            if key.startswith("@"):
                key = key[1:]
                value = value(getattr(task, key))  # Celery's way to wrap a method
            setattr(task, key, value.__get__(task) if _is_method(value) else value)


def _each(annotations: Any) -> Iterator[Any]:
    for one in annotations if isinstance(annotations, (list, tuple)) else (annotations,):
        if isinstance(one, str):
            try:
                one = import_path(one)
            except ImportError as error:
                raise ConfigError(f"task_annotations: {one!r} cannot be imported: {error}") from error
            one = one() if isinstance(one, type) else one
        if one is not None:
            yield one


def _about(task: Task, annotation: Any) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """What an annotation says about the task, and about all."""
    if isinstance(annotation, Mapping):
        return annotation.get(task.name), annotation.get("*")
    if not (hasattr(annotation, "annotate") or hasattr(annotation, "annotate_any")):
        raise ConfigError(f"task_annotations: {annotation!r:.100} is no mapping of task names to attributes")
    return (
        annotation.annotate(task) if hasattr(annotation, "annotate") else None,
        annotation.annotate_any() if hasattr(annotation, "annotate_any") else None,
    )


def _is_method(value: Any) -> bool:
    return hasattr(value, "__code__")  # a plain function, which Celery sets on the class
