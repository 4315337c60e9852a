"""Celery's task message as a value: decoding protocols 2, 1 and their hybrid, encoding protocol 2. Pure.

What is known is checked, because everything behind this file trusts it; what is not known (the headers of the user and
of tracers, further AMQP properties) is kept and sent on. Signatures (`callbacks`, `chain`, ...) stay the JSON objects
that they are on the wire.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from ..core.errors import DecodeError
from ..core.message import MAX_BODY_BYTES, Wire
from ..core.outcome import ATTEMPT_HEADER, BROKER_TRAIL_PREFIXES, DEAD_PREFIX, HISTORY_HEADER, REPEAT_HEADER
from .bodies import read_body
from .compression import compress
from .embedded import SignatureDict, signature_in, signatures_in
from .fields import NO_LIMITS, Seconds, read_headers, short
from .forwarding import FROM_HEADER, HOPS_HEADER
from .serializers import JSON, encode

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


def _from_parts(
    wire: Wire, what: str, values: Mapping[str, object], parts: Sequence[Any], headers: Mapping[str, object]
) -> TaskMessage:
    args, kwargs, embed = _split_body(parts)
    read = read_headers(what, values)
    hard, soft = read.timelimit or NO_LIMITS
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
        callbacks=signatures_in(embed, "callbacks"),
        errbacks=signatures_in(embed, "errbacks"),
        chain=signatures_in(embed, "chain"),
        chord=signature_in(embed.get("chord"), "chord"),
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
        raise DecodeError(f"args must be a list, got {short(args)}")
    if not isinstance(kwargs, dict):
        raise DecodeError(f"kwargs must be an object, got {short(kwargs)}")
    if embed is not None and not isinstance(embed, dict):
        raise DecodeError(f"the third part of the body must be an object or null, got {short(embed)}")
    return tuple(args), kwargs, embed or {}
