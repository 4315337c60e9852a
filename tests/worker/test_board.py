"""The board: what one process writes, another reads; and what is decided from it."""

from __future__ import annotations

import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightbus.core.message import Wire
from lightbus.endpoint import Invocation
from lightbus.ports import Delivery
from lightbus.worker.board import COROUTINE_CELLS, MARKS, Board, Mark, Running, identity_of
from lightbus.worker.crashes import death_of, next_mark


def delivery(queue: str = "q", reply_to: str = "") -> Delivery:
    return Delivery(Wire(body=b"", reply_to=reply_to), queue, False, lambda settlement: None)


def invocation(id: str = "1", name: str = "n", attempt: int = 1, early: bool = False) -> Invocation:
    return Invocation(function=print, name=name, id=id, attempt=attempt, ack_early=early)


def test_what_a_forked_process_writes_is_read_after_its_death() -> None:
    board = Board(2, threads=2)
    pid = os.fork()
    if pid == 0:
        place = board.place(1)
        place.begin(delivery("orders", "answers"), invocation("a", "pay", 3, early=True), 5.0, 7.0, is_coroutine=False)
        place.end(place.begin(delivery("orders"), invocation("b"), 5.0, math.inf, is_coroutine=False))
        os._exit(1)
    os.waitpid(pid, 0)

    (run,) = board.place(1).running()
    assert (run.queue, run.message_id, run.name, run.reply_to) == ("orders", "a", "pay", "answers")
    assert (run.attempt, run.started, run.deadline, run.ack_early, run.complete) == (3, 5.0, 7.0, True, True)
    assert run.identity == identity_of("orders", "a", 3)
    assert list(board.place(0).running()) == []
    assert board.place(0).is_running(identity_of("orders", "a", 3))
    assert not board.place(0).is_running(identity_of("orders", "b", 1))
    board.clear(1)
    assert list(board.place(1).running()) == []
    assert not board.place(0).is_running(identity_of("orders", "a", 3))


def test_a_mark_is_seen_by_a_process_that_runs_already() -> None:
    board = Board(1, threads=1)
    go_reader, go_writer = os.pipe()
    seen_reader, seen_writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        place = board.place(0)
        before = place.marked(identity_of("q", "1", 1))
        os.write(seen_writer, b"x")
        os.read(go_reader, 1)
        after = place.marked(identity_of("q", "1", 1))
        os._exit(0 if (before, after) == (Mark(0, False), Mark(2, True)) else 1)
    os.read(seen_reader, 1)
    board.mark(identity_of("q", "1", 1), Mark(2, True))
    os.write(go_writer, b"x")
    _, status = os.waitpid(pid, 0)
    for descriptor in (go_reader, go_writer, seen_reader, seen_writer):
        os.close(descriptor)

    assert status == 0


def test_another_attempt_and_another_queue_are_other_messages() -> None:
    board = Board(1, threads=1)
    board.mark(identity_of("q", "1", 1), Mark(3, False))

    assert board.marked(identity_of("q", "1", 2)) == Mark(0, False)
    assert board.marked(identity_of("other", "1", 1)) == Mark(0, False)


def test_the_oldest_mark_is_forgotten_first() -> None:
    board = Board(1, threads=1)
    for number in range(MARKS + 1):
        board.mark(identity_of("q", str(number), 1), Mark(1, False))
        if number == 5:
            board.mark(identity_of("q", "0", 1), Mark(2, False))

    assert board.marked(identity_of("q", "1", 1)) == Mark(0, False)
    assert board.marked(identity_of("q", "0", 1)) == Mark(2, False)
    assert board.marked(identity_of("q", str(MARKS), 1)) == Mark(1, False)


def test_coroutines_beyond_the_cells_are_not_listed_and_leave_the_threads_theirs() -> None:
    place = Board(1, threads=1).place(0)
    cells = [
        place.begin(delivery(), invocation(str(number)), 0.0, math.inf, is_coroutine=True)
        for number in range(COROUTINE_CELLS + 2)
    ]
    thread = place.begin(delivery(), invocation("thread"), 0.0, math.inf, is_coroutine=False)

    assert cells[-2:] == [0, 0]
    assert thread
    assert len(list(place.running())) == COROUTINE_CELLS + 1
    assert place.busy() == 1
    for cell in (*cells, thread):
        place.end(cell)
    assert list(place.running()) == []
    again = [place.begin(delivery(), invocation(), 0.0, math.inf, is_coroutine=True) for _ in range(COROUTINE_CELLS)]
    assert all(again)


@given(
    texts=st.tuples(*[st.text(st.characters(), max_size=400)] * 4),
    attempt=st.integers(min_value=1, max_value=2**40),
)
def test_no_text_of_a_message_breaks_a_cell(texts: tuple[str, str, str, str], attempt: int) -> None:
    queue, message_id, name, reply_to = (
        text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") for text in texts
    )
    place = Board(1, threads=1).place(0)
    cell = place.begin(
        delivery(queue, reply_to), invocation(message_id, name, attempt), 1.0, 2.0, is_coroutine=False
    )  # fmt: skip
    (run,) = place.running()

    assert run.identity == identity_of(queue, message_id, attempt)
    assert (run.started, run.deadline) == (1.0, 2.0)
    assert run.reply_to in (reply_to.rstrip("\0"), "")
    if run.complete and "\0" not in queue and queue.isascii() and message_id.isascii():
        assert (run.queue, run.message_id) == (queue, message_id)
    place.end(cell)


def run_in(cell: int, *, early: bool = False) -> Running:
    return Running(cell, 1, identity_of("q", str(cell), 1), "n", "", 1, 0.0, 1.0, early)


def test_all_that_ran_in_a_process_that_died_by_itself_is_suspect() -> None:
    death = death_of([run_in(0), run_in(1, early=True)])

    assert [run.cell for run in death.suspects] == [0, 1]
    assert [run.cell for run in death.lost] == [1]
    assert next_mark(Mark(2, False), death) == Mark(3, False)


def test_only_what_was_over_its_limit_is_marked_when_its_process_was_killed_for_that() -> None:
    death = death_of([run_in(0), run_in(1, early=True)], frozenset({0}))

    assert [run.cell for run in death.suspects] == [0]
    assert [run.cell for run in death.lost] == [1]
    assert next_mark(Mark(2, False), death) == Mark(2, True)


@pytest.mark.parametrize("crashes", [0, 0xFFFF])
def test_a_count_stays_within_its_field(crashes: int) -> None:
    board = Board(1, threads=1)
    mark = next_mark(Mark(crashes, False), death_of([run_in(0)]))
    board.mark(b"x", mark)

    assert board.marked(b"x") == mark
