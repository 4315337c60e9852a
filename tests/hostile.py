"""Messages that nobody should send, each with what must become of it: for the endpoints and for real workers.

`RUN` among the outcomes says that the handler may run with it: what is unusual is not always wrong.
"""

from __future__ import annotations

import bz2
import dataclasses
import json
import lzma
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import amqp.serialization
import msgspec
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lightbus.compat.protocol import CELERY_HEADERS, TaskMessage, encode_task
from lightbus.core.codec import encode_call, encode_event
from lightbus.core.message import CallMessage, EventMessage, Origin, Wire

RUN = "run"
PARKED = frozenset({"undecodable", "bad-arguments", "unsupported", "unknown-name", "unwritable"})
ANY = PARKED | {RUN}
UNREADABLE = frozenset({"undecodable"})

TASK = "shop.tasks.resize_image"
EVENT, EVENT_QUEUE = "shop.orders.placed", "support.on.keep_order"
CALL, CALL_QUEUE = "support.tickets.of_order", "lightbus.rpc.support.tickets.v1"
REPLIES = "lightbus.reply.test.hostile"
FIRST_ORDER = 1_000_000  #: the order of a hostile event is that and the number of the case
CASE = "case"  #: header that names the case where it can, so that its dead letter is found again

_MISSING = object()
#: Every type that an AMQP header can have, and a few values that only JSON can.
VALUES: Mapping[str, object] = {
    "missing": _MISSING,
    "null": None,
    "true": True,
    "negative": -7,
    "huge": 2**62,
    "float": 1.5,
    "infinite": float("inf"),
    "not a number": float("nan"),
    "empty": "",
    "text": "hostile",
    "control characters": "a\x00b\r\n\x1b[2J",
    "long": "x" * 5000,
    "half a character": "\ud800",
    "bytes": b"\xff\x00",
    "list": [1, [2]],
    "table": {"a": {"b": 1}},
    "timestamp": datetime(2020, 1, 1, tzinfo=timezone.utc),
    "decimal": Decimal("1.5"),
}


@dataclass(frozen=True)
class Hostile:
    """One message and what may become of it.

    Attributes:
        number: unique in its list; the id, order or call of the message is made from it.
        outcomes: `RUN`, or the reasons under which it may be parked.
        properties: AMQP properties by their names, `content_type` and `reply_to` among them.
    """

    name: str
    number: int
    outcomes: frozenset[str]
    body: bytes
    headers: Mapping[str, object]
    properties: Mapping[str, Any] = field(default_factory=dict)

    @property
    def wire(self) -> Wire:
        """As a driver hands it over."""
        return Wire(
            body=self.body,
            headers=self.headers,
            content_type=self.properties.get("content_type", ""),
            content_encoding=self.properties.get("content_encoding", ""),
            reply_to=str(self.properties.get("reply_to", "")),
            correlation_id=self.properties.get("correlation_id", ""),
        )

    @property
    def reads_reply_to(self) -> bool:
        """Whether its result can be sent to `REPLIES`."""
        return self.properties.get("reply_to") == REPLIES

    @property
    def is_json(self) -> bool:
        """Whether JSON has all its headers, as Redis and the embedded broker want it."""
        try:
            json.dumps(dict(self.headers))
        except (TypeError, ValueError):
            return False
        return True

    @property
    def is_amqp(self) -> bool:
        """Whether py-amqp can write it, and RabbitMQ read it: half a character has no UTF-8, an integer of more than
        eight bytes no form, and floats that are not finite close the sender's connection."""
        try:
            amqp.serialization.dumps("F", [dict(self.headers)])
            str(self.properties).encode()
            json.dumps(dict(self.headers), default=str, allow_nan=False)
        except Exception:  # noqa: BLE001 - whatever it raises
            return False
        return True


class _List:
    def __init__(self) -> None:
        self.found: list[Hostile] = []

    def add(self, name: str, outcomes: Iterable[str], wire: Wire, **changes: Any) -> None:
        wire = msgspec.structs.replace(wire, **changes)
        properties = {
            "content_type": wire.content_type,
            "content_encoding": wire.content_encoding,
            "reply_to": wire.reply_to,
            "correlation_id": wire.correlation_id,
        }
        headers = {CASE: name, **wire.headers}
        properties = {key: value for key, value in properties.items() if value}
        self.found.append(Hostile(name, self.next, frozenset(outcomes), wire.body, headers, properties))

    @property
    def next(self) -> int:
        return len(self.found) + 1


