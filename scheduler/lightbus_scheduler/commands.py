"""What people ask of a schedule at run time. A command is one change of records, and the messages that go with it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, TypeVar

from .book import Book
from .entries import Progress, message_id
from .errors import ScheduleError
from .handover import taken
from .kinds import between
from .plain import Plain, moment_from, plain_progress, progress_from
from .ports import Firing

T = TypeVar("T")

MOST_BACKFILLED = 10_000


def new_command(do: str, entry_id: str, **values: Any) -> dict[str, Any]:
    """A command for the leader; it is carried out once, whatever happens to the leader."""
    return {"do": do, "entry": entry_id, "request": uuid.uuid4().hex, **values}


@dataclass(frozen=True)
class Commands(Generic[T]):
    """Carries out commands on a book; sending and keeping what they give is the caller's.

    Attributes:
        make: the messages of a firing.
    """

    book: Book
    make: Callable[[Firing], Sequence[T]]

    def change(self, command: Plain, entry_id: str, now: datetime) -> tuple[dict[str, Plain | None], list[T]]:
        """Records to keep, and messages to send, for one command.

        Raises:
            ScheduleError: it cannot be carried out.
        """
        action, plan = command.get("do"), self.book.plan
        if action in ("add", "edit"):
            return {entry_id: self._define(command, entry_id, now)}, []
        if action == "take":
            return self._take(command, entry_id, now), []
        if entry_id not in plan:
            raise ScheduleError("entry", entry_id, "one that is there")
        progress = plan.progress(entry_id)
        match action:
            case "pause":
                progress = replace(progress, paused=str(command.get("note") or ""))
            case "resume":
                # what came due in the pause was skipped, up to this moment
                decided = max(progress.decided, now) if progress.paused is not None else progress.decided
                progress = replace(progress, paused=None, decided=decided)
            case "begin":
                if progress.fired or progress.paused is not None:
                    raise ScheduleError("entry", entry_id, "one that has neither fired nor been paused here")
                progress = progress_from(command["progress"])
            case "rewind":
                progress = replace(progress, decided=min(progress.decided, now))
            case "rm":
                if entry_id in self.book.of_code:
                    raise ScheduleError("entry", entry_id, "one that was added to the store; this one is in the code")
                self.book.remove(entry_id)
                return {entry_id: None}, []
            case "trigger":
                kind = f"trigger {command['request']}"
                return {}, list(self.make(self._by_hand(entry_id, now, kind)))
            case "backfill":
                return {}, self._backfill(command, entry_id)
            case _:
                raise ScheduleError("command", str(action), "one of this version")
        plan.set_progress(entry_id, progress)
        return {entry_id: self.book.record(entry_id)}, []

    def _take(self, command: Plain, entry_id: str, now: datetime) -> dict[str, Plain | None]:
        if entry_id not in self.book.plan:  # noted for whoever loads the code that defines it
            begun = taken(command, None, None, now)
            return {} if begun is None else {entry_id: plain_progress(begun)}
        begun = taken(command, self.book.job(entry_id).entry, self.book.plan.progress(entry_id), now)
        if begun is None:
            return {}
        self.book.plan.set_progress(entry_id, begun)
        return {entry_id: self.book.record(entry_id)}

    def _define(self, command: Plain, entry_id: str, now: datetime) -> Plain:
        if entry_id in self.book.of_code:
            raise ScheduleError("entry", entry_id, "an id that the code does not use")
        if entry_id in self.book.plan:
            known = self.book.plan.progress(entry_id)
            progress = replace(known, decided=max(known.decided, now))
        elif (begun := command.get("progress")) is not None:  # what another scheduler has done of it
            progress = progress_from(begun)
        else:
            progress = Progress(decided=now)
        self.book.put(entry_id, command["definition"], progress)
        return self.book.record(entry_id)

    def _backfill(self, command: Plain, entry_id: str) -> list[T]:
        after, until = moment_from(command["after"], "after"), moment_from(command["until"], "until")
        messages: list[T] = []
        for number, slot in enumerate(between(self.book.plan.entry(entry_id).slots, after, until)):
            if number >= MOST_BACKFILLED:
                raise ScheduleError("range", f"{after} to {until}", f"at most {MOST_BACKFILLED} slots at a time")
            messages += self.make(self._by_hand(entry_id, slot, f"backfill {command['request']}"))
        return messages

    def _by_hand(self, entry_id: str, slot: datetime, kind: str) -> Firing:
        return Firing(self.book.job(entry_id), slot, message_id(entry_id, slot, kind), kind)
