"""When a publisher tries a fresh channel."""

from __future__ import annotations

from lightbus.drivers.kombu.refusals import PATIENCE_SECONDS, Refusals


def test_a_fresh_channel_is_tried_once_after_a_while_and_again_after_a_confirm() -> None:
    refusals = Refusals()
    assert not refusals
    refusals.refused("full", 10.0)
    assert refusals
    assert not refusals.want_fresh_channel(10.0 + PATIENCE_SECONDS / 2)
    refusals.refused("full", 10.0 + PATIENCE_SECONDS / 2)  # the first one counts
    assert refusals.want_fresh_channel(10.0 + PATIENCE_SECONDS)
    refusals.refused("full", 20.0)
    assert not refusals.want_fresh_channel(99.0)

    refusals.confirmed("full")
    assert not refusals
    refusals.refused("full", 100.0)
    assert refusals.want_fresh_channel(100.0 + PATIENCE_SECONDS)


def test_what_is_confirmed_in_time_needs_none() -> None:
    refusals = Refusals()
    refusals.refused("a", 0.0)
    refusals.confirmed("a")
    refusals.refused("b", 1.0)
    assert not refusals.want_fresh_channel(PATIENCE_SECONDS)
    assert refusals.want_fresh_channel(1.0 + PATIENCE_SECONDS)
