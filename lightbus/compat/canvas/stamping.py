"""Stamps: headers of the user's own on every message of a canvas, written and merged as Celery does it. Pure.

One thing is not Celery's: there lists are joined in place, so that what one signature of several has of its own ends up
with those after it.

A stamp is an option of a signature whose name stands in its option `stamped_headers`; on the wire the message then has
`stamped_headers` and `stamps`. A task finds them in `self.request`, and a retry keeps them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from .compose import Chain, Chord, Group, signature
from .signature import Signature, as_list

STAMPED = "stamped_headers"
Stamps = dict[str, Any]


class StampingVisitor(ABC):
    """Decides on the stamps of each part of a canvas. Of each method `headers` are the stamps so far.

    What a method returns is added: for a group, a chain or a chord's header to all its tasks. The names of the stamps
    may be told apart with `stamped_headers` in it; without, all its keys are stamps.
    """

    @abstractmethod
    def on_signature(self, sig: Signature, **headers: Any) -> Mapping[str, Any] | None:
        """A single task."""

    def on_group_start(self, group: Group, **headers: Any) -> Mapping[str, Any] | None:
        """A group, before its tasks."""
        return {}

    def on_group_end(self, group: Group, **headers: Any) -> None:
        """A group, after its tasks."""
        return

    def on_chain_start(self, chain: Chain, **headers: Any) -> Mapping[str, Any] | None:
        """A chain, before its tasks."""
        return {}

    def on_chain_end(self, chain: Chain, **headers: Any) -> None:
        """A chain, after its tasks."""
        return

    def on_chord_header_start(self, chord: Chord, **headers: Any) -> Mapping[str, Any] | None:
        """A chord, before the tasks of its header; as a group unless it is overridden."""
        return self.on_group_start(Group(chord.tasks, app=chord._app), **headers)

    def on_chord_header_end(self, chord: Chord, **headers: Any) -> None:
        """A chord, after the tasks of its header; as a group unless it is overridden."""
        self.on_group_end(Group(chord.tasks, app=chord._app), **headers)

    def on_chord_body(self, chord: Chord, **headers: Any) -> Mapping[str, Any] | None:
        """A chord, before its body is stamped."""
        return {}

    def on_callback(self, callback: Signature, **headers: Any) -> Mapping[str, Any] | None:
        """A signature under `link`, before it is stamped as any other."""
        return {}

    def on_errback(self, errback: Signature, **headers: Any) -> Mapping[str, Any] | None:
        """A signature under `link_error`, before it is stamped as any other."""
        return {}


def stamp(sig: Signature, visitor: StampingVisitor | None, append: bool, stamps: Mapping[str, Any]) -> None:
    """Stamp `sig` and all that it is made of and linked to; see `Signature.stamp`."""
    match sig:
        case Chain():
            within = _added(sig, None if visitor is None else visitor.on_chain_start(sig, **stamps), append, stamps)
            _stamp_links(sig, visitor, False, within)  # for a chain Celery never appends there
            for step in sig.tasks:
                stamp(step, visitor, append, within)
            if visitor is not None:
                visitor.on_chain_end(sig, **within)
        case Group():
            within = _added(sig, None if visitor is None else visitor.on_group_start(sig, **stamps), append, stamps)
            _stamp_links(sig, visitor, append, within)
            for member in sig.tasks:
                stamp(member, visitor, append, within)
            if visitor is not None:
                visitor.on_group_end(sig, **within)
        case Chord():
            _stamp_chord(sig, visitor, append, stamps)
        case _:
            _stamp_links(sig, visitor, append, stamps)
            given = None if visitor is None else visitor.on_signature(sig, **stamps) or {}
            sig.set(**_added(sig, given, append, stamps))


def _stamp_chord(
    chord: Chord, visitor: StampingVisitor | None, append: bool, stamps: Mapping[str, Any]
) -> None:  # fmt: skip
    within = _added(chord, None if visitor is None else visitor.on_chord_header_start(chord, **stamps), append, stamps)
    _stamp_links(chord, visitor, append, within)
    for member in chord.tasks:
        stamp(member, visitor, append, within)
    if visitor is None:
        return  # Celery stamps a body for a visitor alone
    visitor.on_chord_header_end(chord, **within)
    if chord.kwargs["body"] is not None:
        given = visitor.on_chord_body(chord, **within)
        stamp(chord.body, visitor, append, _added(chord, given, append, within))


def _stamp_links(sig: Signature, visitor: StampingVisitor | None, append: bool, stamps: Mapping[str, Any]) -> None:
    """Callbacks and errbacks of `sig`. As in Celery, what one of them is given the next one gets too."""
    for key in ("link", "link_error"):
        within: Mapping[str, Any] = stamps
        links = [signature(one, app=sig._app) for one in as_list(sig.options.get(key))]
        if not links:
            continue
        for link in links:
            given = None
            if visitor is not None:
                given = (visitor.on_callback if key == "link" else visitor.on_errback)(link, **within) or {}
            within = _with_names(within) if given is None else _merged(_with_names(within), _with_names(given), append)
            stamp(link, visitor, append, within)
        sig.options[key] = links  # those that were JSON are signatures now


def _added(sig: Signature, given: Mapping[str, Any] | None, append: bool, stamps: Mapping[str, Any]) -> Stamps:
    """`stamps` with what a visitor has given, and with those that `sig` has already."""
    found = _with_names(stamps)
    if given:
        found = _merged(found, _with_names(given), append)
    names = _unique([*found[STAMPED], *(sig.options.get(STAMPED) or ())])
    own = {key: value for key, value in sig.options.items() if key in names}
    return {**_merged({**found, STAMPED: names}, own, append), STAMPED: names}


def _with_names(stamps: Mapping[str, Any]) -> Stamps:
    """The stamps with their names, which are all keys unless they are told."""
    names = stamps[STAMPED] if STAMPED in stamps else list(stamps)
    return {**stamps, STAMPED: _unique(names or ())}


def _merged(stamps: Stamps, more: Mapping[str, Any], append: bool) -> Stamps:
    """Of two values of a stamp the first stays, or with `append` both are kept in a list; two lists are joined."""
    found = dict(stamps)
    for key, new in more.items():
        if key not in found:
            found[key] = new
            continue
        old = found[key]
        if isinstance(old, dict) and isinstance(new, Mapping):
            found[key] = _merged(old, new, append)
            continue
        if append and isinstance(old, (int, float, str)):
            old = [old]
        if isinstance(old, list) and isinstance(new, list):
            found[key] = [*old, *new]
        elif append:
            found[key] = [*(old or ()), new]
    if STAMPED in found:
        found[STAMPED] = _unique(found[STAMPED] or ())
    return found


def _unique(names: Iterable[Any]) -> list[Any]:
    """Each once, in the order of the first mention; in Celery the order is that of a set."""
    return list(dict.fromkeys(names))
