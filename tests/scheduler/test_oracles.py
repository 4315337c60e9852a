"""The instants equal those of three independent judges: cronsim, Celery's crontab, and a scan of every minute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, available_timezones

import pytest
from celery import Celery
from celery.schedules import crontab
from cronsim import CronSim
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from lightbus_scheduler import Cron, CronError, Expression, parse, parse_celery

# The same examples in every run: a failure is a change of the code, never of the dice.
MODEST = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.generate],  # a failure is reported as drawn: shrinking costs minutes of scans
)
MINUTE = timedelta(minutes=1)

#: (zone, the date in UTC near which its clock changes)
CHANGES = [
    ("America/New_York", datetime(2024, 3, 10)),
    ("America/New_York", datetime(2024, 11, 3)),
    ("Europe/Berlin", datetime(2025, 3, 30)),
    ("Europe/Berlin", datetime(2025, 10, 26)),
    ("Europe/Dublin", datetime(2025, 3, 30)),
    ("Europe/Dublin", datetime(2025, 10, 26)),
    ("Australia/Lord_Howe", datetime(2024, 4, 6)),
    ("Australia/Lord_Howe", datetime(2024, 10, 5)),
    ("Antarctica/Troll", datetime(2024, 3, 31)),
    ("Antarctica/Troll", datetime(2024, 10, 27)),
    ("Africa/Casablanca", datetime(2024, 3, 10)),
    ("Africa/Casablanca", datetime(2024, 4, 14)),
    ("Pacific/Chatham", datetime(2024, 4, 6)),
    ("Pacific/Chatham", datetime(2024, 9, 28)),
    ("Africa/Cairo", datetime(2024, 4, 25)),
    ("Africa/Cairo", datetime(2024, 10, 31)),
    ("America/Santiago", datetime(2024, 4, 7)),
    ("America/Santiago", datetime(2024, 9, 8)),
    ("America/Havana", datetime(2024, 3, 10)),
    ("America/Havana", datetime(2024, 11, 3)),
    ("Asia/Beirut", datetime(2024, 3, 30)),
    ("Asia/Beirut", datetime(2024, 10, 26)),
    ("America/Asuncion", datetime(2024, 10, 6)),
    ("Asia/Kathmandu", datetime(2024, 6, 1)),
    ("UTC", datetime(2024, 2, 28)),
]
# With wildcards cronsim 2.8 passes over matching hours where midnight does not exist (it starts the day at
# 00:00 and adds an hour), and where the clock does not change by full hours at a full hour.
EASY_FOR_CRONSIM = [
    change
    for change in CHANGES
    if change[0].split("/")[1:]
    not in (["Lord_Howe"], ["Chatham"], ["Santiago"], ["Beirut"], ["Havana"], ["Cairo"], ["Asuncion"])
]


@dataclass(frozen=True)
class Drawn:
    """A column as text together with its meaning, built side by side so that no parser is trusted."""

    text: str
    values: frozenset[int]


@st.composite
def column(draw: st.DrawFn, low: int, high: int, wraps: bool = False, starred: bool | None = None) -> Drawn:
    kinds = {True: ["star", "step"], False: ["list", "range"], None: ["star", "star", "step", "list", "range"]}[starred]
    kind = draw(st.sampled_from(kinds))
    if kind == "star":
        return Drawn("*", frozenset(range(low, high + 1)))
    step = draw(st.integers(1, 20))
    if kind == "step":
        return Drawn(f"*/{step}", frozenset(range(low, high + 1, step)))
    if kind == "list":
        numbers = draw(st.lists(st.integers(low, high), min_size=1, max_size=4))
        return Drawn(",".join(map(str, numbers)), frozenset(numbers))
    first, end = draw(st.integers(low, high)), draw(st.integers(low, high))
    if first == end:
        return Drawn(str(first), frozenset([first]))
    if end < first and not wraps:
        first, end = end, first
    numbers = [*range(first, end + 1)] if first <= end else [*range(first, high + 1), *range(low, end + 1)]
    return Drawn(f"{first}-{end}/{step}", frozenset(numbers[::step]))


@dataclass(frozen=True)
class Columns:
    minute: Drawn
    hour: Drawn
    day: Drawn
    month: Drawn
    weekday: Drawn

    @property
    def text(self) -> str:
        return " ".join(c.text for c in (self.minute, self.hour, self.day, self.month, self.weekday))

    def matches(self, wall: datetime, either: bool) -> bool:
        by_day = wall.day in self.day.values
        by_weekday = wall.isoweekday() % 7 in {value % 7 for value in self.weekday.values}
        return (
            wall.minute in self.minute.values
            and wall.hour in self.hour.values
            and wall.month in self.month.values
            and (by_day or by_weekday if either else by_day and by_weekday)
        )


def columns(wraps: bool = False, starred: bool | None = None) -> st.SearchStrategy[Columns]:
    """Five columns; `starred` says whether the minute is a wildcard, and False goes for the hour, too."""
    hour_starred = False if starred is False else None
    last_weekday = 6 if wraps else 7  # Celery's weeks end with 6, Debian's with 7
    return st.builds(
        Columns,
        column(0, 59, wraps, starred),
        column(0, 23, wraps, hour_starred)
        | column(0, 4, starred=False),  # the changes of the clock are in the first hours
        column(1, 31, wraps),
        st.just(Drawn("*", frozenset(range(1, 13)))) | column(1, 12, wraps),
        column(0, last_weekday, wraps),
    )


def scan(drawn: Columns, either: bool, tz: tzinfo, start: datetime, end: datetime) -> Iterator[datetime]:
    """The rules once more, by looking at every minute in [start, end): slow, and too plain to be wrong."""
    fixed = not drawn.minute.text.startswith("*") and not drawn.hour.text.startswith("*")
    moment = start
    before = (moment - MINUTE).astimezone(tz).replace(tzinfo=None)
    while moment < end:
        local = moment.astimezone(tz)
        wall = local.replace(tzinfo=None)
        fires = drawn.matches(wall, either) and not (fixed and local.fold)
        missing = before + MINUTE
        while fixed and missing < wall:
            fires = fires or drawn.matches(missing, either)
            missing += MINUTE
        if fires:
            yield moment
        before = wall
        moment += MINUTE


def is_either(drawn: Columns) -> bool:
    return not drawn.day.text.startswith("*") and not drawn.weekday.text.startswith("*")


def parsed(text: str) -> Expression:
    try:
        return parse(text)
    except CronError:
        assume(False)  # drawn an impossible date
        raise


def within(cron: Cron, start: datetime, end: datetime) -> list[datetime]:
    """The instants in [start, end)."""
    return list(takewhile(lambda moment: moment < end, cron.iterate(start - timedelta(seconds=1))))


@MODEST
@given(columns(), st.sampled_from(CHANGES), st.integers(0, 36 * 60), st.integers(1, 36))
def test_cron_equals_a_scan_of_every_minute_around_a_change(
    drawn: Columns, change: tuple[str, datetime], back: int, hours: int
) -> None:
    tz, start = ZoneInfo(change[0]), change[1].replace(tzinfo=timezone.utc) + timedelta(days=1) - back * MINUTE
    end = start + timedelta(hours=hours)

    found = within(Cron(parsed(drawn.text), tz), start, end)

    assert found == list(scan(drawn, is_either(drawn), tz, start, end))


def changes_of_all_zones(first: datetime, last: datetime) -> list[tuple[str, datetime]]:
    """Each way in which some zone's clock changes between two moments: a zone that does so, and the hour before."""
    found: dict[tuple[object, ...], tuple[str, datetime]] = {}
    for name in sorted(available_timezones()):
        tz, day = ZoneInfo(name), first
        while day < last:
            if day.astimezone(tz).utcoffset() != (day + timedelta(days=1)).astimezone(tz).utcoffset():
                hour = day
                while hour.astimezone(tz).utcoffset() == (hour + timedelta(hours=1)).astimezone(tz).utcoffset():
                    hour += timedelta(hours=1)
                offsets = hour.astimezone(tz).utcoffset(), (hour + timedelta(hours=1)).astimezone(tz).utcoffset()
                found.setdefault((hour.hour, *offsets), (name, hour))
            day += timedelta(days=1)
    return list(found.values())


