"""Which tasks are revoked, in memory that the processes of a worker share: the control node writes, children read.

Made before the first fork. An id is kept until MOST newer ones have come; so a revoke also holds for a message that
lies delayed in the broker for long. (Celery forgets after 3 hours when others come; others are told of an id for as
long as that.) A child pays for the look only while something is revoked: a search for 16 bytes in what is in use.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b

MOST = 50_000  #: as CELERY_WORKER_REVOKES_MAX; the oldest is forgotten first
TOLD_SECONDS = 10_800.0  #: as CELERY_WORKER_REVOKE_EXPIRES
STAMPS_BYTES = 65_536
VARIABLE = "LIGHTBUS_REVOKES"  #: from a supervisor to the one that it becomes; not for people

_HEADER = struct.Struct("=IIII")  # ids ever added, stamps' version, stamps' length, free
_DIGEST_BYTES = 16
_DIGESTS_AT = 64
_ENTRY = struct.Struct("=dH118s")  # when added on the monotonic clock, length, the id itself
_ENTRIES_AT = _DIGESTS_AT + MOST * _DIGEST_BYTES
_STAMPS_AT = _ENTRIES_AT + MOST * _ENTRY.size
_BYTES = _STAMPS_AT + STAMPS_BYTES
_LONGEST = 118


class Revokes:
    """One writer, any number of readers."""

    def __init__(self) -> None:
        self._file = _inherited()
        if self._file is None and hasattr(os, "memfd_create"):
            self._file = os.memfd_create("lightbus-revokes")  # a file, so that it outlives the exec of a reload
            os.ftruncate(self._file, _BYTES)
        # Pages that nobody touched cost address space only.
        self._memory = mmap.mmap(-1 if self._file is None else self._file, _BYTES)
        self._stamps: tuple[int, dict[str, list[object]]] = (0, {})

    def __bool__(self) -> bool:
        """Whether anything is revoked: all that a message pays while nothing is."""
        return self._memory[:12] != b"\0" * 12

    def add(self, ids: Iterable[str]) -> None:
        """Revoke `ids`; those that are revoked already are not counted twice."""
        for task_id in ids:
            digest = _digest(task_id)
            if self._find(digest) is not None:
                continue
            added, *others = _HEADER.unpack_from(self._memory, 0)
            place = added % MOST
            data = task_id.encode("utf-8", "surrogatepass")
            whole = data if len(data) <= _LONGEST else b""  # a longer one is known by its digest alone
            _ENTRY.pack_into(self._memory, _ENTRIES_AT + place * _ENTRY.size, time.monotonic(), len(whole), whole)
            at = _DIGESTS_AT + place * _DIGEST_BYTES
            self._memory[at : at + _DIGEST_BYTES] = digest
            _HEADER.pack_into(self._memory, 0, added + 1, *others)

    def __contains__(self, task_id: str) -> bool:
        return self._find(_digest(task_id)) is not None

    def ids(self, *, told_only: bool = False) -> list[str]:
        """All ids, oldest first; `told_only`: those that other workers are still told of."""
        added, now = _HEADER.unpack_from(self._memory, 0)[0], time.monotonic()
        found = []
        for number in range(max(0, added - MOST), added):
            since, length, data = _ENTRY.unpack_from(self._memory, _ENTRIES_AT + number % MOST * _ENTRY.size)
            if length and not (told_only and now - since > TOLD_SECONDS):
                found.append(data[:length].decode("utf-8", "surrogatepass"))
        return found

    def add_stamps(self, stamps: Mapping[str, Iterable[object]]) -> None:
        """Revoke what carries one of these values under one of these headers.

        Raises:
            ValueError: all stamps together have become too long.
        """
        known = self.stamps()
        for header, values in stamps.items():
            known[header] = [*known.get(header, []), *(one for one in values if one not in known.get(header, []))]
        data = json.dumps(known).encode()
        if len(data) > STAMPS_BYTES:
            raise ValueError(f"revoked stamps take {len(data)} bytes, {STAMPS_BYTES} are the most")
        added, version, _, free = _HEADER.unpack_from(self._memory, 0)
        _HEADER.pack_into(self._memory, 0, added, version, 0, free)  # nothing to read while it is written
        self._memory[_STAMPS_AT : _STAMPS_AT + len(data)] = data
        _HEADER.pack_into(self._memory, 0, added, version + 1, len(data), free)

    def stamps(self) -> dict[str, list[object]]:
        """Header to revoked values."""
        _, version, length, _ = _HEADER.unpack_from(self._memory, 0)
        if version != self._stamps[0] and length:
            try:
                self._stamps = version, json.loads(self._memory[_STAMPS_AT : _STAMPS_AT + length])
            except ValueError:  # it is being written: what was known holds until the next look
                pass
        return dict(self._stamps[1])

    def covers(self, task_id: str, stamps: Mapping[str, object]) -> bool:
        """Whether a task must not run.

        Args:
            stamps: of its message, header to value or values.
        """
        if task_id in self:
            return True
        if not stamps:
            return False
        return bool(matching(stamps, self.stamps()))

    def keep_over_exec(self) -> None:
        """The process is about to become its own command once more."""
        if self._file is not None:
            os.set_inheritable(self._file, True)
            os.environ[VARIABLE] = f"{os.getpid()}:{self._file}"

    def _find(self, digest: bytes) -> int | None:
        """A search through 16 bytes for each id in use: a microsecond for 1,000, some 50 for MOST."""
        used = min(_HEADER.unpack_from(self._memory, 0)[0], MOST)
        at, end = _DIGESTS_AT, _DIGESTS_AT + used * _DIGEST_BYTES
        while (at := self._memory.find(digest, at, end)) >= 0:
            if (at - _DIGESTS_AT) % _DIGEST_BYTES == 0:
                return at
            at += 1
        return None


def matching(stamps: Mapping[str, object], revoked: Mapping[str, Collection[object]]) -> dict[str, list[object]]:
    """Header to values that are in both."""
    found = {}
    for header, values in revoked.items():
        own = stamps.get(header)
        both = [one for one in (own if isinstance(own, (list, tuple)) else [own]) if one is not None and one in values]
        if both:
            found[header] = both
    return found


def _inherited() -> int | None:
    """The file of the supervisor that this process was before. Read once."""
    pid, _, file = os.environ.pop(VARIABLE, "").partition(":")
    if pid != str(os.getpid()):
        return None
    os.set_inheritable(int(file), False)
    return int(file)


def _digest(task_id: str) -> bytes:
    return blake2b(task_id.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
