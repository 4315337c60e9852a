"""The signatures that a task message carries (`callbacks`, `errbacks`, `chain`, `chord`), checked. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..core.errors import DecodeError
from .fields import short

SignatureDict = Mapping[str, Any]
#: A level of a canvas, for example a chord in the header of a chord, takes three.
MAX_SIGNATURE_DEPTH = 200


def signatures_in(embed: Mapping[str, Any], key: str) -> tuple[SignatureDict, ...] | None:
    value = embed.get(key)
    if value is None:
        return None
    if not isinstance(value, (list, tuple)):
        raise DecodeError(f"{key!r} must be a list of signatures or null, got {short(value)}")
    if not are_plain(value):
        _check_depth(value, key)
        for one in value:
            _checked(one, key)
    return tuple(value)


_Plain = str | int | float | bool | None


class _PlainSignature(msgspec.Struct):
    """A signature of one task with nothing nested in it."""

    task: str
    args: list[_Plain] | None = None
    kwargs: dict[str, _Plain] | None = None
    options: dict[str, _Plain] | None = None
    subtask_type: None = None


def are_plain(signatures: Sequence[Any]) -> bool:
    """Whether all are signatures of single tasks that hold only plain values, as the steps of most chains are.

    Each step of a chain carries all that are to come: what is looked at one by one is paid for once per pair of steps.
    """
    try:
        msgspec.convert(signatures, list[_PlainSignature])
    except (msgspec.ValidationError, UnicodeError):
        return False
    return True


def signature_in(value: object, what: str) -> SignatureDict | None:
    if value is None:
        return None
    if isinstance(value, dict):
        _check_depth(value, what)
    return _checked(value, what)


def _checked(value: object, what: str) -> SignatureDict:
    if not isinstance(value, dict) or not isinstance(value.get("task"), str):
        raise DecodeError(f"a signature in {what!r} must be an object with the text field 'task', got {short(value)}")
    for key, kind, word in (("args", (list, tuple), "list"), ("kwargs", dict, "object"), ("options", dict, "object")):
        if value.get(key) is not None and not isinstance(value[key], kind):
            raise DecodeError(f"the {key} of a signature in {what!r} must be a {word}, got {short(value[key])}")
    return value


def _check_depth(found: Sequence[Any] | dict[str, Any], what: str) -> None:
    """Raises DecodeError: lists and objects lie in each other deeper than any canvas; what follows them recurses."""
    level: list[Sequence[Any] | dict[str, Any]] = [found]
    depth = 0
    while level:
        if depth > MAX_SIGNATURE_DEPTH:
            raise DecodeError(
                f"the signatures in {what!r} lie in each other more than {MAX_SIGNATURE_DEPTH} levels deep"
            )
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, (dict, list, tuple))
        ]
        depth += 1
