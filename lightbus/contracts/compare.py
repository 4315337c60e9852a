"""What changed between two contracts, and whether their versions say so.

The rule (docs/reference/contracts.md): same major, and the caller's minor at most the server's. So an addition that the
other side can live without is a minor change, and a removed or tightened field is a major one. What is tightened
depends on who sends: arguments come from callers that may be older, results and errors go to them, and an event may
meet listeners of either age. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, Literal

from ..core.codec import split_version
from .document import Json, resolve


class Level(IntEnum):
    """The part of the version that a change must raise."""

    NONE = 0
    MINOR = 1
    MAJOR = 2


class Shift(Enum):
    """How a value's set of possible forms changed."""

    REMOVED = "is gone"
    ADDED_REQUIRED = "is new and has no default"
    ADDED = "is new and has a default"
    NARROWED = "takes less than before"
    WIDENED = "takes more than before"
    CHANGED = "has another type"
    DEFAULT = "has another default"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `place` is for example `support.tickets.get(id)`."""

    api: str
    place: str
    text: str
    level: Level


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs in one API, and what its versions are.

    Attributes:
        needed: the part of the version that must be raised.
        raised: the part that is.
    """

    api: str
    old_version: str
    new_version: str
    changes: tuple[Change, ...]
    raised: Level
    is_lower: bool = False

    @property
    def needed(self) -> Level:
        return max((change.level for change in self.changes), default=Level.NONE)

    @property
    def is_fine(self) -> bool:
        return self.raised >= self.needed and not self.is_lower


Flow = Literal["event", "arguments", "result"]

_LEVELS: Mapping[Flow, Mapping[Shift, Level]] = {
    "event": {
        Shift.REMOVED: Level.MAJOR, Shift.ADDED_REQUIRED: Level.MAJOR, Shift.ADDED: Level.MINOR,
        Shift.NARROWED: Level.MAJOR, Shift.WIDENED: Level.MAJOR, Shift.CHANGED: Level.MAJOR, Shift.DEFAULT: Level.NONE,
    },
    "arguments": {
        Shift.REMOVED: Level.MAJOR, Shift.ADDED_REQUIRED: Level.MAJOR, Shift.ADDED: Level.MINOR,
        Shift.NARROWED: Level.MAJOR, Shift.WIDENED: Level.MINOR, Shift.CHANGED: Level.MAJOR, Shift.DEFAULT: Level.NONE,
    },
    "result": {
        Shift.REMOVED: Level.MAJOR, Shift.ADDED_REQUIRED: Level.MINOR, Shift.ADDED: Level.MINOR,
        Shift.NARROWED: Level.MINOR, Shift.WIDENED: Level.MAJOR, Shift.CHANGED: Level.MAJOR, Shift.DEFAULT: Level.NONE,
    },
}  # fmt: skip
#: Keywords that narrow when they grow, and those that narrow when they shrink.
_LOWER_BOUNDS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER_BOUNDS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_OTHER_LIMITS = ("pattern", "multipleOf", "format", "contentEncoding")


def compare(old: Json, new: Json) -> list[Comparison]:
    """Compare two documents, API by API; an API that only `new` has is no change to anybody."""
    there = {(api["name"], split_version(api["version"])[0]): api for api in new["apis"]}
    newest = {api["name"]: api for api in sorted(new["apis"], key=lambda api: split_version(api["version"]))}
    found = []
    for api in old["apis"]:
        name = api["name"]
        other = there.get((name, split_version(api["version"])[0])) or newest.get(name)
        if other is None:
            gone = Change(name, name, "the API is gone", Level.MAJOR)
            found.append(Comparison(name, api["version"], "", (gone,), Level.NONE))
            continue
        before, after = split_version(api["version"]), split_version(other["version"])
        raised = Level.MAJOR if after[0] > before[0] else Level.MINOR if after > before else Level.NONE
        changes = tuple(_api_changes(api, other))
        found.append(Comparison(name, api["version"], other["version"], changes, raised, is_lower=after < before))
    return found


def _api_changes(old: Json, new: Json) -> Iterator[Change]:
    api = old["name"]
    defs = (old.get("$defs", {}), new.get("$defs", {}))
    for what, kind in (("events", "event"), ("errors", "error"), ("calls", "call")):
        before, after = old.get(what, {}), new.get(what, {})
        for name in before:
            if name not in after:
                yield Change(api, f"{api}.{name}", f"the {kind} is gone", Level.MAJOR)
        for name in after:
            if name not in before:
                yield Change(api, f"{api}.{name}", f"the {kind} is new", Level.MINOR)
        for name in sorted(before.keys() & after.keys()):
            if what == "calls":
                yield from _call_changes(api, f"{api}.{name}", before[name], after[name], defs)
            else:
                flow: Flow = "event" if what == "events" else "result"
                yield from _changes(api, f"{api}.{name}", flow, (before[name], after[name]), defs)


def _call_changes(api: str, place: str, old: Json, new: Json, defs: tuple[Json, Json]) -> Iterator[Change]:
    yield from _changes(api, place, "arguments", (old["arguments"], new["arguments"]), defs)
    yield from _changes(api, f"{place} -> ", "result", (old["result"], new["result"]), defs)
    for error in sorted(set(old["errors"]) - set(new["errors"])):
        yield Change(api, place, f"it no longer raises {error}", Level.NONE)
    for error in sorted(set(new["errors"]) - set(old["errors"])):
        yield Change(api, place, f"it raises {error} too, which older callers get as RemoteError", Level.MINOR)
    if old.get("idempotent") and not new.get("idempotent"):
        yield Change(api, place, "it is no longer idempotent: callers must not repeat it", Level.MAJOR)


