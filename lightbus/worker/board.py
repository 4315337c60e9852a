"""The board: what each process runs at the moment, in memory that it shares with its supervisor.

It is made before the first fork. A process writes a cell when a handler begins and frees it at the end; the supervisor
reads what the process ran when it dies, and what runs over its limit while it lives. The other way the supervisor
leaves marks: which messages took processes down. So a count survives the process that it is about, and processes that
run already see it.

Bounded: a process has a cell for each of its threads, and COROUTINE_CELLS for coroutines. Of coroutines beyond that
number nothing is written down: when the process dies, those that are acknowledged late come back, flagged, but are not
counted; those that were acknowledged early are gone without a word.

Layout of a cell (CELL_BYTES): a word of sequence number and state, then the run. The word is written last at the
beginning of a run and alone at its end, so a reader that finds the same word before and after has read one run.
"""

from __future__ import annotations

import itertools
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from ..endpoint import Invocation
from ..ports import Delivery

CELL_BYTES = 512
COROUTINE_CELLS = 64
REMAINS_BYTES = 4096  #: beside each cell, for `Invocation.remains`; in an area of its own, seldom touched
MARKS = 1024  #: messages that are remembered; the oldest is forgotten first
_FREE, _RUNS = 0, 1
_WORD = struct.Struct("=II")  # sequence, state
_RUN = struct.Struct("=ddIHHBx256s128s80s")  # started, deadline, attempt, lengths (identity, remains), early, texts
_SECONDS = struct.Struct("=d")
_RUN_AT = _WORD.size
_DEADLINE_AT = _RUN_AT + _SECONDS.size
_IDENTITY_AT = _RUN_AT + struct.calcsize("=ddIHHBx")
_HEADER = struct.Struct("=dIIQ")  # of a place: when to kill its process, messages that wait, free, those handled
_WAITING = struct.Struct("=I")
_COUNT = struct.Struct("=Q")
_HANDLED_AT = 16
_HEADER_BYTES = 64
_MARK = struct.Struct("=16sHH12x")  # digest, crashes, whether the time limit was hit
_TEXT_BYTES = (256, 128, 80)  # identity, name, reply_to: as in _RUN
assert _RUN_AT + _RUN.size <= CELL_BYTES


def identity_of(queue: str, message_id: str, attempt: int) -> bytes:
    """One try of one message, as the board knows it. A retry is another one."""
    return f"{attempt}\0{queue}\0{message_id}".encode("utf-8", "backslashreplace")[: _TEXT_BYTES[0]]


@dataclass(frozen=True, slots=True)
class Running:
    """One run, as read from the board.

    Attributes:
        deadline: `time.monotonic()` of its hard limit; infinity without.
        ack_early: its message was acknowledged before.
        remains: `Invocation.remains`.
        complete: the message's id stood whole in the cell.
    """

    cell: int
    sequence: int
    identity: bytes
    name: str
    reply_to: str
    attempt: int
    started: float
    deadline: float
    ack_early: bool
    remains: bytes = b""

    @property
    def complete(self) -> bool:
        return len(self.identity) < _TEXT_BYTES[0]

    @property
    def queue(self) -> str:
        return self._parts()[1]

    @property
    def message_id(self) -> str:
        return self._parts()[2]

    def _parts(self) -> list[str]:
        return [*self.identity.decode("utf-8", "replace").split("\0", 2), "", ""]


@dataclass(frozen=True, slots=True)
class Mark:
    """What is remembered of a message.

    Attributes:
        crashes: processes that died under it.
        over_time: the last one was killed because it ran over its hard limit.
    """

    crashes: int
    over_time: bool


