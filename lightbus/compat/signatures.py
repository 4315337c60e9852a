"""A task to be sent, with its arguments and options: what `link`, `link_error` and a chain carry. Pure.

On the wire a signature is a JSON object. Those that stand for a whole canvas (`subtask_type` chain, group, chord, map)
are carried on, but cannot be sent by this side; `unsupported` says so before a task runs, not after.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .protocol import SignatureDict, TaskMessage

#: A signature in a group keeps its group's id whatever the caller passes, and its stamps.
_KEPT_OPTIONS = frozenset({"group_id", "stamped_headers"})


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One task to be sent."""

    task: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    immutable: bool = False

    @classmethod
    def from_dict(cls, value: SignatureDict) -> Signature:
        """The signature in its JSON form (Celery's `Signature` is a dict and is one too)."""
        return cls(
            task=value["task"],
            args=tuple(value.get("args") or ()),
            kwargs=dict(value.get("kwargs") or {}),
            options=dict(value.get("options") or {}),
            immutable=bool(value.get("immutable")),
        )

    def merged(self, args: tuple[Any, ...], options: Mapping[str, Any]) -> Signature:
        """With `args` put before its own unless it is immutable, and `options` put over its own."""
        over = {key: value for key, value in options.items() if key not in _KEPT_OPTIONS or key not in self.options}
        return Signature(
            task=self.task,
            args=self.args if self.immutable else (*args, *self.args),
            kwargs=self.kwargs,
            options={**self.options, **over},
            immutable=self.immutable,
        )


def as_signature_dicts(value: object, what: str) -> tuple[SignatureDict, ...] | None:
    """`link` or `link_error` as given by a caller: None, one signature, or several, each a dict with a `task`.

    Raises:
        TypeError: it is something else.
    """
    if value is None:
        return None
    many: Iterable[object] = (
        [value] if isinstance(value, Mapping) or not isinstance(value, (list, tuple)) else value
    )  # fmt: skip
    found = []
    for one in many:
        if not isinstance(one, Mapping) or not isinstance(one.get("task"), str):
            raise TypeError(f"{what} must be a signature or a list of them (dicts with a 'task'), got {one!r:.100}")
        found.append(dict(one))
    return tuple(found)


def unsupported(message: TaskMessage) -> str | None:
    """Why this side must not run the task of `message`, or None.

    A chord counts the ends of its members, and a canvas as next step is unfolded, by the worker that runs the step
    before. Doing half of it would leave the others waiting for ever.
    """
    if message.chord is not None:
        return "it is part of a chord, and this worker does not count chord members"
    chain = message.chain or ()
    followers = (("callback", message.callbacks), ("errback", message.errbacks), ("next step", chain[-1:]))
    for what, several in followers:
        for one in several or ():
            if one.get("subtask_type"):
                return f"its {what} is a {one['subtask_type']}, which this worker cannot unfold"
            serializer = (one.get("options") or {}).get("serializer")
            if serializer not in (None, "json"):
                return f"its {what} is to be sent with the serializer {serializer!r}, and this worker sends JSON"
    for one in chain:
        if (one.get("options") or {}).get("chord") is not None:
            return "its chain is part of a chord, which would never hear of a failure here"
    return None


def steps_of(chain: Sequence[SignatureDict]) -> Iterator[Mapping[str, Any]]:
    """Options of the steps that will not run after a failure and have an id; the bodies of chords among them."""
    steps = list(chain)
    while steps:
        step = steps.pop(0)
        options = step.get("options") or {}
        if isinstance(options.get("task_id"), str):
            yield options
        body = (step.get("kwargs") or {}).get("body") if step.get("subtask_type") == "chord" else None
        if isinstance(body, Mapping):
            steps.append(body)
