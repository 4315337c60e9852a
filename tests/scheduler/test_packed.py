"""Progress is kept packed: nothing of it may be lost, and what a store keeps of it has to be what it says."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightbus_scheduler import Progress, ScheduleError
from lightbus_scheduler.packed import pack, unpack
from lightbus_scheduler.plain import plain_progress, progress_from

T0 = datetime(2026, 3, 28, 22, 0, 0, 123456, tzinfo=timezone.utc)
MOMENTS = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.just(timezone.utc))
TEXTS = st.text(max_size=40)


@settings(deadline=None, derandomize=True, database=None)
@given(
    st.builds(
        Progress, decided=MOMENTS, anchor=st.none() | MOMENTS, fired=st.integers(0, 2**40),
        skipped=st.integers(0, 2**40), last_slot=st.none() | MOMENTS, last_at=st.none() | MOMENTS, last_outcome=TEXTS,
        last_reason=TEXTS, paused=st.none() | TEXTS, queued=st.none() | MOMENTS, over=st.booleans(),
    )
)  # fmt: skip
def test_a_progress_comes_out_of_its_packed_and_its_plain_form_as_it_was(progress: Progress) -> None:
    assert unpack(pack(progress)) == progress
    assert progress_from(plain_progress(progress)) == progress


def test_progress_that_differs_in_one_value_differs_packed() -> None:
    base = Progress(decided=T0)
    others = [
        Progress(decided=T0, anchor=T0), Progress(decided=T0, last_slot=T0), Progress(decided=T0, last_at=T0),
        Progress(decided=T0, queued=T0), Progress(decided=T0, paused=""), Progress(decided=T0, over=True),
        Progress(decided=T0, last_outcome="x"), Progress(decided=T0, last_reason="x"), Progress(decided=T0, fired=1),
        Progress(decided=T0, skipped=1), Progress(decided=T0 + timedelta(microseconds=1)),
    ]  # fmt: skip

    assert len({pack(one) for one in (base, *others)}) == 1 + len(others)


def test_a_reason_that_is_too_long_is_cut_at_a_character() -> None:
    kept = unpack(pack(Progress(decided=T0, last_reason="€" * 30_000, paused="note")))

    assert kept.last_reason == "€" * 21_845
    assert kept.paused == "note"


@pytest.mark.parametrize(
    "field, value",
    [
        ("decided", None), ("decided", 7), ("decided", "yesterday"), ("decided", "2026-01-01T00:00:00"),
        ("fired", "3"), ("fired", -1), ("skipped", 1.5), ("last_slot", "soon"), ("last_outcome", 3), ("paused", True),
        ("over", "yes"),
    ],
)  # fmt: skip
def test_a_record_whose_value_is_none_of_its_kind_is_refused_by_its_field(field: str, value: object) -> None:
    with pytest.raises(ScheduleError) as refused:
        progress_from({"decided": T0.isoformat(), field: value})

    assert refused.value.field == field