class Board:
    """The supervisor's view.

    Args:
        places: processes that may live at a time, those that are ending included.
        threads: of each process.
    """

    def __init__(self, places: int, threads: int) -> None:
        self.places = places
        self.threads = threads
        self._cells = threads + COROUTINE_CELLS
        self._place_bytes = _HEADER_BYTES + self._cells * CELL_BYTES
        self._marks_bytes = MARKS * _MARK.size
        # Anonymous and shared (the default of mmap): forked children write to the same pages. Untouched ones cost
        # address space only.
        self._cells_end = self._marks_bytes + places * self._place_bytes
        self._memory = mmap.mmap(-1, self._cells_end + places * self._cells * REMAINS_BYTES)
        self._marked: dict[bytes, int] = {}  # digest to index, oldest first

    def place(self, number: int) -> Place:
        """The part that the process in place `number` writes."""
        start = self._marks_bytes + number * self._place_bytes
        remains = self._cells_end + number * self._cells * REMAINS_BYTES
        return Place(self._memory, Area(start, remains, self._marks_bytes, self._cells_end), self.threads)

    def clear(self, number: int) -> None:
        """Make a place ready for another process."""
        start = self._marks_bytes + number * self._place_bytes
        _HEADER.pack_into(self._memory, start, 0.0, 0, 0, 0)
        for cell in range(self._cells):
            at = start + _HEADER_BYTES + cell * CELL_BYTES
            if _WORD.unpack_from(self._memory, at)[1] != _FREE:
                _WORD.pack_into(self._memory, at, 0, _FREE)

    def mark(self, identity: bytes, mark: Mark) -> None:
        """Let all processes know of a message, those too that run already."""
        digest = _digest(identity)
        index = self._marked.pop(digest, None)
        if index is None:
            full = len(self._marked) >= MARKS
            index = self._marked.pop(next(iter(self._marked))) if full else len(self._marked)
        self._marked[digest] = index
        _MARK.pack_into(self._memory, index * _MARK.size, digest, mark.crashes, mark.over_time)

    def marked(self, identity: bytes) -> Mark:
        """What is remembered of a message."""
        return _find_mark(self._memory, self._marks_bytes, identity)


class Area(NamedTuple):
    """Where in the memory a place begins, where its remains do, and where all marks and all cells end."""

    start: int
    remains: int
    marks_end: int
    cells_end: int