ANY = Drawn("*", frozenset(range(60)))
ALL_ZONES = [
    Columns(Drawn("30", frozenset([30])), Drawn("2", frozenset([2])), ANY, ANY, ANY),
    Columns(Drawn("0", frozenset([0])), Drawn("0", frozenset([0])), ANY, ANY, ANY),
    Columns(Drawn("15,45", frozenset([15, 45])), Drawn("0-4", frozenset(range(5))), ANY, ANY, ANY),
    Columns(Drawn("*/30", frozenset([0, 30])), ANY, ANY, ANY, ANY),
]


def test_every_zone_around_its_changes_equals_a_scan_of_every_minute() -> None:
    year = datetime(2025, 1, 1, tzinfo=timezone.utc), datetime(2026, 1, 1, tzinfo=timezone.utc)
    changes = changes_of_all_zones(*year)
    assert len(changes) > 20
    for name, hour in changes:
        tz, start, end = ZoneInfo(name), hour - timedelta(hours=5), hour + timedelta(hours=8)
        for drawn in ALL_ZONES:
            expected = list(scan(drawn, False, tz, start, end))
            assert within(Cron(drawn.text, tz), start, end) == expected, (name, drawn.text)


@MODEST
@given(columns(starred=False), st.sampled_from(CHANGES))
def test_fixed_times_equal_cronsim_around_a_change(drawn: Columns, change: tuple[str, datetime]) -> None:
    tz, start = ZoneInfo(change[0]), change[1].replace(tzinfo=timezone.utc) - timedelta(days=2)

    found = list(islice(Cron(parsed(drawn.text), tz).iterate(start), 20))

    assert found == distinct(CronSim(drawn.text, start.astimezone(tz)), 20)


