from __future__ import annotations

import pytest

from lightbus.core.errors import DeclarationError
from lightbus.core.retry import RetryPolicy


@pytest.mark.parametrize(
    "attempt, jitter, seconds",
    [(1, 0.0, 0.5), (1, 1.0, 1.0), (4, 1.0, 8.0), (4, 0.0, 4.0), (2000, 1.0, 600.0)],
    ids=["half is certain", "first", "doubles", "half of the doubled", "capped"],
)
def test_the_delay_doubles_up_to_the_cap(attempt: int, jitter: float, seconds: float) -> None:
    assert RetryPolicy(max_retries=5000).delay_seconds(attempt, jitter) == seconds


def test_the_last_attempt_has_no_successor() -> None:
    assert RetryPolicy(max_retries=2).delay_seconds(2, 0.0) is not None
    assert RetryPolicy(max_retries=2).delay_seconds(3, 0.0) is None
    assert RetryPolicy(max_retries=0).delay_seconds(1, 0.0) is None


@pytest.mark.parametrize("wrong", [{"max_retries": -1}, {"base_seconds": 0}, {"base_seconds": 2, "cap_seconds": 1}])
def test_a_policy_that_cannot_work_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(DeclarationError, match=str(next(iter(wrong.values())))):
        RetryPolicy(**wrong)  # type: ignore[arg-type]
