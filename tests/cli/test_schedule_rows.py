"""What `lightbus schedule ls` shows of an entry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import pytest

from lightbus.cli.schedule_rows import HEADS, Row, in_order, row_of, span
from lightbus.compat.beat import HELD
from lightbus_scheduler import Cron, Entry, Every, Job, Once, Plan, Progress

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Target:
    def describe(self) -> str:
        return "task shop.report"


def row(entry: Entry, progress: Progress, *, is_kept: bool = True) -> Row:
    plan, job = Plan(), Job(entry, Target(), "lightbus.toml")
    plan.put(entry, progress)
    return row_of(job, plan, is_kept=is_kept, now=NOW)


def shown(one: Row) -> dict[str, str]:
    return dict(zip(HEADS, one.cells(), strict=True))


def test_an_entry_is_shown_in_its_own_zone_with_what_is_left_what_has_passed_and_how_late_it_was() -> None:
    slot = datetime(2026, 7, 1, 2, 0, tzinfo=timezone.utc)
    daily = Entry(id="report", schedule=Cron("0 3 * * *", "Europe/Lisbon"))
    one = row(daily, Progress(decided=slot, fired=7, last_slot=slot, last_at=slot + timedelta(seconds=0.042),
                              last_outcome="fired"))  # fmt: skip

    assert shown(one) == {
        "NEXT": "2026-07-02 03:00:00 WEST", "LEFT": "14h 0min", "LAST": "2026-07-01 03:00:00 WEST",
        "PASSED": "10h 0min", "LATE": "42ms", "OUTCOME": "fired", "FIRED": "7", "ENTRY": "report",
        "FIRES": "task shop.report", "OWNER": "lightbus", "DEFINED IN": "lightbus.toml",
    }  # fmt: skip
    document = one.document()
    told = {key: document[key] for key in ("next", "left_seconds", "last", "passed_seconds", "late_seconds", "tz")}
    assert told == {
        "next": "2026-07-02T02:00:00+00:00", "left_seconds": 50400.0, "last": "2026-07-01T02:00:00+00:00",
        "passed_seconds": 36000.0, "late_seconds": 0.042, "tz": "Europe/Lisbon",
    }  # fmt: skip


def test_an_entry_without_a_firing_and_one_that_is_paused_have_dashes() -> None:
    begun = shown(row(Entry(id="e", schedule=Every(timedelta(minutes=1), NOW)), Progress(decided=NOW), is_kept=False))
    assert (begun["NEXT"], begun["LEFT"]) == ("2026-07-01 12:01:00 UTC", "1min 0s")
    assert [begun[head] for head in ("LAST", "PASSED", "LATE", "OUTCOME")] == ["-"] * 4
    assert begun["DEFINED IN"] == "lightbus.toml, not yet seen by a beat"
    paused = shown(row(Entry(id="e", schedule=Every(timedelta(minutes=1))), Progress(decided=NOW, paused="a note")))
    assert (paused["NEXT"], paused["LEFT"], paused["OUTCOME"]) == ("-", "-", "paused a note")


def test_the_owner_is_celery_until_its_beat_lets_go() -> None:
    one = Entry(id="e", schedule=Every(timedelta(minutes=1), NOW))
    owners = {row(one, Progress(decided=NOW, paused=note)).document()["owner"] for note in (None, "mine")}
    assert owners == {"lightbus"}
    assert row(one, Progress(decided=NOW, paused=HELD)).document()["owner"] == "celery"


def test_what_fires_next_comes_first_and_what_does_not_fire_last() -> None:
    rows = [
        row(Entry(id="over", schedule=Once(NOW)), Progress(decided=NOW)),
        row(Entry(id="b", schedule=Every(timedelta(minutes=9), NOW)), Progress(decided=NOW)),
        row(Entry(id="a", schedule=Every(timedelta(minutes=9), NOW)), Progress(decided=NOW)),
        row(Entry(id="soon", schedule=Every(timedelta(minutes=1), NOW)), Progress(decided=NOW)),
    ]
    assert [one.entry.id for one in in_order(rows)] == ["soon", "a", "b", "over"]


@pytest.mark.parametrize(
    "seconds, words",
    [
        (0, "0ms"), (0.0004, "0ms"), (0.9, "900ms"), (1, "1s"), (59.9, "59s"), (60, "1min 0s"), (3599, "59min 59s"),
        (3600, "1h 0min"), (86400 * 3 + 3600, "3d 1h"), (-90, "-1min 30s"),
    ],
)  # fmt: skip
def test_a_span_is_told_in_its_largest_units(seconds: float, words: str) -> None:
    assert span(timedelta(seconds=seconds)) == words