def _changed(headers: Mapping[str, object], key: str, value: object) -> dict[str, object]:
    return {name: one for name, one in {**headers, key: value}.items() if one is not _MISSING}


# Tasks


def task(number: int, **fields: Any) -> Wire:
    """A good message; its id is `hostile-<number>`."""
    fields = {"task": TASK, "id": f"hostile-{number}", "args": (1, 16), "reply_to": REPLIES, **fields}
    return encode_task(TaskMessage(**fields))


def nested(levels: int) -> bytes:
    """A body whose chord is the body of a chord, and so on."""
    inside = '{"task":"t","args":[],"kwargs":{"body":'
    return b'[[1,16],{},{"chord":' + (inside * levels + "null" + "}}" * levels).encode() + b"}]"


_BODIES: Mapping[str, tuple[Iterable[str], bytes]] = {
    "a number": (UNREADABLE, b"5"),
    "null": (UNREADABLE, b"null"),
    "a text": (UNREADABLE, b'"text"'),
    "nothing": (UNREADABLE, b""),
    "one byte": (UNREADABLE, b"\x00"),
    "an object": ({"bad-arguments"}, b"{}"),
    "a list of two": (UNREADABLE, b"[[1,16],{}]"),
    "a list of four": (UNREADABLE, b"[[1,16],{},null,null]"),
    "a list as embed": (UNREADABLE, b"[[1,16],{},[]]"),
    "a list as kwargs": (UNREADABLE, b"[[1,16],[],null]"),
    "a text as args": (UNREADABLE, b'["ab",{},null]'),
    "broken JSON": (UNREADABLE, b'[[1,16],{"'),
    "two JSON values": (UNREADABLE, b"[[1,16],{},null][[1,16],{},null]"),
    "bad UTF-8": (UNREADABLE, b'[["\xff\xfe"],{},null]'),
    "a byte order mark": (UNREADABLE, b"\xef\xbb\xbf[[1,16],{},null]"),
    "UTF-16": (UNREADABLE, "[[1,16],{},null]".encode("utf-16")),
    "200,000 levels": (UNREADABLE, b"[" * 200_000 + b"]" * 200_000),
    "10 MB of digits": (UNREADABLE, b"[[" + b"9" * 10_000_000 + b"],{},null]"),
    "an infinite number": (ANY, b"[[1,1e999],{},null]"),
    "NaN": (ANY, b"[[NaN,16],{},null]"),
    "half a character": (ANY, b'[["\\ud800",16],{},null]'),
    "NUL": (ANY, b'[["\\u0000",16],{},null]'),
    "a key twice": ({"bad-arguments"}, b'[[1,16],{"a":1,"a":2},null]'),
    "a uuid that is none": (UNREADABLE, b'[[{"__type__":"uuid","__value__":{"hex":"x"}}],{},null]'),
    "an unknown type": (UNREADABLE, b'[[{"__type__":"os.system","__value__":"ls"}],{},null]'),
    "a list as type": (UNREADABLE, b'[[{"__type__":[],"__value__":1}],{},null]'),
    "too few arguments": ({"bad-arguments"}, b"[[1],{},null]"),
    "a text as callbacks": (UNREADABLE, b'[[1,16],{},{"callbacks":"t"}]'),
    "a number as callback": (UNREADABLE, b'[[1,16],{},{"callbacks":[5]}]'),
    "a callback without a task": (UNREADABLE, b'[[1,16],{},{"callbacks":[{"args":[]}]}]'),
    "a list as options": (UNREADABLE, b'[[1,16],{},{"errbacks":[{"task":"t","options":[]}]}]'),
    "an object as chain": (UNREADABLE, b'[[1,16],{},{"chain":{"task":"t"}}]'),
    "a list in a chain": (UNREADABLE, b'[[1,16],{},{"chain":[["t"]]}]'),
    "a list as chord": (UNREADABLE, b'[[1,16],{},{"chord":[]}]'),
    "a chord without a task": (UNREADABLE, b'[[1,16],{},{"chord":{}}]'),
    "a chord 100 deep": (UNREADABLE, nested(150)),
    "a chord 10,000 deep": (UNREADABLE, nested(10_000)),
    "20 MB": (UNREADABLE, b'[["' + b"a" * 20_000_000 + b'"],{},null]'),
}


