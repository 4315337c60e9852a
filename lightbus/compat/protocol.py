"""Celery's task message as a value: decoding protocols 2, 1 and their hybrid, encoding protocol 2. Pure.

What is known is checked, because everything behind this file trusts it; what is not known (the headers of the user and
of tracers, further AMQP properties) is kept and sent on. Signatures (`callbacks`, `chain`, ...) stay the JSON objects
that they are on the wire.
"""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timezone, tzinfo
from typing import Annotated, Any

import msgspec

from ..core.errors import DecodeError
from ..core.message import MAX_BODY_BYTES, MAX_COUNT, MAX_NAME_LENGTH, Wire
from ..core.outcome import ATTEMPT_HEADER, BROKER_TRAIL_PREFIXES, DEAD_PREFIX, HISTORY_HEADER, REPEAT_HEADER
from .bodies import read_body
from .compression import compress
from .forwarding import FROM_HEADER, HOPS_HEADER
from .serializers import JSON, encode

SignatureDict = Mapping[str, Any]
Seconds = float | None

#: The headers of protocol 2 that have a field of their own; every other one is the user's, or a tracer's.
CELERY_HEADERS = frozenset(
    {
        "lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id",
        "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers",
        "stamps", "compression",
    }
)  # fmt: skip
#: What a hand-over, a redelivery or a dead letter wrote on the message; a message made from it starts without.
_TRAIL_PREFIXES = (
    *BROKER_TRAIL_PREFIXES, DEAD_PREFIX, ATTEMPT_HEADER, HISTORY_HEADER, REPEAT_HEADER, HOPS_HEADER, FROM_HEADER,
)  # fmt: skip


#: A longer time limit is none: ten years.
MAX_LIMIT_SECONDS = 10 * 366 * 86400.0
#: A level of a canvas, for example a chord in the header of a chord, takes three.
MAX_SIGNATURE_DEPTH = 200


class TaskMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One request to run a task. (A Struct and no dataclass, because 35 frozen fields make one that is slow to fill.)

    Attributes:
        eta: not before that moment, and `expires`: not after it; ISO 8601 text as on the wire. Without an offset the
            moment is in the time zone of the app.
        timelimit: hard and soft limit in seconds, in this order.
        root_id: id of the first task of the flow; None stands for the task's own.
        ignore_result: None leaves it to the task's own setting.
        callbacks, errbacks: signatures to apply after success, after failure.
        chain: the rest of a chain in reverse: the next step is the last.
        chord: signature of the body of the chord whose header the task is part of.
        headers: every header that is not one of Celery's.
        expiration_seconds: the broker may drop the message after that long.
        properties: AMQP properties that have no field here, for example `app_id`.
        compression: of the body when it is written, see `compression`; a message that was read has none.
        serializer: by which the body is written, see `serializers`; "" is JSON, and so of a message that was read.
        utc: protocol 1 only: False says that its moments are in the sender's local time.
    """

    task: str
    id: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    retries: int = 0
    eta: str | None = None
    expires: str | None = None
    timelimit: tuple[Seconds, Seconds] = (None, None)
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    shadow: str | None = None
    origin: str | None = None
    lang: str | None = "py"
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: int = 0
    stamped_headers: tuple[str, ...] | None = None
    stamps: Mapping[str, Any] = {}
    callbacks: tuple[SignatureDict, ...] | None = None
    errbacks: tuple[SignatureDict, ...] | None = None
    chain: tuple[SignatureDict, ...] | None = None
    chord: SignatureDict | None = None
    headers: Mapping[str, object] = {}
    reply_to: str = ""
    correlation_id: str = ""
    priority: int | None = None
    expiration_seconds: float | None = None
    durable: bool = True
    properties: Mapping[str, object] = {}
    utc: bool | None = None
    compression: str = ""
    serializer: str = ""


def is_name(value: object) -> bool:
    """Whether it may be the name or the id of something: text, neither empty nor too long, of whole characters."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_LENGTH and (value.isascii() or _is_whole(value))


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair: no key of a result can hold it
        return False
    return True


def moment(text: str, zone: tzinfo | None) -> float:
    """Unix seconds of an `eta` or `expires`; one without an offset is in `zone` (None: the machine's own).

    Raises:
        ValueError: it is no ISO 8601 moment, or one that no clock shows.
    """
    if text.endswith(("Z", "z")):
        text = text[:-1] + "+00:00"  # Python 3.10 does not read the Z
    found = datetime.fromisoformat(text)
    try:
        return (found if found.tzinfo else found.replace(tzinfo=zone)).timestamp()
    except OverflowError as error:
        raise ValueError(f"{text!r} is out of range") from error