@MODEST
@given(columns(starred=True), st.sampled_from(EASY_FOR_CRONSIM))
def test_wildcards_equal_cronsim_around_a_change(drawn: Columns, change: tuple[str, datetime]) -> None:
    tz, start = ZoneInfo(change[0]), change[1].replace(tzinfo=timezone.utc) - timedelta(days=2)

    found = list(islice(Cron(parsed(drawn.text), tz).iterate(start), 200))

    assert found == distinct(CronSim(drawn.text, start.astimezone(tz)), 200)


def distinct(source: CronSim, count: int) -> list[datetime]:
    """The next instants of cronsim in UTC, which gives a gap and the minute behind it as two."""
    found: list[datetime] = []
    while len(found) < count:
        moment = next(source).astimezone(timezone.utc)
        if found[-1:] != [moment]:
            found.append(moment)
    return found


@MODEST
@given(
    st.sampled_from(["L", "1,L", "15", "*", "*/2"]),
    st.sampled_from(["5L", "mon#1", "0#5,7L", "tue#2,3", "*", "*/3", "SUN"]),
    st.sampled_from(["*", "2", "feb,JUN-aug"]),
    st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)),
)
def test_last_and_nth_days_equal_cronsim(day: str, weekday: str, month: str, moment: datetime) -> None:
    text, start = f"0 12 {day} {month} {weekday}", moment.replace(tzinfo=timezone.utc)

    assert list(islice(Cron(text, "UTC").iterate(start), 20)) == list(islice(CronSim(text, start), 20))


@MODEST
@given(column(0, 59), columns(), st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)))
def test_seconds_come_first_and_equal_cronsim(second: Drawn, drawn: Columns, moment: datetime) -> None:
    text, start = f"{second.text} {drawn.text}", moment.replace(tzinfo=timezone.utc)

    assert list(islice(Cron(parsed(text), "UTC").iterate(start), 30)) == list(islice(CronSim(text, start), 30))