class Place:
    """The part of the board that belongs to one process. Its methods are called from that process's threads."""

    def __init__(self, memory: mmap.mmap, area: Area, threads: int) -> None:
        self._memory = memory
        self._area = area
        first = area.start + _HEADER_BYTES
        self._first = first
        self._offsets = [first + number * CELL_BYTES for number in range(threads + COROUTINE_CELLS)]
        self._free_threads = self._offsets[:threads]
        self._free_coroutines = self._offsets[threads:]
        self._threads = threads
        self._place_bytes = _HEADER_BYTES + len(self._offsets) * CELL_BYTES
        self._first_coroutine = first + threads * CELL_BYTES
        self._sequence = itertools.count(1)

    @staticmethod
    def alone(threads: int) -> Place:
        """For a process without a supervisor: nobody reads it."""
        return Board(1, threads).place(0)

    def begin(
        self, delivery: Delivery, invocation: Invocation, started: float, deadline: float, *, is_coroutine: bool
    ) -> int:
        """Write a run down; the number to `end` it with, 0 when there is no cell left for coroutines.

        Args:
            started: `time.monotonic()`, as for `deadline`, where infinity is no limit.
        """
        free = self._free_coroutines if is_coroutine else self._free_threads
        try:
            at = free.pop()  # one bytecode of list: safe between threads
        except IndexError:
            return 0
        memory = self._memory
        identity = identity_of(delivery.queue, invocation.id, invocation.attempt)
        name = invocation.name.encode("utf-8", "backslashreplace")
        where = delivery.wire.reply_to.encode("utf-8", "backslashreplace")
        if len(where) > _TEXT_BYTES[2]:
            where = b""  # cut off it would be another queue's name
        remains = invocation.remains
        if remains and len(remains) <= REMAINS_BYTES:
            start = self._remains_of(at)
            memory[start : start + len(remains)] = remains
        else:
            remains = b""
        _RUN.pack_into(
            memory, at + _RUN_AT, started, deadline, invocation.attempt & 0xFFFFFFFF, len(identity), len(remains),
            invocation.ack_early, identity, name, where,
        )  # fmt: skip
        _WORD.pack_into(memory, at, next(self._sequence) & 0xFFFFFFFF, _RUNS)
        return at

    def without_limit(self, at: int) -> None:
        """The handler has come to its end in time; what follows has no limit."""
        if at:
            _SECONDS.pack_into(self._memory, at + _DEADLINE_AT, float("inf"))

    def end(self, at: int) -> None:
        """Free the cell that `begin` gave."""
        if at:
            _WORD.pack_into(self._memory, at, 0, _FREE)
            (self._free_coroutines if at >= self._first_coroutine else self._free_threads).append(at)

    def running(self) -> Iterator[Running]:
        """All that runs and has a cell."""
        for number, at in enumerate(self._offsets):
            word = _WORD.unpack_from(self._memory, at)
            if word[1] != _RUNS:
                continue
            started, deadline, attempt, length, left, early, identity, name, reply_to = _RUN.unpack_from(
                self._memory, at + _RUN_AT
            )
            start = self._remains_of(at)
            remains = self._memory[start : start + left] if left else b""
            if _WORD.unpack_from(self._memory, at) == word:
                texts = (identity[:length], _text(name), _text(reply_to))
                yield Running(number, word[0], *texts, attempt, started, deadline, bool(early), remains)

    def busy(self) -> int:
        """Threads that run a handler."""
        return sum(_WORD.unpack_from(self._memory, at)[1] == _RUNS for at in self._offsets[: self._threads])

    @property
    def waiting(self) -> int:
        """Messages that wait for a slot, as the process last said."""
        return int(_HEADER.unpack_from(self._memory, self._area.start)[1])

    @waiting.setter
    def waiting(self, count: int) -> None:
        _WAITING.pack_into(self._memory, self._area.start + _SECONDS.size, min(count, 0xFFFFFFFF))

    @property
    def handled(self) -> int:
        """Messages that the process has handled, as it last said."""
        return int(_HEADER.unpack_from(self._memory, self._area.start)[3])

    @handled.setter
    def handled(self, count: int) -> None:
        _COUNT.pack_into(self._memory, self._area.start + _HANDLED_AT, count)

    @property
    def kill_at(self) -> float:
        """`time.monotonic()` by which the process wants to have ended; 0.0 while it does not."""
        return float(_HEADER.unpack_from(self._memory, self._area.start)[0])

    @kill_at.setter
    def kill_at(self, moment: float) -> None:
        _SECONDS.pack_into(self._memory, self._area.start, moment)

    def is_running(self, identity: bytes) -> bool:
        """A process runs that message, or died under it and the supervisor has not accounted for it yet.

        A search through the whole board (some 50 microseconds), and only for messages that come back.
        """
        at, marks_end, cells_end = self._area.marks_end, self._area.marks_end, self._area.cells_end
        while (at := self._memory.find(identity, at, cells_end)) >= 0:
            cell = at - _IDENTITY_AT
            in_place = (cell - marks_end) % self._place_bytes - _HEADER_BYTES
            if in_place >= 0 and in_place % CELL_BYTES == 0 and _WORD.unpack_from(self._memory, cell)[1] == _RUNS:
                return True
            at += 1
        return False

    def marked(self, identity: bytes) -> Mark:
        """What the supervisor remembers of a message."""
        return _find_mark(self._memory, self._area.marks_end, identity)

    def _remains_of(self, at: int) -> int:
        return self._area.remains + (at - self._first) // CELL_BYTES * REMAINS_BYTES


def _find_mark(memory: mmap.mmap, marks_end: int, identity: bytes) -> Mark:
    """A search through 32 KiB (some microseconds), and only for messages that come back."""
    digest, at = _digest(identity), 0
    while (at := memory.find(digest, at, marks_end)) >= 0:
        if at % _MARK.size == 0:
            _, crashes, over_time = _MARK.unpack_from(memory, at)
            return Mark(crashes, bool(over_time))
        at += 1
    return Mark(0, False)


def _digest(identity: bytes) -> bytes:
    return blake2b(identity, digest_size=16).digest()


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("utf-8", "replace")
