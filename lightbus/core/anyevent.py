"""Events that a listener hears by a pattern of names, without their contracts. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from .errors import DeclarationError, DecodeError
from .matching import topic_matches
from .message import EventMessage

_WORD = re.compile(r"[*#]|[A-Za-z0-9_-]+")
_MOST_CHARACTERS = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyEvent:
    """What a listener with a pattern gets.

    Attributes:
        name: `<api>.<event>`.
        version: of the API that it was sent by, major.minor.
        source: the app that fired it.
        id: of the message.
        sent_at: Unix time in seconds.
        payload: its fields as plain data, as they stand in JSON: nothing was checked or converted.
    """

    name: str
    version: str
    source: str
    id: str
    sent_at: float
    payload: Mapping[str, Any]


def checked_pattern(pattern: str) -> str:
    """`pattern`, if it is one: words parted by dots, `*` for one word, `#` for any number.

    Raises:
        DeclarationError: it is none.
    """
    if not 0 < len(pattern) <= _MOST_CHARACTERS or not all(_WORD.fullmatch(word) for word in pattern.split(".")):
        raise DeclarationError(
            f"{pattern!r} is no pattern of event names: write words and dots, '*' for one word and '#' for any number, "
            "as in 'support.*.created'"
        )
    return pattern


def pattern_key(pattern: str) -> str:
    """What to bind a queue with: the events' routing keys end in their major version."""
    return f"{pattern}.*"


def is_heard(name: str, pattern: str) -> bool:
    """Whether `pattern`, or the name that stands in its place, takes the event `name`."""
    return topic_matches(pattern, name)


def any_event(message: EventMessage) -> AnyEvent:
    """Raises DecodeError: the body is no JSON object."""
    try:
        payload = msgspec.json.decode(message.payload, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise DecodeError(f"the body of event {message.name!r:.100} is no JSON object: {error}") from error
    origin = message.origin
    return AnyEvent(
        name=message.name, version=message.version, source=origin.source, id=origin.id, sent_at=origin.sent_at,
        payload=payload,
    )  # fmt: skip