def encode_task(message: TaskMessage) -> Wire:
    """The message in protocol 2, the form that Celery 4 and later write: same headers in the same order, same body.

    Raises:
        ValueError: an argument cannot be written by the message's serializer.
    """
    headers: dict[str, object] = {
        "lang": message.lang,
        "task": message.task,
        "id": message.id,
        "shadow": message.shadow,
        "eta": message.eta,
        "expires": message.expires,
        "group": message.group,
        "group_index": message.group_index,
        "retries": message.retries,
        "timelimit": list(message.timelimit),
        "root_id": message.root_id or message.id,
        "parent_id": message.parent_id,
        "argsrepr": message.argsrepr,
        "kwargsrepr": message.kwargsrepr,
        "origin": message.origin,
        "ignore_result": message.ignore_result,
        "replaced_task_nesting": message.replaced_task_nesting,
        "stamped_headers": None if message.stamped_headers is None else list(message.stamped_headers),
        "stamps": dict(message.stamps),
    }
    embed: dict[str, Any] = {
        "callbacks": message.callbacks,
        "errbacks": message.errbacks,
        "chain": message.chain,
        "chord": message.chord,
    }
    if message.serializer:  # of a pickled chain Celery takes the next step with `pop`, which a tuple has not
        embed = {key: list(value) if isinstance(value, tuple) else value for key, value in embed.items()}
    encoded = encode((message.args, message.kwargs, embed), message.serializer or JSON)
    body = encoded.body
    if message.compression:
        body, headers["compression"] = compress(body, message.compression)
    return Wire(
        body=body,
        content_type=encoded.content_type,
        content_encoding=encoded.content_encoding,
        headers={**headers, **{key: value for key, value in message.headers.items() if key not in headers}},
        correlation_id=message.correlation_id or message.id,
        reply_to=message.reply_to,
        priority=message.priority or 0,  # as kombu writes it
        expiration_seconds=message.expiration_seconds,
        durable=message.durable,
        extra=message.properties,
    )


def decode_task(wire: Wire, max_body_bytes: int = MAX_BODY_BYTES, accept: Collection[str] = (JSON,)) -> TaskMessage:
    """The task message in `wire`: protocol 2, protocol 1 (a dict with everything as body), or their hybrid.

    Raises:
        DecodeError: a header, property or part of the body is not what the protocol says; the text names it.
    """
    payload = read_body(wire, max_body_bytes, accept)
    if "task" in wire.headers and isinstance(payload, (list, tuple)):
        return _from_parts(wire, "header", wire.headers, payload, wire.headers)
    if isinstance(payload, dict):
        if "task" not in payload and "task" not in wire.headers:
            raise DecodeError("neither the headers nor the body have a field 'task': this is no task message")
        parts = [payload.get("args") or [], payload.get("kwargs") or {}, {
            "callbacks": payload.get("callbacks"), "errbacks": payload.get("errbacks"), "chord": payload.get("chord"),
        }]  # fmt: skip
        known = {key: value for key, value in payload.items() if key in CELERY_HEADERS or key in ("taskset", "utc")}
        if known.get("taskset") is not None:
            known["group"] = known["taskset"]  # the older name of the same thing
        # In the hybrid the headers win, as in Celery; in protocol 1 they are all the user's.
        fields = {**known, **wire.headers} if "task" in wire.headers else known
        return _from_parts(wire, "field", fields, parts, wire.headers)
    if "task" not in wire.headers:
        raise DecodeError("there is no header 'task', and the body is no object: this is no task message")
    raise DecodeError(f"the body must be a list [args, kwargs, embed], got {type(payload).__name__}")


_Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]


class _Headers(msgspec.Struct, kw_only=True):
    """The fields of a message that are not in its body, checked. `msgspec.convert` makes it twenty times as quickly
    as `_Fields.headers`, which is asked where that refuses: it says what is wrong, or takes what is merely unusual."""

    task: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_LENGTH)]
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_LENGTH)]
    retries: _Count | None = None
    eta: str | None = None
    expires: str | None = None
    timelimit: list[float | None] | None = None
    root_id: _Name | None = None
    parent_id: _Name | None = None
    group: _Name | None = None
    group_index: Annotated[int, msgspec.Meta(ge=-MAX_COUNT, le=MAX_COUNT)] | None = None
    shadow: _Name | None = None
    origin: str | None = None
    lang: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    ignore_result: bool | None = None
    replaced_task_nesting: _Count | None = None
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None
    utc: bool | None = None


