"""Names and values from a command line to the calls and events of the loaded contracts."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Mapping
from typing import Any, TypeVar, get_type_hints

import click
import msgspec

from ..core.api import Event, Rpc

T = TypeVar("T")


def lookup(name: str, known: Mapping[str, T], what: str) -> T:
    """The one of `known` that `name` names.

    Raises:
        click.UsageError: there is none; says the nearest names.
    """
    if name in known:
        return known[name]
    raise click.UsageError(f"no {what} {name!r}{hint(name, known)}")


def hint(name: str, known: Collection[str]) -> str:
    """The rest of the sentence that says that there is no `name`: what is there."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f": did you mean {near[0]!r}?"
    if not known:
        return ": the app's modules import no API contract; name the module that does with -A"
    return f"; there is {', '.join(sorted(known)[:12])}"


def types_of_call(rpc: Rpc[Any, Any]) -> dict[str, Any]:
    """The declared types of a call's arguments."""
    hints = get_type_hints(rpc.function, localns=dict(vars(rpc.api)) if rpc.api is not None else None)
    return {name: hints.get(name, Any) for name in list(inspect.signature(rpc.function).parameters)[1:]}


def types_of_event(kind: type[Event]) -> dict[str, Any]:
    """The declared types of an event's fields."""
    return {field.name: field.type for field in msgspec.structs.fields(kind)}


def check_names(given: Collection[str], types: Mapping[str, Any], owner: str) -> None:
    """Raises click.UsageError: a name of `given` is not declared."""
    for name in given:
        if name not in types:
            near = difflib.get_close_matches(name, types, n=1)
            known = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(types) or 'none'}"
            raise click.UsageError(f"{owner} has no argument {name!r}: {known}")