def _compressed() -> dict[str, tuple[str, bytes]]:
    large = b'[["' + b"a" * 20_000_000 + b'"],{},null]'
    return {
        "400 MB in zlib": ("application/x-gzip", _bomb(400)),
        "20 MB in bzip2": ("application/x-bz2", bz2.compress(large)),
        "20 MB in xz": ("application/x-lzma", lzma.compress(large, preset=0)),
        "400 MB in zlib in zlib": ("application/x-gzip", zlib.compress(_bomb(400))),
        "no zlib": ("application/x-gzip", b"garbage"),
        "no bzip2": ("application/x-bz2", b"garbage"),
        "no xz": ("application/x-lzma", b"garbage"),
        "no zstd": ("application/zstd", b"garbage"),
        "zlib that is cut off": ("application/x-gzip", zlib.compress(b"[[1,16],{},null]")[:-4]),
        "an unknown compression": ("application/x-unknown", b"garbage"),
    }


def _bomb(megabytes: int) -> bytes:
    """A body with one text of that length, in a few hundred kilobytes."""
    compressor = zlib.compressobj(1)
    parts = [compressor.compress(b'[["'), *(compressor.compress(b"a" * 10**6) for _ in range(megabytes))]
    return b"".join([*parts, compressor.compress(b'"],{},null]'), compressor.flush()])


def tasks() -> list[Hostile]:
    """For the queue that serves `TASK`."""
    listed = _List()
    for name, (outcomes, body) in _BODIES.items():
        listed.add(f"body: {name}", outcomes, task(listed.next), body=body)
    for name, (compression, body) in _compressed().items():
        wire = task(listed.next)
        listed.add(
            f"compressed: {name}", UNREADABLE, wire, body=body, headers={**wire.headers, "compression": compression}
        )
    for kind in (
        "application/x-python-serialize",
        "application/x-yaml",
        "text/plain",
        "application/x-unknown",
        "x" * 200,
    ):
        listed.add(f"content type {kind:.40}", UNREADABLE, task(listed.next), content_type=kind)
    listed.add("no content type", UNREADABLE, task(listed.next), content_type="")
    for encoding in ("utf-99", "utf-16", "x" * 200):
        listed.add(f"content encoding {encoding:.20}", UNREADABLE, task(listed.next), content_encoding=encoding)
    for limit in ([3], [3, "x"], [-1, None], [None, -1], [2**60, None], "xx", [True, None]):
        wire = task(listed.next)
        outcomes = {RUN} if limit == [3] else UNREADABLE
        listed.add(f"time limit {limit}", outcomes, wire, headers={**wire.headers, "timelimit": limit})
    listed.add("no headers at all", UNREADABLE, task(listed.next), headers={})
    for target in ("shop", "lightbus.dead", "support.on.keep_order", "5", "lightbus.rpc.support.tickets.v1"):
        listed.add(f"reply to {target}", {RUN}, task(listed.next), reply_to=target)
    for key in sorted(CELERY_HEADERS):
        for label, value in VALUES.items():
            wire = task(listed.next)
            value = f"{value}-{listed.next}" if (key, label) == ("id", "text") else value
            listed.add(f"header {key}: {label}", ANY, wire, headers=_changed(wire.headers, key, value))
    return listed.found


# Events and calls

_NATIVE_BODIES: Mapping[str, bytes] = {
    "a number": b"5",
    "nothing": b"",
    "broken JSON": b'{"order": ',
    "bad UTF-8": b'{"order": "\xff"}',
    "200,000 levels": b"[" * 200_000,
    "10 MB of digits": b'{"order": ' + b"9" * 10_000_000 + b"}",
    "a field of a wrong type": b'{"order": "seven"}',
    "half a character": b'{"order": "\\ud800"}',
}
_NATIVE_HEADERS = (
    "cloudEvents_specversion", "cloudEvents_id", "cloudEvents_source", "cloudEvents_type", "cloudEvents_time",
    "cloudEvents_correlationid", "cloudEvents_causationid", "lightbus_kind", "lightbus_version", "traceparent",
)  # fmt: skip
_VERSIONS = ("1", "1.", "-1.0", "1.\u00b2", "9" * 5000 + ".0", "1.0.0")


def event(number: int) -> Wire:
    """A good one, of the order `number`."""
    payload = json.dumps({"order": number, "email": "customer@example.org", "cents": 1}).encode()
    origin = Origin(id=f"hostile-{number}", source="shop", sent_at=1_800_000_000.0)
    return encode_event(EventMessage(origin=origin, name=EVENT, version="1.0", payload=payload))


def events() -> list[Hostile]:
    """For the queue of a listener to `EVENT`; the order is 1,000,000 and the case's number."""
    return _native(lambda number: event(FIRST_ORDER + number), ("lightbus_attempt",), "bad-arguments")