_NO_LIMITS = [None, None]


def _read_headers(what: str, values: Mapping[str, object]) -> _Headers:
    try:
        read = msgspec.convert(values, _Headers)
    except (msgspec.ValidationError, UnicodeError):  # half a surrogate pair is the latter
        return _Fields(what, values).headers()
    names = (read.id, read.task, read.group or "", read.root_id or "", read.parent_id or "", read.shadow or "")
    if not "".join(names).isascii():
        return _Fields(what, values).headers()  # which looks at each character: the keys of results are made of these
    # What a type does not say: whether a text is a moment, and whether a number is one that a clock can wait.
    if read.eta is not None:
        read.eta = _Fields(what, values).moment("eta")
    if read.expires is not None:
        read.expires = _Fields(what, values).moment("expires")
    if read.timelimit is not None and read.timelimit != _NO_LIMITS:
        read.timelimit = list(_Fields(what, values).limits("timelimit"))
    return read


def _from_parts(
    wire: Wire, what: str, values: Mapping[str, object], parts: Sequence[Any], headers: Mapping[str, object]
) -> TaskMessage:
    args, kwargs, embed = _split_body(parts)
    read = _read_headers(what, values)
    hard, soft = read.timelimit or _NO_LIMITS
    return TaskMessage(
        task=read.task,
        id=read.id,
        args=args,
        kwargs=kwargs,
        retries=read.retries or 0,
        eta=read.eta,
        expires=read.expires,
        timelimit=(hard, soft),
        root_id=read.root_id,
        parent_id=read.parent_id,
        group=read.group,
        group_index=read.group_index,
        shadow=read.shadow,
        origin=read.origin,
        lang=read.lang,
        argsrepr=read.argsrepr,
        kwargsrepr=read.kwargsrepr,
        ignore_result=read.ignore_result,
        replaced_task_nesting=read.replaced_task_nesting or 0,
        stamped_headers=None if read.stamped_headers is None else tuple(read.stamped_headers),
        stamps=read.stamps or {},
        callbacks=_signatures(embed, "callbacks"),
        errbacks=_signatures(embed, "errbacks"),
        chain=_signatures(embed, "chain"),
        chord=_signature(embed.get("chord"), "chord"),
        headers=_of_the_user(headers),
        reply_to=wire.reply_to,
        correlation_id=wire.correlation_id,
        priority=wire.priority,
        expiration_seconds=wire.expiration_seconds,
        durable=wire.durable,
        properties=wire.extra,
        utc=read.utc,
    )


def _of_the_user(headers: Mapping[str, object]) -> dict[str, object]:
    if CELERY_HEADERS.issuperset(headers):  # nearly always
        return {}
    return {
        key: value
        for key, value in headers.items()
        if key not in CELERY_HEADERS and not key.startswith(_TRAIL_PREFIXES)
    }


