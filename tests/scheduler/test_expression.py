"""What the two dialects read, where they disagree, and what they refuse."""

from __future__ import annotations

import copy
import pickle

import pytest

from lightbus_scheduler import CronError, Dialect, Expression, parse, parse_celery


def weekdays(text: str, dialect: Dialect) -> set[int]:
    return set(parse(text, dialect).days.weekdays)


def test_day_columns_join_with_or_in_cron_and_with_and_in_celery() -> None:
    assert parse("0 0 13 * 5", "cron").days.either
    assert not parse("0 0 13 * 5", "celery").days.either


@pytest.mark.parametrize("text", ["0 0 */2 * 1", "0 0 1 * *", "0 0 * * 1", "0 0 13 * */2", "0 0 *,13 * 5"])
def test_a_day_column_that_begins_with_a_star_joins_with_and_in_cron(text: str) -> None:
    assert not parse(text).days.either


def test_a_star_later_in_the_column_does_not_count() -> None:
    assert parse("0 0 13,* * 5").days.either


def test_seven_is_sunday_in_cron_and_an_error_in_celery() -> None:
    assert weekdays("0 0 * * 7", "cron") == weekdays("0 0 * * 0", "cron") == weekdays("0 0 * * 0", "celery") == {0}
    with pytest.raises(CronError, match="0 to 6"):
        parse("0 0 * * 7", "celery")


@pytest.mark.parametrize(
    "text, hint",
    [("0 22-2 * * *", "22-23,0-2"), ("0 0 * * fri-mon", "fri-7,0-mon"), ("0 0 * nov-feb *", "nov-12,1-feb")],
)
def test_a_falling_range_wraps_in_celery_and_cron_says_how_to_write_it(text: str, hint: str) -> None:
    with pytest.raises(CronError) as caught:
        parse(text, "cron")

    assert hint in str(caught.value)
    parts = text.split()
    rising = parse(" ".join(hint if "-" in part else part for part in parts), "cron")
    wrapped = parse(text, "celery")
    assert (wrapped.hours, wrapped.months, wrapped.days.weekdays) == (rising.hours, rising.months, rising.days.weekdays)


def test_nth_weekday_is_every_such_weekday_in_celery_and_leaves_a_remark() -> None:
    assert parse("0 0 * * mon#1", "cron").days.nth_weekdays == {(1, 1)}
    every = parse("0 0 * * mon#1", "celery")
    assert every.days.weekdays == {1}
    assert "mon#1" in every.remarks[0]


@pytest.mark.parametrize("name", ["monday", "monkey"])
def test_long_names_are_errors_in_cron_and_count_by_three_letters_in_celery(name: str) -> None:
    assert weekdays(f"0 0 * * {name}", "celery") == {1}
    with pytest.raises(CronError, match="day of week"):
        parse(f"0 0 * * {name}", "cron")


def test_only_a_name_that_is_none_leaves_a_remark() -> None:
    assert parse("0 0 * * Monday", "celery").remarks == ()
    assert "monkey" in parse("0 0 * * monkey", "celery").remarks[0]


def test_a_number_with_a_step_counts_to_the_end_in_cron_and_is_an_error_in_celery() -> None:
    assert parse("5/15 * * * *", "cron").minutes == (5, 20, 35, 50)
    with pytest.raises(CronError):
        parse("5/15 * * * *", "celery")


@pytest.mark.parametrize("text", ["0 0 L * *", "0 0 * * 5L", "@daily"])
def test_last_days_and_at_names_are_read_in_cron_only(text: str) -> None:
    assert parse(text, "cron").text == text
    with pytest.raises(CronError):
        parse(text, "celery")


@pytest.mark.parametrize("dialect", ["cron", "celery"])
@pytest.mark.parametrize("text", ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 1W * *", "R 0 * * *", "H 0 * * *"])
def test_impossible_dates_and_foreign_letters_are_errors_in_both(text: str, dialect: Dialect) -> None:
    with pytest.raises(CronError):
        parse(text, dialect)


def test_a_day_that_no_month_has_is_no_error_when_the_weekday_is_enough() -> None:
    assert parse("0 0 30 2 mon").ever_matches()


def test_a_date_that_only_some_leap_years_have_is_possible() -> None:
    assert parse("0 0 29 2 1", "celery").ever_matches()
    assert parse("0 0 * 2 mon#5").ever_matches()


def test_days_that_never_meet_are_an_error() -> None:
    with pytest.raises(CronError, match="day and month"):
        parse("0 0 */30 2 mon#5")  # the 1st and the 31st; a fifth Monday is the 29th at the earliest


@pytest.mark.parametrize(
    "name, text",
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@Annually", "0 0 1 1 *"),
    ],
)
def test_an_at_name_equals_its_five_fields(name: str, text: str) -> None:
    assert parse(name) == parse(text)
    assert hash(parse(name)) == hash(parse(text))


