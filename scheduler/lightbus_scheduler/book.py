"""All entries, those of the code and those that are kept, with their progress: what a leader has to know.

A kept entry stands here as the text of its definition and is read when it is due. Read once and held, 100,000 of them
with what they fire would take several times the room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

from .entries import Entry, Progress
from .errors import ScheduleError
from .plain import Plain, plain_progress
from .plan import Plan
from .ports import DefinitionText, Job

_READ = 4096  #: jobs that are not read again when they come due again soon


class Book:
    """The jobs by the ids of their entries, and the plan of when they are due.

    Args:
        jobs: those that code and files define.
        job_of: the job that a kept definition tells; raises ValueError when it cannot.
        text: how a definition is written, and read again.
    """

    def __init__(self, jobs: Iterable[Job], job_of: Callable[[Plain], Job], text: DefinitionText) -> None:
        self.of_code = {job.entry.id: job for job in jobs}
        self._text = text
        self._job_of = job_of
        self._overlapping: set[str] = set()

        @lru_cache(maxsize=_READ)
        def read(text: bytes) -> Job:
            return job_of(self._text.decode(text))

        self._read = read
        self.plan = Plan(lambda text: read(text).entry)

    @property
    def looks_at_ends(self) -> bool:
        """Whether the rule of some entry asks if its last firing has ended."""
        return bool(self._overlapping)

    def job(self, entry_id: str) -> Job:
        """The job, as code or the kept definition tells it."""
        given = self.plan.given(entry_id)
        return self._read(given) if isinstance(given, bytes) else self.of_code[entry_id]

    def record(self, entry_id: str) -> Plain:
        """What is to be kept of an entry: its progress, and its definition if no code holds it."""
        given, progress = self.plan.given(entry_id), plain_progress(self.plan.progress(entry_id))
        return {**progress, "definition": self._text.decode(given)} if isinstance(given, bytes) else progress

    def put(self, entry_id: str, definition: Plain | None, progress: Progress) -> Progress:
        """Add or replace an entry.

        Nothing is done when it stands here as it is: a take-over after a short absence has little to do.

        Args:
            definition: of a kept entry; None for one of the code.

        Returns:
            Its progress, with an anchor if it needs one.

        Raises:
            ValueError: the definition cannot be used, or is one of another entry.
        """
        given: Entry | bytes
        if definition is None:
            given = self.of_code[entry_id].entry
        else:
            given = self._text.encode(definition)
        if self.plan.holds(entry_id, given, progress):
            return progress
        if not isinstance(given, bytes):
            return self._put(given, progress, None)
        entry = self._job_of(definition or {}).entry
        if entry.id != entry_id:
            raise ScheduleError("id of a stored entry", entry.id, entry_id)
        return self._put(entry, progress, given)

    def _put(self, entry: Entry, progress: Progress, text: bytes | None) -> Progress:
        (self._overlapping.discard if entry.overlap == "allow" else self._overlapping.add)(entry.id)
        return self.plan.put(entry, progress, text)

    def remove(self, entry_id: str) -> None:
        self._overlapping.discard(entry_id)
        self.plan.remove(entry_id)