def _changes(api: str, place: str, flow: Flow, pair: tuple[Json, Json], defs: tuple[Json, Json]) -> Iterator[Change]:
    for path, shift in _Walk(defs).differences(*pair):
        where = f"{place}({path})" if flow != "result" else f"{place}{path or 'result'}"
        yield Change(api, where if path or flow == "result" else place, shift.value, _LEVELS[flow][shift])


class _Walk:
    """Two schemas side by side."""

    def __init__(self, defs: tuple[Json, Json]) -> None:
        self._old_defs, self._new_defs = defs
        self._open: set[tuple[str, str]] = set()  # pairs of types being compared, since a type may contain itself

    def differences(self, old: Json, new: Json, path: str = "") -> Iterator[tuple[str, Shift]]:
        if old.get("default", _NOTHING) != new.get("default", _NOTHING):
            yield path, Shift.DEFAULT
        before, after = _forms(old, self._old_defs), _forms(new, self._new_defs)
        if before.keys() == after.keys():
            for key, form in before.items():
                names = (form.get(_NAME, ""), after[key].get(_NAME, ""))
                if names in self._open:
                    continue
                if any(names):
                    self._open.add(names)
                yield from self._same_form(form, after[key], path)
                self._open.discard(names)
        elif _covers(after, before):
            yield path, Shift.WIDENED
        elif _covers(before, after):
            yield path, Shift.NARROWED
        else:
            yield path, Shift.CHANGED

    def _same_form(self, old: Json, new: Json, path: str) -> Iterator[tuple[str, Shift]]:
        values = old.get("enum"), new.get("enum")
        if values[0] is not None and values[1] is not None and set(values[0]) != set(values[1]):
            more, fewer = set(values[1]) - set(values[0]), set(values[0]) - set(values[1])
            yield path, Shift.CHANGED if more and fewer else Shift.WIDENED if more else Shift.NARROWED
        yield from ((path, shift) for shift in _limits(old, new))
        yield from self._properties(old, new, path)
        for keyword, suffix in (("items", "[]"), ("additionalProperties", "{}")):
            inner = old.get(keyword, True), new.get(keyword, True)
            if isinstance(inner[0], dict) and isinstance(inner[1], dict):
                yield from self.differences(inner[0], inner[1], path + suffix)
            elif isinstance(inner[1], dict) and inner[0] is True:
                yield path + suffix, Shift.NARROWED
            elif isinstance(inner[0], dict) and inner[1] is True:
                yield path + suffix, Shift.WIDENED
        places = old.get("prefixItems", []), new.get("prefixItems", [])
        if len(places[0]) != len(places[1]):
            yield path, Shift.CHANGED
        else:
            for number, (one, other) in enumerate(zip(*places, strict=True)):
                yield from self.differences(one, other, f"{path}[{number}]")

    def _properties(self, old: Json, new: Json, path: str) -> Iterator[tuple[str, Shift]]:
        before, after = old.get("properties", {}), new.get("properties", {})
        required = set(old.get("required", ())), set(new.get("required", ()))
        for name in sorted(before.keys() | after.keys()):
            inner = f"{path}.{name}" if path else name
            if name not in after:
                yield inner, Shift.REMOVED
            elif name not in before:
                yield inner, Shift.ADDED_REQUIRED if name in required[1] else Shift.ADDED
            else:
                yield from self.differences(before[name], after[name], inner)
                if (name in required[0]) != (name in required[1]):
                    yield inner, Shift.NARROWED if name in required[1] else Shift.WIDENED


_NOTHING = object()
_NAME = "$name"  #: of a type that was referred to, beside its keywords


def _forms(schema: Json, defs: Json) -> dict[str, Json]:
    """The alternatives of a schema by what tells them apart: their type, and of several objects their name too."""
    schema = _resolved(schema, defs)
    alternatives = [_resolved(one, defs) for one in schema.get("anyOf", [schema])]
    objects = sum(1 for one in alternatives if one.get("type") == "object")
    forms: dict[str, Json] = {}
    for one in alternatives:
        for kind in _kinds(one):
            forms[f"{kind} {one.get('title', '')}" if kind == "object" and objects > 1 else kind] = one
    return forms


def _resolved(schema: Json, defs: Json) -> Json:
    name = schema.get("$ref", "")
    return {**resolve(schema, defs), _NAME: name} if name else schema


def _kinds(schema: Json) -> list[str]:
    kind: Any = schema.get("type")
    if kind is None and "enum" in schema:
        return sorted({"string" if isinstance(value, str) else "integer" for value in schema["enum"]})
    if kind is None:
        return ["anything"]
    return kind if isinstance(kind, list) else [kind]


def _covers(wide: Mapping[str, Json], narrow: Mapping[str, Json]) -> bool:
    kinds = {*wide, *(("integer",) if "number" in wide else ())}
    return "anything" in wide or narrow.keys() <= kinds


def _limits(old: Json, new: Json) -> Iterator[Shift]:
    for keywords, grows in ((_LOWER_BOUNDS, Shift.NARROWED), (_UPPER_BOUNDS, Shift.WIDENED)):
        shrinks = Shift.WIDENED if grows is Shift.NARROWED else Shift.NARROWED
        for keyword in keywords:
            before, after = old.get(keyword), new.get(keyword)
            if before == after:
                continue
            if before is None or after is None:
                yield Shift.NARROWED if before is None else Shift.WIDENED
            else:
                yield grows if after > before else shrinks
    for keyword in _OTHER_LIMITS:
        before, after = old.get(keyword), new.get(keyword)
        if before != after:
            yield Shift.NARROWED if before is None else Shift.WIDENED if after is None else Shift.CHANGED
    if ("enum" in old) != ("enum" in new):
        yield Shift.NARROWED if "enum" in new else Shift.WIDENED
