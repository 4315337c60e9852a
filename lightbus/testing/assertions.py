"""Whether the messages that were sent are those that a test expects, and the text when they are not. Pure."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.message import Route, Wire
from .references import Fields, Reference, name_of

_SHOWN = 10
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message that the code under test has sent.

    Attributes:
        name: as in logs.
        delay_seconds: it is to arrive that much later.
        app: the name of the app that sent it.
    """

    name: str
    wire: Wire
    route: Route
    delay_seconds: float
    app: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What must have been sent.

    Attributes:
        verb: for the text: `fired`, `called` or `sent`.
        times: exactly so often; None for once or more.
        partial: the fields may be fewer than those of the message.
    """

    verb: str
    reference: Reference
    fields: Fields
    times: int | None = None
    partial: bool = False

    def check(self, sent: Sequence[Sent]) -> list[Sent]:
        """Those of `sent` that are meant.

        Raises:
            AssertionError: there are none, or not as many as expected.
        """
        same_kind = [(one, fields) for one in sent if (fields := self.reference.read(one.wire)) is not None]
        matching = [one for one, fields in same_kind if not self._differences(fields)]
        wanted = len(matching) == self.times if self.times is not None else bool(matching)
        if wanted:
            return matching
        call = call_text(self.reference.name, self.fields)
        often = "" if self.times is None else f" {self.times} times, but {len(matching)} times"
        lines = [f"{call} was not {self.verb}{often}"]
        others = [fields for _, fields in same_kind if self._differences(fields)]
        if others:
            nearest = min(others, key=lambda fields: len(self._differences(fields)))
            lines.append(f"the nearest of {len(others)}: {call_text(self.reference.name, nearest)}")
            lines += [f"    {line}" for line in self._differences(nearest)]
        else:
            counts = Counter(one.name for one in sent)
            listed = ", ".join(f"{name} ({count})" for name, count in counts.most_common(_SHOWN))
            lines.append(f"sent were: {listed}" if listed else "nothing was sent")
        raise AssertionError("\n".join(lines))

    def _differences(self, fields: Fields) -> list[str]:
        lines = [
            f"{key}: expected {_repr.repr(value)}, {self.verb} with {_repr.repr(fields[key])}"
            for key, value in self.fields.items()
            if key in fields and value != fields[key]
        ]
        lines += [f"{key}: expected {_repr.repr(self.fields[key])}, not there" for key in self.fields.keys() - fields]
        if not self.partial:
            lines += [f"{key}: not expected, {_repr.repr(fields[key])}" for key in fields.keys() - self.fields]
        return sorted(lines)


def call_text(name: str, fields: Fields) -> str:
    """`shop.orders.placed(order=7)`."""
    return f"{name}({', '.join(f'{key}={_repr.repr(value)}' for key, value in fields.items())})"


def sent_of(wire: Wire, route: Route, delay_seconds: float, app: str) -> Sent:
    return Sent(name=name_of(wire), wire=wire, route=route, delay_seconds=delay_seconds, app=app)
