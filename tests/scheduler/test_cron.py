"""When expressions fire: the daylight-saving table, the options, and the ends of the search."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest

from lightbus_scheduler import Cron, CronError, Expression, parse

NEW_YORK = "America/New_York"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def on(cron: Cron, date: str, days: int = 1) -> list[str]:
    """The instants on a local date, as local time and offset."""
    start = datetime.fromisoformat(date).replace(tzinfo=cron.tz).astimezone(timezone.utc)
    last = datetime.fromisoformat(date) + timedelta(days=days)
    end = last.replace(tzinfo=cron.tz).astimezone(timezone.utc)
    found = takewhile(lambda moment: moment < end, cron.iterate(start - timedelta(seconds=1)))
    return [moment.astimezone(cron.tz).strftime("%H:%M:%S%z") for moment in found]


@pytest.mark.parametrize(
    "text, local",
    [
        ("30 2 * * *", ["03:00:00-0400"]),
        ("0-59 2 * * *", ["03:00:00-0400"]),
        ("0 3 * * *", ["03:00:00-0400"]),
        ("0,30 2-3 * * *", ["03:00:00-0400", "03:30:00-0400"]),
        ("15 30 2 * * *", ["03:00:00-0400"]),
        ("*/15 2 * * *", []),
        (
            "30 */2 * * *",
            [f"{hour:02}:30:00{'-0500' if hour < 2 else '-0400'}" for hour in range(0, 24, 2) if hour != 2],
        ),
    ],
)
def test_fixed_times_that_the_clock_jumps_over_fire_at_the_jump_and_wildcards_do_not(
    text: str, local: list[str]
) -> None:
    assert on(Cron(text, NEW_YORK), "2024-03-10") == local


@pytest.mark.parametrize(
    "text, local",
    [
        ("30 1 * * *", ["01:30:00-0400"]),
        ("*/30 1 * * *", ["01:00:00-0400", "01:30:00-0400", "01:00:00-0500", "01:30:00-0500"]),
        ("0 1-2 * * *", ["01:00:00-0400", "02:00:00-0500"]),
    ],
)
def test_fixed_times_that_come_twice_fire_once_and_wildcards_twice(text: str, local: list[str]) -> None:
    assert on(Cron(text, NEW_YORK), "2024-11-03") == local


def test_every_hour_fires_once_an_hour_through_both_changes() -> None:
    hourly = Cron("@hourly", NEW_YORK)
    assert len(on(hourly, "2024-03-10")) == 23
    assert len(on(hourly, "2024-11-03")) == 25


def test_options_let_fixed_times_repeat_and_be_left_out() -> None:
    assert on(Cron("30 1 * * *", NEW_YORK, fold="both"), "2024-11-03") == ["01:30:00-0400", "01:30:00-0500"]
    assert on(Cron("30 2 * * *", NEW_YORK, gap="skip"), "2024-03-10") == []


def test_a_daily_midnight_that_does_not_exist_fires_at_the_jump() -> None:
    assert on(Cron("@daily", "Asia/Beirut"), "2024-03-31") == ["01:00:00+0300"]


def test_half_an_hour_is_shifted_on_lord_howe() -> None:
    assert on(Cron("15 2 * * *", "Australia/Lord_Howe"), "2024-10-06") == ["02:30:00+1100"]
    assert on(Cron("45 1 * * *", "Australia/Lord_Howe"), "2024-04-07") == ["01:45:00+1100"]


def test_a_wildcard_keeps_the_start_of_an_hour_that_half_an_hour_was_put_before() -> None:
    times = on(Cron("*/20 2 * * *", "Australia/Lord_Howe"), "2024-04-07")
    assert times == ["02:00:00+1030", "02:20:00+1030", "02:40:00+1030"]


def test_a_change_of_three_hours_or_more_is_a_corrected_clock() -> None:
    around = on(Cron("30 5 * * *", "Pacific/Apia"), "2011-12-29", days=3)  # the 30th did not exist
    assert around == ["05:30:00-1000", "05:30:00+1400"]
    # Casey went back from 02:00 to 23:00 the day before
    repeated = on(Cron("30 1 * * *", "Antarctica/Casey"), "2010-03-05")
    assert repeated == ["01:30:00+1100", "01:30:00+0800"]


@pytest.mark.parametrize("second_pass", ["2024-11-03T06:00:00", "2024-11-03T06:10:30", "2024-11-03T06:59:59"])
def test_a_start_within_the_second_pass_does_not_fire_again(second_pass: str) -> None:
    assert Cron("15,45 1 * * *", NEW_YORK).next_after(utc(second_pass)) == utc("2024-11-04T06:15:00")


def test_the_jump_itself_is_found_from_one_second_before_and_not_again() -> None:
    daily = Cron("30 2 * * *", NEW_YORK)
    assert daily.next_after(utc("2024-03-10T06:59:59")) == utc("2024-03-10T07:00:00")
    assert daily.next_after(utc("2024-03-10T07:00:00")) == utc("2024-03-11T06:30:00")


def test_the_moment_itself_never_counts() -> None:
    every = Cron("* * * * *", "UTC")
    assert every.next_after(utc("2024-01-01T00:00:00")) == utc("2024-01-01T00:01:00")
    assert every.next_after(utc("2024-01-01T00:00:00") - timedelta(microseconds=1)) == utc("2024-01-01T00:00:00")


def test_the_moment_may_be_in_any_zone_and_the_result_is_utc() -> None:
    moment = datetime(2024, 6, 1, 12, 0, tzinfo=ZoneInfo("Asia/Kathmandu"))
    found = Cron("0 9 * * *", "Europe/Berlin").next_after(moment)
    assert found == utc("2024-06-01T07:00:00")
    assert found is not None
    assert found.tzinfo is timezone.utc


def test_the_thirteenth_or_a_friday_in_cron_is_friday_the_thirteenth_in_celery() -> None:
    start = utc("2024-09-01T00:00:00")
    days = {
        dialect: [moment.day for moment in islice(Cron(expression, "UTC").iterate(start), 5)]
        for dialect, expression in {"cron": parse("0 0 13 * 5"), "celery": parse("0 0 13 * 5", "celery")}.items()
    }
    assert days == {"cron": [6, 13, 20, 27, 4], "celery": [13, 13, 13, 13, 13]}


def test_a_rare_date_is_found_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    original = Expression.day_from

    def counted(expression: Expression, year: int, month: int, day: int) -> int | None:
        asked.append(year)
        return original(expression, year, month, day)

    monkeypatch.setattr(Expression, "day_from", counted)

    found = Cron(parse("0 0 29 2 1", "celery"), NEW_YORK).next_after(utc("2072-03-01T00:00:00"))

    assert found == utc("2112-02-29T05:00:00")
    assert len(asked) < 60  # one month in each of 40 years, and a few around the ends


def test_the_search_ends_with_the_calendar() -> None:
    assert Cron("0 0 1 1 *", "UTC").next_after(utc("9998-06-01T00:00:00")) is None
    assert list(Cron("0 0 1 1 *", NEW_YORK).iterate(utc("9997-01-02T00:00:00"))) == [utc("9998-01-01T05:00:00")]


def test_a_naive_moment_is_an_error() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        Cron("* * * * *", "UTC").next_after(datetime(2024, 1, 1))


def test_a_moment_before_the_year_two_is_an_error() -> None:
    with pytest.raises(ValueError, match="before the year 2"):
        Cron("* * * * *", "Asia/Tokyo").next_after(utc("0001-01-01T00:00:00"))


@pytest.mark.parametrize("name", ["Mars/Olympus", "../etc/passwd", ""])
def test_an_unknown_zone_is_an_error(name: str) -> None:
    with pytest.raises(CronError, match="time zone"):
        Cron("* * * * *", name)


def test_unknown_options_are_errors() -> None:
    with pytest.raises(CronError, match="'once' or 'both'"):
        Cron("* * * * *", "UTC", fold="twice")  # type: ignore[arg-type]
    with pytest.raises(CronError, match="'shift' or 'skip'"):
        Cron("* * * * *", "UTC", gap="run")  # type: ignore[arg-type]


def test_equal_schedules_are_equal_values() -> None:
    assert Cron("@daily", "UTC") == Cron("0 0 * * *", "UTC")
    assert Cron("@daily", "UTC") != Cron("@daily", "UTC", gap="skip")