def test_a_sixth_field_is_the_seconds_and_stands_first() -> None:
    six = parse("*/20 5 4 * * *")
    assert (six.seconds, six.minutes, six.hours) == ((0, 20, 40), (5,), (4,))


def test_five_fields_equal_six_with_second_zero() -> None:
    assert parse("30 2 * * *") == parse("0 30 2 * * *")


@pytest.mark.parametrize(
    "text, field, value",
    [
        ("60 * * * *", "minute", "60"),
        ("* 24 * * *", "hour", "24"),
        ("* * 0 * *", "day of month", "0"),
        ("* * * 13 *", "month", "13"),
        ("* * * foo *", "month", "foo"),
        ("* * * mon *", "month", "mon"),
        ("* * * * 8", "day of week", "8"),
        ("* * * * mon#6", "day of week", "mon#6"),
        ("* * * * mon#1x", "day of week", "mon#1x"),
        ("* * * * friL", "day of week", "fril"),
        ("* * L-3 * *", "day of month", "l"),
        ("*/0 * * * *", "minute", "*/0"),
        ("*/5x * * * *", "minute", "*/5x"),
        ("*5 * * * *", "minute", "*5"),
        ("1-5-7 * * * *", "minute", "1-5-7"),
        ("1,,2 * * * *", "minute", ""),
        ("-5 * * * *", "minute", "-5"),
        ("٥ * * * *", "minute", "٥"),
        ("99999999999 * * * *", "minute", "99999999999"),
        ("* * * *", "number of fields", "4"),
        ("* * * * * * *", "number of fields", "7"),
        ("", "number of fields", "0"),
        ("@reboot", "name", "@reboot"),
    ],
)
def test_an_error_names_expression_field_value_and_what_is_allowed(text: str, field: str, value: str) -> None:
    with pytest.raises(CronError) as caught:
        parse(text)

    error = caught.value
    assert (error.expression, error.field, error.value) == (text, field, value)
    assert error.allowed in str(error)
    assert repr(value) in str(error)


def test_an_error_survives_pickling() -> None:
    with pytest.raises(CronError) as caught:
        parse("x * * * *")

    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.field) == (str(caught.value), "minute")


def test_an_unknown_dialect_is_an_error() -> None:
    with pytest.raises(CronError, match="'cron' or 'celery'"):
        parse("* * * * *", "quartz")  # type: ignore[arg-type]


def test_keyword_values_take_numbers_text_collections_and_none() -> None:
    expression = parse_celery(minute="0, 30", hour=[8, 20], day_of_month=None, month_of_year={6}, day_of_week="mon-fri")

    assert expression == parse("0,30 8,20 * 6 mon-fri", "celery")
    assert expression.text == "0,30 8,20 * 6 mon-fri"


@pytest.mark.parametrize("value", [[], ["5"], 5.0, [60], 60, -1, "", "1,", "*/", "1-5/0", "-5"])
def test_keyword_values_that_celery_cannot_fire_are_errors(value: object) -> None:
    with pytest.raises(CronError):
        parse_celery(minute=value)  # type: ignore[arg-type]


def test_celery_text_behind_a_value_is_ignored_with_a_remark() -> None:
    expression = parse("1-5-7 * * * *", "celery")
    assert expression.minutes == (1, 2, 3, 4, 5)
    assert "'-7' is ignored" in expression.remarks[0]


def test_a_celery_entry_with_both_day_columns_says_that_both_must_match() -> None:
    assert "must both match" in parse("0 0 13 * 5", "celery").remarks[0]


def test_every_value_of_a_column_given_as_numbers_is_a_wildcard() -> None:
    assert not parse_celery(minute=0, hour=range(24)).fixed_time
    assert parse_celery(minute=0, hour=range(23)).fixed_time


def test_an_expression_is_a_value() -> None:
    expression: Expression = parse("0 0 * * *")
    assert copy.deepcopy(expression) == expression == pickle.loads(pickle.dumps(expression))
    with pytest.raises(AttributeError):
        expression.minutes = (1,)  # type: ignore[misc]