def call(number: int) -> Wire:
    """A good one, with the id `call-<number>`."""
    origin = Origin(id=f"call-{number}", source="shop", sent_at=1_800_000_000.0)
    message = CallMessage(
        origin=origin, name=CALL, version="1.0", payload=b'{"order": 1}', reply_to=REPLIES, deadline=4_000_000_000.0
    )
    # A call expires in its queue by its deadline; 70 years are more than a broker's timer takes.
    return msgspec.structs.replace(encode_call(message, now=0.0), expiration_seconds=None)


def calls() -> list[Hostile]:
    """For the queue that serves `CALL`. What can be read and is wrong is answered, which is `RUN` here."""
    listed = _native(call, ("lightbus_deadline",), RUN)
    for target in ("shop", "lightbus.shop", "lightbus.dead", CALL_QUEUE, "x" * 255):
        wire = msgspec.structs.replace(call(len(listed) + 1), reply_to=target)
        more = _List()
        more.found = listed
        more.add(f"reply to {target:.40}", UNREADABLE, wire)
    return listed


def _native(make: Any, headers: tuple[str, ...], wrong_payload: str) -> list[Hostile]:
    listed = _List()
    for name, body in _NATIVE_BODIES.items():
        listed.add(f"body: {name}", {wrong_payload}, make(listed.next), body=body)
    listed.add("body: 20 MB", UNREADABLE, make(listed.next), body=b" " * 20_000_000)
    for kind in ("", "text/plain", "application/x-python-serialize"):
        listed.add(f"content type {kind!r}", UNREADABLE, make(listed.next), content_type=kind)
    listed.add("no headers at all", UNREADABLE, make(listed.next), headers={})
    for version in _VERSIONS:
        wire = make(listed.next)
        listed.add(f"version {version:.20}", UNREADABLE, wire, headers={**wire.headers, "lightbus_version": version})
    for key in (*_NATIVE_HEADERS, *headers):
        for label, value in VALUES.items():
            wire = make(listed.next)
            listed.add(f"header {key}: {label}", ANY, wire, headers=_changed(wire.headers, key, value))
    return listed.found


# What nobody thought of

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=8) | st.datetimes() | st.decimals()
    | st.text(st.characters(), max_size=12)
)  # fmt: skip
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.just("task"), inner, max_size=3)
    ),
    max_leaves=8,
)
embeds = st.dictionaries(st.sampled_from(["callbacks", "errbacks", "chain", "chord"]), json_values, max_size=4)
bodies = st.binary(max_size=40) | st.one_of(
    json_values,
    st.tuples(st.just([1, 16]), st.just({}), embeds),
    st.tuples(json_values, json_values, json_values),
).map(lambda value: json.dumps(value).encode())


@st.composite
def spoilt(draw: st.DrawFn, good: Wire) -> Wire:
    """`good` with another body, or some other headers, or both."""
    names = st.sampled_from([*good.headers, "compression", "lightbus_attempt", "x-lightbus-hops", "stamps"])
    changed = draw(st.dictionaries(names | st.text(max_size=6), values, max_size=4))
    return Wire(
        body=draw(st.just(good.body) | bodies),
        headers={**good.headers, **changed},
        content_type=draw(st.sampled_from([good.content_type, good.content_type, "", "text/plain"])),
        content_encoding=draw(st.sampled_from([good.content_encoding, "", "binary", "utf-16"])),
        reply_to=draw(st.sampled_from([good.reply_to, "", "shop"])),
        correlation_id=draw(st.just(good.correlation_id) | st.text(max_size=8)),
    )


def drawn(kind: str, count: int) -> list[Hostile]:
    """Always the same `count` messages of the kind `task`, `event` or `call` that Hypothesis makes from a good one."""
    make = {"task": task, "event": lambda number: event(FIRST_ORDER + number), "call": call}[kind]
    found: list[Hostile] = []

    @settings(max_examples=count, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        number = 100_000 + len(found)
        wire = msgspec.structs.replace(data.draw(spoilt(make(number))), reply_to=REPLIES)
        found.append(as_case(wire, f"drawn {number}", number))

    draw()
    return found


def as_case(wire: Wire, name: str = "good", number: int = 0) -> Hostile:
    """`wire` as a client without Lightbus would write it."""
    listed = _List()
    listed.add(name, ANY, wire)
    return dataclasses.replace(listed.found[0], number=number)
