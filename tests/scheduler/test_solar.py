"""Schedules by the sun agree with Celery's, and leave out the days that have no such event."""

from __future__ import annotations

import importlib.metadata
from datetime import datetime, timedelta, timezone
from itertools import islice, pairwise

import celery.schedules
import pytest

from lightbus.compat.schedules import schedule_of, solar
from lightbus_scheduler import ScheduleError, Solar, between, last_between
from lightbus_scheduler.plain import plain_schedule, schedule_from
from lightbus_scheduler.solar import EVENTS

UTC = timezone.utc
PLACES = {
    "Lisbon": (38.72, -9.14),
    "Quito": (-0.18, -78.47),
    "Sydney": (-33.87, 151.21),
    "Chatham": (-43.95, -176.55),
    "Stockholm": (59.33, 18.07),
}
TROMSO = (69.65, 18.96)
DAYS = [datetime(2026, month, 7, hour, tzinfo=UTC) for month, hour in ((1, 3), (3, 9), (4, 23), (9, 15), (12, 12))]
_OLD = tuple(int(part) for part in importlib.metadata.version("celery").split(".")[:2]) < (5, 7)
#: Celery before 5.7 looks for the astronomical dusk above the horizon (celery#10121).
COMPARED = [event for event in EVENTS if not (_OLD and event == "dusk_astronomical")]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("event", COMPARED)
def test_events_are_those_of_celerys_solar(event: str, place: str) -> None:
    assert set(celery.schedules.solar._all_events) == set(EVENTS)
    for day in DAYS:
        theirs = celery.schedules.solar(event, *PLACES[place], nowfun=lambda day=day: day)
        ours = schedule_of(theirs, UTC)
        found = ours.next_after(day)
        assert found is not None
        if _OLD and found - day > timedelta(days=2):
            continue  # there is none in the white nights, and Celery before 5.7 fires a minute after noon
        expected = day + theirs.remaining_estimate(day)
        # where the white nights end, the sun is so near the depression asked for that a day more or less is rounding
        assert abs(found - expected) < timedelta(minutes=2 if found - day < timedelta(days=2) else 60 * 24)


def test_each_day_has_one_and_looking_from_anywhere_between_finds_the_same() -> None:
    for place in ("Quito", "Chatham"):  # whose events cross the midnight of UTC in the course of the year
        schedule = Solar("dusk_nautical", *PLACES[place])
        slots = list(islice(between(schedule, DAYS[0], DAYS[0] + timedelta(days=365)), 400))
        assert len(slots) == 365
        assert all(timedelta(hours=23) < later - earlier < timedelta(hours=25) for earlier, later in pairwise(slots))
        for earlier, later in pairwise(slots[:30]):
            assert schedule.next_after(later - timedelta(seconds=1)) == later
            assert schedule.next_after(earlier) == later
        assert last_between(schedule, DAYS[0], slots[10] + timedelta(hours=2)) == slots[10]


def test_the_polar_night_has_no_sunrise_and_the_pole_only_a_noon() -> None:
    sunrise = Solar("sunrise", *TROMSO)
    after = sunrise.next_after(datetime(2026, 12, 5, tzinfo=UTC))
    assert after is not None
    assert datetime(2027, 1, 10, tzinfo=UTC) < after < datetime(2027, 1, 20, tzinfo=UTC)
    noon = Solar("solar_noon", *TROMSO).next_after(datetime(2026, 12, 5, tzinfo=UTC))
    assert noon is not None
    assert noon.date() == datetime(2026, 12, 5, tzinfo=UTC).date()
    dawn = Solar("dawn_astronomical", 0.0, 0.0).next_after(datetime(9998, 12, 31, 12, tzinfo=UTC))
    assert dawn is None or dawn.year >= 9998


def test_it_is_written_in_settings_and_by_the_class_of_celerys_name() -> None:
    plain = {"solar": "sunset", "latitude": 38.72, "longitude": -9.14}
    schedule = schedule_from(plain)
    assert schedule == Solar("sunset", 38.72, -9.14) == schedule_of(solar("sunset", 38.72, -9.14), UTC)
    assert plain_schedule(schedule) == plain
    for wrong, words in [
        ({**plain, "solar": "moonrise"}, "dawn_astronomical, "),
        ({**plain, "latitude": 91}, "latitude cannot be '91'"),
        ({"solar": "sunset", "latitude": 1}, "longitude cannot be 'None'"),
        ({**plain, "every_seconds": 3}, "exactly one of"),
    ]:
        with pytest.raises(ScheduleError, match=words):
            schedule_from(wrong)
