"""The window of acknowledgements, against the simplest model there is: a set of open tags."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lightbus.drivers.kombu.ack_window import AckWindow


def test_a_run_of_finished_deliveries_is_one_frame() -> None:
    window = AckWindow()
    for tag in range(1, 6):
        window.delivered(tag)
    for tag in (3, 1, 2):
        window.settled(tag)

    assert window.acknowledgements() == [(3, True)]
    assert window.acknowledgements() == []


def test_a_delivery_that_still_runs_is_never_acknowledged_by_a_later_one() -> None:
    window = AckWindow()
    for tag in (1, 2, 3):
        window.delivered(tag)
    window.settled(2)
    window.settled(3)

    assert window.acknowledgements() == [(2, False), (3, False)]
    window.settled(1)
    assert window.acknowledgements() == [(1, True)]


@given(st.data())
def test_the_broker_ends_up_with_exactly_what_was_settled(data: st.DataObject) -> None:
    """A model of the broker's side: a frame removes its tag, or every open tag up to it."""
    window = AckWindow()
    open_on_broker: set[int] = set()
    unsettled: set[int] = set()
    next_tag = 1
    for _ in range(data.draw(st.integers(0, 40))):
        step = data.draw(st.sampled_from(["deliver", "settle", "reject", "flush"]))
        if step == "deliver":
            window.delivered(next_tag)
            open_on_broker.add(next_tag)
            unsettled.add(next_tag)
            next_tag += 1
        elif step in ("settle", "reject") and unsettled:
            tag = data.draw(st.sampled_from(sorted(unsettled)))
            unsettled.discard(tag)
            if step == "settle":
                window.settled(tag)
            else:
                window.rejected(tag)
                open_on_broker.discard(tag)
        elif step == "flush":
            for tag, multiple in window.acknowledgements():
                gone = {t for t in open_on_broker if t <= tag} if multiple else {tag}
                assert gone <= open_on_broker, "acknowledged twice: the broker would close the channel"
                assert not gone & unsettled, "acknowledged while it still runs"
                open_on_broker -= gone
            assert open_on_broker == unsettled
