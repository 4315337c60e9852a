"""The loop's one step: lead, decide, record and send in one go, and say how long to wait.

Knows no broker. The store does what must happen at one moment (am I still the leader, note the decision, send the
message), `make` turns a firing into messages, the clock tells the time. Whoever calls `step` again and again has a
scheduler; several processes that do so on one store are one scheduler that survives the death of any of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from .book import Book
from .commands import Commands
from .entries import Decision, Progress
from .plain import Plain, progress_from
from .ports import Clock, DefinitionText, Firing, Job, StandardJson, Store

T = TypeVar("T")

STANDBY_SECONDS = 0.2  #: between two looks whether the leader is gone
RETRY_SECONDS = 0.3  #: after the store could not be reached
LONGEST_SECONDS = 0.3  #: a leader shows itself at least that often
JUMP_SECONDS = 1.0  #: wall clock and monotonic clock differ by more: somebody has set the clock
ASLEEP_SECONDS = 60.0  #: a step that comes that late: this process stood still, and nobody watched
FORGET_AFTER = timedelta(days=7)  #: the progress of an entry that is defined no more
BATCH = 500
KEEP_UP_SECONDS = 0.2  #: of reading, between two looks whether this process still leads
_LOOK_AFTER = 50  #: entries read: looking at the clock for each is a part of the work that shows

logger = logging.getLogger("lightbus.beat")


@dataclass
class Runner(Generic[T]):
    """One process's part in the scheduler.

    Attributes:
        jobs: those that code and files define.
        make: the messages of a firing; what it raises skips that slot, with the error as the reason.
        job_of: the job that a stored definition tells; raises ValueError when it cannot.
        away: exceptions of the store that mean "not now".
        may_run: whether the message of that id may still be waiting or being handled; False only when it surely is
            not. Asked for entries with an overlap rule, until `note_ends` tells.
        seeds: for entries without a record: what another scheduler has done of them.
        on_firing: told of each firing that was sent, with its lateness in seconds.
        text: reads and writes the definitions of stored entries; a quick one halves the time of a take-over.
    """

    jobs: Iterable[Job]
    store: Store[T]
    make: Callable[[Firing], Sequence[T]]
    clock: Clock
    job_of: Callable[[Plain], Job]
    away: tuple[type[Exception], ...]
    may_run: Callable[[Job, str], bool] = lambda job, message_id: True
    seeds: Mapping[str, Progress] = field(default_factory=dict)
    on_firing: Callable[[Firing, float], None] = lambda firing, late: None
    text: DefinitionText = field(default_factory=StandardJson)

    def __post_init__(self) -> None:
        self._book = Book(self.jobs, self.job_of, self.text)
        self._plan = self._book.plan
        self._commands = Commands(self._book, self.make)
        self._term = ""
        self._now = self._watched_since = self.clock.now()
        self._monotonic = self.clock.monotonic()
        self._reported = ""
        self._limit = BATCH

    def step(self) -> float:
        """Do what is due. Returns for how many seconds there is nothing to do; to be called again by then.

        Raises:
            Exception: what `Store.load` raises when the state cannot be read.
        """
        now = self._look_at_clocks()
        try:
            term = self.store.lead()
            if not term:
                self._follow()
                return STANDBY_SECONDS
            if term != self._term:
                self._term = ""
                if not self._take_over(now, term):
                    return RETRY_SECONDS
                self._term = term
            busy = bool(self._carry_out(now))
            busy |= self._fire(now)
        except self.away as error:
            self._report(f"cannot reach the store, what is due waits: {error}")
            self.stop()
            return RETRY_SECONDS
        self._report("")
        return 0.0 if busy else self._idle_seconds()

    def stop(self) -> None:
        """Let another process lead."""
        self._term = ""
        self.store.resign()

    @property
    def leading(self) -> bool:
        """Whether this process led when it looked last."""
        return bool(self._term)

    @property
    def looks_at_ends(self) -> bool:
        """Whether this process leads entries of which `note_ends` wants to know."""
        return self.leading and self._book.looks_at_ends

    def note_ends(self, ends: Iterable[tuple[str, str]]) -> bool:
        """Note that messages, by the ids of their entry and their own, have been handled to their end.

        Returns:
            False when they have to be told again, to whoever leads then.
        """
        before: dict[str, Progress] = {}
        for entry_id, message in ends:
            if entry_id in self._plan and (known := self._plan.progress(entry_id)).last_id(entry_id) == message:
                before[entry_id] = known
        if not before:
            return True
        for entry_id, known in before.items():
            self._plan.set_progress(entry_id, replace(known, over=True))
        try:
            self._commit({entry_id: self._book.record(entry_id) for entry_id in before}, (), (), before)
        except self.away as error:
            self._report(f"cannot reach the store, what is due waits: {error}")
            self.stop()
            return False
        return True

    def carry_out_commands(self) -> list[str] | None:
        """Lead for a moment and do what was asked for, firing nothing that is due.

        Returns:
            The requests that were done; None while another process leads, which will do them.
        """
        now = self._look_at_clocks()
        term = self.store.lead()
        if term != self._term:
            self._term = term if term and self._take_over(now, term) else ""
        return self._carry_out(now) if self._term else None

    # -- inside ------------------------------------------------------------------------------------------------------

    def _look_at_clocks(self) -> datetime:
        now, monotonic = self.clock.now(), self.clock.monotonic()
        passed = monotonic - self._monotonic
        jump = (now - self._now).total_seconds() - passed
        if abs(jump) > JUMP_SECONDS:
            logger.warning("the clock jumped by %+.1f s, to %s", jump, now.isoformat(timespec="seconds"))
        if jump > JUMP_SECONDS or passed > ASLEEP_SECONDS:
            self._watched_since = now
        self._now, self._monotonic = now, monotonic
        return now

    def _idle_seconds(self) -> float:
        due = self._plan.next_due()
        wait = LONGEST_SECONDS if due is None else (due - self.clock.now()).total_seconds()
        if wait <= 0 and (due is None or due <= self._now):
            wait = 0.05  # it was looked at and could not be decided yet: a queued slot is in its way
        return min(max(wait, 0.0), LONGEST_SECONDS)

    def _report(self, text: str) -> None:
        """Say a trouble once, and that it is over."""
        if text and not self._reported:
            logger.warning("%s", text)
        elif self._reported and not text:
            logger.info("the store is back")
        self._reported = text

    def _follow(self) -> None:
        if self._term:
            logger.warning("another process leads now")
        self._term = ""

    def _take_over(self, now: datetime, term: str) -> bool:
        """Read the state, and note the entries that are new. False when the term ended over it.

        It takes seconds when there are very many, so the term is kept up meanwhile, and what is new is noted in
        between. The next try finds most of the work done.
        """
        ahead: list[str] = []
        fresh = Progress(decided=now)
        changes: dict[str, Plain | None] = {}
        seen: set[str] = set()
        kept_up = self.clock.monotonic()
        for number, (entry_id, kept) in enumerate(self._read_all()):
            looks = not number % _LOOK_AFTER
            if len(changes) >= BATCH or (looks and self.clock.monotonic() > kept_up + KEEP_UP_SECONDS):
                if not self._go_on(term, changes):
                    return False
                kept_up = self.clock.monotonic()
            of_code, definition = entry_id in self._book.of_code, None
            if not of_code and kept is not None:
                definition = kept.get("definition")
                if definition is None:  # the code defines it no more
                    if progress_from(kept).decided < now - FORGET_AFTER:
                        changes[entry_id] = None
                    continue
            elif kept is None and entry_id in seen:
                continue
            given = self.seeds.get(entry_id, fresh) if kept is None else progress_from(kept)
            try:
                progress = self._book.put(entry_id, definition, given)
            except ValueError as error:
                logger.error("stored entry %r is left out: %s", entry_id, error)
                continue
            seen.add(entry_id)
            if kept is None or progress is not given:
                changes[entry_id] = self._book.record(entry_id)
            if progress.decided > now + timedelta(hours=1):
                ahead.append(entry_id)
        for entry_id in [entry_id for entry_id in self._plan if entry_id not in seen]:
            self._book.remove(entry_id)
        if ahead:
            logger.warning(
                "%d entries (%s) are decided until after now: was the clock ahead? `lightbus schedule rewind` "
                "lets them begin from now", len(ahead), ", ".join(sorted(ahead)[:5]),
            )  # fmt: skip
        if not self._go_on(term, changes):
            return False
        logger.info("leading, %d entries", len(self._plan))
        return True

    def _read_all(self) -> Iterator[tuple[str, Plain | None]]:
        """Every record, then every entry of the code, which has none if it is new."""
        yield from self.store.load()
        for entry_id in self._book.of_code:
            yield entry_id, None

    def _go_on(self, term: str, changes: dict[str, Plain | None]) -> bool:
        """Keep the term up and what has changed; whether the term goes on."""
        if self.store.lead() != term:
            return False
        if changes:
            self.store.commit(changes, ())
            changes.clear()
        return True

    def _fire(self, now: datetime) -> bool:
        began = self.clock.monotonic()
        decisions = self._plan.due(now, watched_since=self._watched_since, is_running=self._may_run, limit=self._limit)
        if not decisions:
            return False
        messages: list[T] = []
        made: list[tuple[Decision, Firing | None]] = []
        for decision in decisions:
            if made and self.clock.monotonic() > began + KEEP_UP_SECONDS:
                break  # the lease would end before the commit; what is left is decided again in the next step
            firing = None
            if decision.fires:
                try:
                    firing = self._firing(decision)
                    messages += self.make(firing)
                except self.away:
                    raise
                except Exception as error:  # noqa: BLE001 - one entry that cannot be sent must not hold up the others
                    logger.error("entry %r cannot be fired: %s", decision.entry_id, error)
                    firing, decision = None, replace(decision, outcome="skipped", reason=f"cannot be sent: {error}")
            made.append((decision, firing))
        before = {decision.entry_id: self._plan.progress(decision.entry_id) for decision, _ in made}
        records: dict[str, Plain | None] = {}
        for decision, _ in made:
            self._plan.apply(decision, now)
            records[decision.entry_id] = self._book.record(decision.entry_id)
        self._commit(records, messages, (), before)
        is_slow = self.clock.monotonic() > began + KEEP_UP_SECONDS
        self._limit = max(1, self._limit // 2) if is_slow else min(BATCH, self._limit * 2)
        for decision, firing in made:
            self._tell(decision, firing)
        return True

    def _may_run(self, entry_id: str, message_id: str) -> bool:
        return self.may_run(self._book.job(entry_id), message_id)

    def _firing(self, decision: Decision) -> Firing:
        job = self._book.job(decision.entry_id)
        return Firing(job, decision.last, decision.message_id, cancels=decision.cancels)

    def _commit(
        self,
        records: Mapping[str, Plain | None],
        messages: Sequence[T],
        done: Sequence[str],
        before: Mapping[str, Progress],
    ) -> None:
        """Carry it out, or leave the plan as it was."""
        try:
            self.store.commit(records, messages, done)
        except BaseException:
            for entry_id, progress in before.items():
                if entry_id in self._plan:
                    self._plan.set_progress(entry_id, progress)
            raise

    def _tell(self, decision: Decision, firing: Firing | None) -> None:
        slot = decision.last.isoformat()
        if firing is None:
            logger.info(
                "%s entry=%r slot=%s slots=%s: %s",
                decision.outcome, decision.entry_id, slot, decision.count or "many", decision.reason,
            )  # fmt: skip
            return
        late_seconds = (self.clock.now() - firing.job.entry.due_at(decision.last)).total_seconds()
        logger.info(
            "%s entry=%r slot=%s id=%s late=%.3f s",
            decision.outcome, decision.entry_id, slot, firing.message_id, late_seconds,
        )  # fmt: skip
        self.on_firing(firing, late_seconds)

    def _carry_out(self, now: datetime) -> list[str]:
        """What `lightbus schedule` and its like ask for, each in a commit of its own. Returns the requests."""
        done: list[str] = []
        for tag, command in self.store.commands():
            entry_id = str(command.get("entry", ""))
            before = {entry_id: self._plan.progress(entry_id)} if entry_id in self._plan else {}
            try:
                records, messages = self._commands.change(command, entry_id, now)
            except self.away:
                raise
            except Exception as error:  # noqa: BLE001 - a command that cannot be carried out is dropped, not repeated
                logger.error("the command %s is dropped: %s", dict(command), error)
                records, messages = {}, []
            self._commit(records, messages, (tag,), before)
            logger.info("done: %s entry=%r", command.get("do"), entry_id)
            done.append(str(command.get("request")))
        return done
