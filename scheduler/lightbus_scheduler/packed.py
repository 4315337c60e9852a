"""The progress of an entry in few bytes. As values, those of 100,000 entries that have fired take 17 MB more."""

from __future__ import annotations

import struct
from datetime import datetime, timedelta
from functools import lru_cache

from .entries import Progress
from .kinds import EPOCH

_HEAD = struct.Struct("<BqQQ")  #: what follows, `decided`, `fired`, `skipped`
_MOMENT = struct.Struct("<q")  #: microseconds since the epoch
_LENGTHS = struct.Struct("<HH")  #: of outcome and reason, in bytes; the pause's note goes to the end
_OPTIONAL = ("anchor", "last_slot", "last_at", "queued")
_OVER, _PAUSED, _TEXTS = 0x10, 0x20, 0x40
_LONGEST = 0xFFFF


def pack(progress: Progress) -> bytes:
    """The same bytes for equal values; a reason is cut after 65,535 bytes."""
    what = _OVER * progress.over
    moments = b""
    for number, name in enumerate(_OPTIONAL):
        if (moment := getattr(progress, name)) is not None:
            what |= 1 << number
            moments += _MOMENT.pack(_microseconds(moment))
    texts = b""
    if progress.last_outcome or progress.last_reason or progress.paused is not None:
        what |= _TEXTS
        outcome, reason = progress.last_outcome.encode(), _cut(progress.last_reason)
        texts = _LENGTHS.pack(len(outcome), len(reason)) + outcome + reason
        if progress.paused is not None:
            what |= _PAUSED
            texts += progress.paused.encode(errors="surrogatepass")
    head = _HEAD.pack(what, _microseconds(progress.decided), progress.fired, progress.skipped)
    return _shared(head + moments + texts)


def unpack(packed: bytes) -> Progress:
    """What `pack` was given."""
    what, decided, fired, skipped = _HEAD.unpack_from(packed)
    at = _HEAD.size
    moments: dict[str, datetime] = {}
    for number, name in enumerate(_OPTIONAL):
        if what & 1 << number:
            moments[name] = _moment(_MOMENT.unpack_from(packed, at)[0])
            at += _MOMENT.size
    outcome, reason, paused = "", "", None
    if what & _TEXTS:
        first, second = _LENGTHS.unpack_from(packed, at)
        start = at + _LENGTHS.size
        outcome = packed[start : start + first].decode()
        reason = packed[start + first : start + first + second].decode(errors="surrogatepass")
        if what & _PAUSED:
            paused = packed[start + first + second :].decode(errors="surrogatepass")
    return Progress(
        decided=_moment(decided), fired=fired, skipped=skipped, last_outcome=outcome, last_reason=reason,
        paused=paused, over=bool(what & _OVER), **moments,
    )  # fmt: skip


def _cut(text: str) -> bytes:
    raw = text.encode(errors="surrogatepass")
    return raw if len(raw) <= _LONGEST else raw[:_LONGEST].decode(errors="ignore").encode()


def _microseconds(moment: datetime) -> int:
    since = moment - EPOCH
    return (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds


def _moment(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


@lru_cache(maxsize=1024)
def _shared(packed: bytes) -> bytes:
    """The same object for equal values: many thousand entries may never have fired."""
    return packed