@pytest.fixture(scope="module")
def app() -> Iterator[Celery]:
    app = Celery("oracle", set_as_current=False)
    yield app
    app.close()


def after_by_celery(app: Celery, schedule: crontab, last: datetime) -> datetime:
    schedule.nowfun = lambda: last
    due, seconds = schedule.is_due(last)
    assert not due
    assert seconds == schedule.remaining_estimate(last).total_seconds()
    return last + timedelta(seconds=seconds)


@MODEST
@given(
    drawn=columns(wraps=True),
    offset=st.integers(-12 * 60, 14 * 60),
    moment=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),
    by_keyword=st.booleans(),
)
def test_celery_dialect_equals_celery(
    app: Celery, drawn: Columns, offset: int, moment: datetime, by_keyword: bool
) -> None:
    tz = timezone(timedelta(minutes=offset))
    keywords: dict[str, str] = {
        "minute": drawn.minute.text,
        "hour": drawn.hour.text,
        "day_of_month": drawn.day.text,
        "month_of_year": drawn.month.text,
        "day_of_week": drawn.weekday.text,
    }
    try:
        schedule = crontab(**keywords, app=app)
    except ValueError:
        with pytest.raises(CronError):
            parse(drawn.text, "celery")
        return
    schedule.tz = tz
    cron = Cron(parse_celery(**keywords) if by_keyword else parse(drawn.text, "celery"), tz)
    last = moment.replace(tzinfo=tz)
    for found in islice(cron.iterate(last), 15):
        expected = after_by_celery(app, schedule, last)
        assert found == expected
        last = expected.astimezone(tz)


@MODEST
@given(st.text("0159*/-,# LWmonfrijabd", max_size=8), st.sampled_from(["minute", "day_of_month", "day_of_week"]))
def test_celery_dialect_accepts_just_what_celery_accepts(value: str, name: str) -> None:
    theirs: crontab | None = None
    ours: Expression | None = None
    try:
        theirs = crontab(**{name: value})
    except Exception:  # noqa: BLE001 -- Celery refuses with many types, IndexError and TypeError among them
        theirs = None
    try:
        ours = parse_celery(**{name: value})
    except CronError:
        ours = None

    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        assert set(ours.minutes) == theirs.minute
        assert ours.days.days == theirs.day_of_month
        assert ours.days.weekdays == theirs.day_of_week


@MODEST
@given(columns(wraps=True), st.sampled_from(CHANGES), st.integers(0, 48 * 60))
def test_celery_dialect_equals_a_scan_of_every_minute(drawn: Columns, change: tuple[str, datetime], back: int) -> None:
    tz, start = ZoneInfo(change[0]), change[1].replace(tzinfo=timezone.utc) + timedelta(days=1) - back * MINUTE
    end = start + timedelta(hours=30)
    try:
        expression = parse(drawn.text, "celery")
    except CronError:
        assume(False)

    assert within(Cron(expression, tz), start, end) == list(scan(drawn, False, tz, start, end))


@MODEST
@given(
    columns(),
    st.sampled_from(CHANGES),
    st.integers(0, 36 * 3600),
    st.sampled_from(["once", "both"]),
    st.sampled_from(["shift", "skip"]),
)
def test_an_interval_cut_anywhere_gives_the_same_instants(
    drawn: Columns, change: tuple[str, datetime], cut: int, fold: str, gap: str
) -> None:
    start = change[1].replace(tzinfo=timezone.utc) - timedelta(hours=12)
    middle, end = start + timedelta(seconds=cut), start + timedelta(hours=36)
    cron = Cron(parsed(drawn.text), change[0], fold=fold, gap=gap)  # type: ignore[arg-type]

    assert within(cron, start, middle) + within(cron, middle, end) == within(cron, start, end)
