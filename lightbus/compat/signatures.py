"""What a task's message says of those that follow it: callbacks, errbacks, next steps, the body of its chord. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .canvas import Signature, signature
from .embedded import SignatureDict, are_plain
from .protocol import TaskMessage
from .serializers import JSON, content_type_of


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
        if not isinstance(one, (dict, Mapping)) or not isinstance(one.get("task"), str):
            raise TypeError(f"{what} must be a signature or a list of them (dicts with a 'task'), got {one!r:.100}")
        found.append(dict(one))
    return tuple(found)


def unsupported(message: TaskMessage, *, counts_chords: bool) -> str | None:
    """Why this side must not run the task of `message`, or None.

    Whoever runs a task sends what follows and counts it for its chord. Doing half of it would leave the others waiting
    for ever, so it is looked at before the task runs.

    Args:
        counts_chords: the result backend can.
    """
    chord = (message.chord,) if message.chord is not None else ()
    followers = (
        ("callback", message.callbacks or ()), ("errback", message.errbacks or ()),
        ("next step", message.chain or ()), ("chord", chord),
    )  # fmt: skip
    for what, several in followers:
        to_look_at: Iterable[SignatureDict] = several
        if are_plain(several):
            to_look_at = (one for one in several if "serializer" in (one.get("options") or ()))
        for one in to_look_at:
            try:
                found = _all_in(signature(one))
            except (TypeError, ValueError, RecursionError) as error:
                return f"its {what} is no signature that can be sent: {error!r:.300}"
            for part in found:
                serializer = part.options.get("serializer")
                if serializer not in (None, JSON) and (why := _unknown(serializer)):
                    return f"its {what} cannot be sent: {why}"
                if not counts_chords and (part.options.get("chord") is not None or part.subtask_type == "chord"):
                    return f"its {what} needs a chord, which the result backend cannot count"
    if chord and not counts_chords:
        return "it is part of a chord, and the result backend cannot count its tasks: use one that keeps results"
    return None


def _unknown(serializer: object) -> str:
    """Why nothing can be written by that serializer; "" when it can."""
    try:
        content_type_of(str(serializer))
    except ValueError as error:
        return str(error)
    return ""


def _all_in(sig: Signature) -> list[Signature]:
    return [sig, *(found for part in sig.parts() for found in _all_in(part))]