def _split_body(parts: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
    if len(parts) != 3:
        raise DecodeError(f"the body must be a list of three, [args, kwargs, embed], got {len(parts)} parts")
    args, kwargs, embed = parts
    if not isinstance(args, (list, tuple)):  # pickle knows tuples
        raise DecodeError(f"args must be a list, got {_short(args)}")
    if not isinstance(kwargs, dict):
        raise DecodeError(f"kwargs must be an object, got {_short(kwargs)}")
    if embed is not None and not isinstance(embed, dict):
        raise DecodeError(f"the third part of the body must be an object or null, got {_short(embed)}")
    return tuple(args), kwargs, embed or {}


def _signatures(embed: Mapping[str, Any], key: str) -> tuple[SignatureDict, ...] | None:
    value = embed.get(key)
    if value is None:
        return None
    if not isinstance(value, (list, tuple)):
        raise DecodeError(f"{key!r} must be a list of signatures or null, got {_short(value)}")
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


def _signature(value: object, what: str) -> SignatureDict | None:
    if value is None:
        return None
    if isinstance(value, dict):
        _check_depth(value, what)
    return _checked(value, what)


def _checked(value: object, what: str) -> SignatureDict:
    if not isinstance(value, dict) or not isinstance(value.get("task"), str):
        raise DecodeError(f"a signature in {what!r} must be an object with the text field 'task', got {_short(value)}")
    for key, kind, word in (("args", (list, tuple), "list"), ("kwargs", dict, "object"), ("options", dict, "object")):
        if value.get(key) is not None and not isinstance(value[key], kind):
            raise DecodeError(f"the {key} of a signature in {what!r} must be a {word}, got {_short(value[key])}")
    return value


_REPR = reprlib.Repr()  # writes the beginning of a value only, where `repr` writes all of it, however deep and long
_REPR.maxstring = _REPR.maxother = 100


def _short(value: object) -> str:
    return _REPR.repr(value)[:100]


class _Fields:
    """Reads one field after the other, and says which one is wrong."""

    def __init__(self, what: str, values: Mapping[str, object]) -> None:
        self._what = what
        self._values = values

    def headers(self) -> _Headers:
        names = self.names("stamped_headers")
        return _Headers(
            task=self.name("task"),
            id=self.name("id"),
            retries=self.count("retries"),
            eta=self.moment("eta"),
            expires=self.moment("expires"),
            timelimit=list(self.limits("timelimit")),
            root_id=self.text("root_id"),
            parent_id=self.text("parent_id"),
            group=self.text("group"),
            group_index=self.integer("group_index"),
            shadow=self.text("shadow"),
            origin=self.loose_text("origin"),
            lang=self.loose_text("lang"),
            argsrepr=self.loose_text("argsrepr"),
            kwargsrepr=self.loose_text("kwargsrepr"),
            ignore_result=self.boolean("ignore_result"),
            replaced_task_nesting=self.count("replaced_task_nesting"),
            stamped_headers=None if names is None else list(names),
            stamps=self.mapping("stamps"),
            utc=self.boolean("utc"),
        )

    def name(self, key: str) -> str:
        value = self._values.get(key)
        if not is_name(value):
            raise self._wrong(key, f"non-empty text of at most {MAX_NAME_LENGTH} characters", value)
        return str(value)

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        if value is not None and value != "" and not is_name(value):
            raise self._wrong(key, f"text of at most {MAX_NAME_LENGTH} characters or null", value)
        return None if value is None else str(value)

    def loose_text(self, key: str) -> str | None:
        """A field that only logs read: clients in other languages put all sorts of things there."""
        value = self._values.get(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str) -> int | None:
        value = self._values.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise self._wrong(key, "an integer or null", value)
        if value is not None and abs(value) > MAX_COUNT:
            raise self._wrong(key, f"an integer of at most {MAX_COUNT}", value)
        return value

    def count(self, key: str) -> int:
        value = self.integer(key) or 0
        if value < 0:
            raise self._wrong(key, "an integer of 0 or more", value)
        return value

    def boolean(self, key: str) -> bool | None:
        value = self._values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(key, "true, false or null", value)
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        value = self._values.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise self._wrong(key, "an object or null", value)
        return dict(value or {})

    def names(self, key: str) -> tuple[str, ...] | None:
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(one, str) for one in value):
            raise self._wrong(key, "a list of texts or null", value)
        return tuple(value)

    def limits(self, key: str) -> tuple[Seconds, Seconds]:
        value = self._values.get(key)
        if value is None or (isinstance(value, (list, tuple)) and len(value) < 2):
            return None, None
        if not isinstance(value, (list, tuple)) or not all(_is_seconds(one) for one in value[:2]):
            raise self._wrong(key, "a list of two numbers of 0 or more, or nulls, [hard, soft]", value)
        return value[0], value[1]

    def moment(self, key: str) -> str | None:
        value = self._values.get(key)
        if value is None or value == "":
            return None
        if isinstance(value, datetime):  # a client may use AMQP's own type for it
            return value.isoformat()
        if not isinstance(value, str):
            raise self._wrong(key, "an ISO 8601 moment or null", value)
        try:
            moment(value, timezone.utc)
        except ValueError:
            raise self._wrong(key, "an ISO 8601 moment or null", value) from None
        return value

    def _wrong(self, key: str, wanted: str, value: object) -> DecodeError:
        if value is None:
            return DecodeError(f"{self._what} {key!r} is missing; it must be {wanted}")
        return DecodeError(f"{self._what} {key!r} must be {wanted}, got {_short(value)}")


def _is_seconds(value: object) -> bool:
    """Whether a clock can wait for it: a limit below 0 would end the process of a handler before it begins."""
    return value is None or (
        isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= MAX_LIMIT_SECONDS
    )


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
