"""The loop's one step: lead, decide, record and send in one go, and say how long to wait.

Knows no broker. The store does what must happen at one moment (am I still the leader, note the decision, send the
message), `make` turns a firing into messages, the clock tells the time. Whoever calls `step` again and again has a
scheduler; several processes that do so on one store are one scheduler that survives the death of any of them.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

from .entries import Decision, Entry, Progress, message_id
from .errors import ScheduleError
from .handover import taken
from .kinds import between
from .plain import Plain, entry_from, moment_from, plain_progress, progress_from
from .plan import IsRunning, Plan, nothing_runs

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

STANDBY_SECONDS = 0.2  #: between two looks whether the leader is gone
RETRY_SECONDS = 0.3  #: after the store could not be reached
LONGEST_SECONDS = 0.3  #: a leader shows itself at least that often
JUMP_SECONDS = 1.0  #: wall clock and monotonic clock differ by more: somebody has set the clock
ASLEEP_SECONDS = 60.0  #: a step that comes that late: this process stood still, and nobody watched
FORGET_AFTER = timedelta(days=7)  #: the progress of an entry that is defined no more
BATCH = 500
MOST_BACKFILLED = 10_000
_AT_ONCE = 2000  # entries read or written before the term is kept up again

logger = logging.getLogger("lightbus.beat")


@dataclass(frozen=True)
class Job:
    """An entry and what it fires.

    Attributes:
        target: read by `make` alone.
        source: for people: where it is defined.
        definition: of an entry that is kept in the store; None for one that code or a file defines.
    """

    entry: Entry
    target: Any
    source: str = "code"
    definition: Plain | None = None


@dataclass(frozen=True)
class Firing:
    """One message that is to be sent. `kind` is `slot`, or says that somebody asked for it by hand."""

    job: Job
    slot: datetime
    message_id: str
    kind: str = "slot"
    cancels: str = ""


class Store(Protocol[T_contra]):
    """Where progress is kept, commands wait, and messages are sent: one broker or database."""

    def lead(self) -> str:
        """Become the leader, or go on being it: the name of this term of leading; "" while another one leads.

        Never waits for it. A term has ended when another process may have led since, even if this one leads again.
        """

    def load(self) -> Mapping[str, Plain]:
        """Every record. Called by a new leader.

        Raises:
            Exception: not one of those that mean "away": what is kept cannot be read.
        """

    def commands(self) -> Sequence[tuple[str, Plain]]:
        """Tag and content of the commands that wait, the oldest first."""

    def commit(
        self, records: Mapping[str, Plain | None], messages: Sequence[T_contra], done: Sequence[str] = ()
    ) -> None:
        """All of it at one moment, and none of it when this process is no longer the leader.

        Args:
            records: entry id to its record; None removes it.
            done: tags of the commands that are carried out with it.
        """

    def resign(self) -> None:
        """Give up the lead and the connection. Raises nothing."""


class Clock(Protocol):
    def now(self) -> datetime:
        """The wall clock, in UTC."""

    def monotonic(self) -> float:
        """Seconds of a clock that nobody sets."""


@dataclass
class Runner(Generic[T]):
    """One process's part in the scheduler.

    Attributes:
        jobs: those that code and files define.
        make: the messages of a firing; what it raises skips that slot, with the error as the reason.
        job_of: the job that a stored definition tells; raises ValueError when it cannot.
        away: exceptions of the store that mean "not now".
        seeds: for entries without a record: what another scheduler has done of them.
        on_firing: told of each firing that was sent, with its lateness in seconds.
    """

    jobs: Iterable[Job]
    store: Store[T]
    make: Callable[[Firing], Sequence[T]]
    clock: Clock
    job_of: Callable[[Plain], Job]
    away: tuple[type[Exception], ...]
    is_running: IsRunning = nothing_runs
    seeds: Mapping[str, Progress] = field(default_factory=dict)
    on_firing: Callable[[Firing, float], None] = lambda firing, late: None

    def __post_init__(self) -> None:
        self.plan = Plan()
        self._term = ""
        self._jobs = {job.entry.id: job for job in self.jobs}
        self._known: dict[str, Job] = {}
        self._now = self._watched_since = self.clock.now()
        self._monotonic = self.clock.monotonic()
        self._reported = ""

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
        due = self.plan.next_due()
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

        It takes seconds when there are very many, so the term is kept up meanwhile. The next try finds most of the
        work done.
        """
        records = self.store.load()
        self._known = dict(self._jobs)
        broken: set[str] = set()
        for entry_id, record in records.items():
            if (definition := record.get("definition")) is not None and entry_id not in self._jobs:
                try:
                    self._known[entry_id] = self.job_of(definition)
                except ValueError as error:
                    broken.add(entry_id)
                    logger.error("stored entry %r is left out: %s", entry_id, error)
        changes: dict[str, Plain | None] = {}
        ahead: list[str] = []
        for number, (entry_id, job) in enumerate(self._known.items()):
            if number % _AT_ONCE == 0 and self.store.lead() != term:
                return False
            kept = records.get(entry_id)
            given = self.seeds.get(entry_id, Progress(decided=now)) if kept is None else progress_from(kept)
            progress = self._put(job, given)
            if kept is None or progress != given:
                changes[entry_id] = self._record(entry_id, progress)
            if progress.decided > now + timedelta(hours=1):
                ahead.append(entry_id)
        for entry_id in [entry.id for entry in self.plan.entries() if entry.id not in self._known]:
            self.plan.remove(entry_id)
        for entry_id in records.keys() - self._known.keys() - broken:
            if progress_from(records[entry_id]).decided < now - FORGET_AFTER:
                changes[entry_id] = None
        if ahead:
            logger.warning(
                "%d entries (%s) are decided until after now: was the clock ahead? `lightbus schedule rewind` "
                "lets them begin from now", len(ahead), ", ".join(sorted(ahead)[:5]),
            )  # fmt: skip
        written = list(changes.items())
        for first in range(0, len(written), _AT_ONCE):
            self.store.commit(dict(written[first : first + _AT_ONCE]), ())
        logger.info("leading, %d entries", len(self._known))
        return True

    def _put(self, job: Job, progress: Progress) -> Progress:
        """Into the plan, unless it is there as it is: a take-over after a short absence has little to do."""
        entry_id = job.entry.id
        if self.plan.holds(job.entry, progress):
            return progress
        progress = self.plan.put(job.entry, progress)
        self._known[entry_id] = job
        return progress

    def _record(self, entry_id: str, progress: Progress) -> Plain:
        return {**plain_progress(progress), **self._definition(entry_id)}

    def _definition(self, entry_id: str) -> Plain:
        definition = self._known[entry_id].definition if entry_id in self._known else None
        return {} if definition is None else {"definition": dict(definition)}

    def _fire(self, now: datetime) -> bool:
        decisions = self.plan.due(now, watched_since=self._watched_since, is_running=self.is_running, limit=BATCH)
        if not decisions:
            return False
        messages: list[T] = []
        made: list[tuple[Decision, Firing | None]] = []
        for decision in decisions:
            firing = None
            if decision.fires:
                firing = Firing(
                    self._known[decision.entry_id], decision.last, decision.message_id, cancels=decision.cancels
                )
                try:
                    messages += self.make(firing)
                except self.away:
                    raise
                except Exception as error:  # noqa: BLE001 - one entry that cannot be sent must not hold up the others
                    logger.error("entry %r cannot be fired: %s", decision.entry_id, error)
                    firing, decision = None, replace(decision, outcome="skipped", reason=f"cannot be sent: {error}")
            made.append((decision, firing))
        before = {decision.entry_id: self.plan.progress(decision.entry_id) for decision, _ in made}
        records: dict[str, Plain | None] = {}
        for decision, _ in made:
            records[decision.entry_id] = self._record(decision.entry_id, self.plan.apply(decision, now))
        self._commit(records, messages, (), before)
        for decision, firing in made:
            self._tell(decision, firing)
        return True

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
                if entry_id in self.plan:
                    self.plan.set_progress(entry_id, progress)
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

    # -- commands ----------------------------------------------------------------------------------------------------

    def _carry_out(self, now: datetime) -> list[str]:
        """What `lightbus schedule` and its like ask for, each in a commit of its own. Returns the requests."""
        done: list[str] = []
        for tag, command in self.store.commands():
            entry_id = str(command.get("entry", ""))
            before = {entry_id: self.plan.progress(entry_id)} if entry_id in self.plan else {}
            try:
                records, messages = self._change(command, entry_id, now)
            except self.away:
                raise
            except Exception as error:  # noqa: BLE001 - a command that cannot be carried out is dropped, not repeated
                logger.error("the command %s is dropped: %s", dict(command), error)
                records, messages = {}, []
            self._commit(records, messages, (tag,), before)
            if command.get("do") == "take" and records and entry_id in self._known:
                self._put(self._known[entry_id], progress_from(records[entry_id] or {}))
            logger.info("done: %s entry=%r", command.get("do"), entry_id)
            done.append(str(command.get("request")))
        return done

    def _change(self, command: Plain, entry_id: str, now: datetime) -> tuple[dict[str, Plain | None], list[T]]:
        action = command.get("do")
        if action in ("add", "edit"):
            return {entry_id: self._define(command["definition"], entry_id, now)}, []
        if action == "take":
            known = self._known.get(entry_id) if entry_id in self.plan else None
            progress = None if known is None else self.plan.progress(entry_id)
            begun = taken(command, None if known is None else known.entry, progress, now)
            return {} if begun is None else {entry_id: {**self._definition(entry_id), **plain_progress(begun)}}, []
        if entry_id not in self.plan:
            raise ScheduleError("entry", entry_id, "one that is there")
        progress = self.plan.progress(entry_id)
        match action:
            case "pause":
                progress = replace(progress, paused=str(command.get("note") or ""))
            case "resume":
                # what came due in the pause was skipped, up to this moment
                decided = max(progress.decided, now) if progress.paused is not None else progress.decided
                progress = replace(progress, paused=None, decided=decided)
            case "rewind":
                progress = replace(progress, decided=min(progress.decided, now))
            case "rm":
                if self._known[entry_id].definition is None:
                    raise ScheduleError("entry", entry_id, "one that was added to the store; this one is in the code")
                self.plan.remove(entry_id)
                del self._known[entry_id]
                return {entry_id: None}, []
            case "trigger":
                kind = f"trigger {command['request']}"
                return {}, list(self.make(self._by_hand(entry_id, now, kind)))
            case "backfill":
                return {}, self._backfill(command, entry_id)
            case _:
                raise ScheduleError("command", str(action), "one of this version")
        self.plan.set_progress(entry_id, progress)
        return {entry_id: self._record(entry_id, progress)}, []

    def _define(self, definition: Plain, entry_id: str, now: datetime) -> Plain:
        if entry_id in self._jobs:
            raise ScheduleError("entry", entry_id, "an id that the code does not use")
        job = self.job_of(definition)
        progress = self.plan.progress(entry_id) if entry_id in self.plan else Progress(decided=now)
        progress = replace(progress, decided=max(progress.decided, now))
        self._known[entry_id] = job
        return self._record(entry_id, self.plan.put(job.entry, progress))

    def _backfill(self, command: Plain, entry_id: str) -> list[T]:
        after, until = moment_from(command["after"], "after"), moment_from(command["until"], "until")
        messages: list[T] = []
        for number, slot in enumerate(between(self.plan.entry(entry_id).slots, after, until)):
            if number >= MOST_BACKFILLED:
                raise ScheduleError("range", f"{after} to {until}", f"at most {MOST_BACKFILLED} slots at a time")
            messages += self.make(self._by_hand(entry_id, slot, f"backfill {command['request']}"))
        return messages

    def _by_hand(self, entry_id: str, slot: datetime, kind: str) -> Firing:
        return Firing(self._known[entry_id], slot, message_id(entry_id, slot, kind), kind)


def new_command(do: str, entry_id: str, **values: Any) -> dict[str, Any]:
    """A command for the leader; it is carried out once, whatever happens to the leader."""
    return {"do": do, "entry": entry_id, "request": uuid.uuid4().hex, **values}


def plain_job(definition: Plain, target: Any, default_tz: str = "UTC") -> Job:
    """The job of a stored definition whose entry `entry_from` reads."""
    return Job(entry_from(definition, default_tz), target, "stored", definition)
