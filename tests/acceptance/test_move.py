"""One task moves from Celery to Lightbus and back while messages are under way, in the processes of a real project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.shop import BROKERS, DEAD_QUEUE, LISTENERS, ORDERS, Ledger, Move, broker, stage_on
from tests.brokers import Brokers


class Played:
    """A move that is played as far as a test asks for, so that each test can also run alone."""

    def __init__(self, move: Move) -> None:
        self.move = move
        self.sent = move.sent
        self.stage = move.stage
        self._steps = list(Move.STEPS)

    def up_to(self, number: int) -> Ledger:
        """The ledger after step `number`, which is played now if it has not been."""
        while len(Move.STEPS) - len(self._steps) < number:
            _title, step = self._steps.pop(0)
            step(self.move)
        return self.stage.ledger


@pytest.fixture(
    scope="module",
    # One broker's steps build on each other: they are for one worker of the test run.
    params=[pytest.param(kind, marks=pytest.mark.xdist_group(f"move-{kind}")) for kind in BROKERS],
)
def played(
    request: pytest.FixtureRequest, brokers: Brokers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Played]:
    folder: Path = tmp_path_factory.mktemp("move")
    with broker(request.param, brokers, folder) as url, stage_on(url, folder) as stage:
        yield Played(Move(stage))


def engines(ledger: Ledger, ids: list[str]) -> set[str]:
    assert ids, "nothing was sent, so nothing is shown"
    return {ledger.engine_of(task_id) for task_id in ids}


def test_with_the_bridge_installed_celery_runs_what_it_ran_before(played: Played) -> None:
    ledger = played.up_to(1)

    assert engines(ledger, played.sent.before) == {"celery"}
    assert not played.stage.forwarded
    assert not ledger.ran(*played.sent.held[:1])  # held by the Celery worker until their countdown is over


def test_one_edited_import_moves_one_task_and_no_caller_changes(played: Played) -> None:
    ledger = played.up_to(2)

    assert played.move.diff == ["-from celery import shared_task as task", "+from lightbus.compat import task"]
    assert engines(ledger, played.sent.moved) == {"lightbus"}
    assert engines(ledger, played.sent.others) == {"celery"}
    assert {ledger.sent[task_id]["how"] for task_id in played.sent.moved} == {
        "delay", "countdown", "send_task", "lightbus",
    }  # fmt: skip
    for task_id in played.sent.moved:
        assert ledger.runs[task_id][0]["task"] == "shop.tasks.resize_image"


def test_what_was_queued_or_held_or_sent_by_old_code_reaches_lightbus_once(played: Played) -> None:
    ledger = played.up_to(3)
    under_way = played.sent.held + played.sent.queued + played.sent.old_code

    assert engines(ledger, under_way) == {"lightbus"}
    assert played.stage.forwarded >= set(under_way)
    assert ledger.lost == []
    assert ledger.twice == []
    assert ledger.early == []


def test_two_listeners_get_each_event_once_and_calls_are_answered(played: Played) -> None:
    ledger = played.up_to(4)

    assert ledger.fired == list(ORDERS)
    assert ledger.heard == {(name, order): 1 for name in LISTENERS for order in ORDERS}
    assert played.move.calls == Move.CALLS_WELL


def test_the_task_goes_back_with_messages_queued_and_delayed(played: Played) -> None:
    ledger = played.up_to(5)
    sent = played.sent

    assert engines(ledger, sent.queued_back + sent.delayed_back + sent.after) == {"celery"}
    assert set(ledger.marked) >= set(sent.queued_back + sent.delayed_back)


def test_the_ledger_of_the_whole_move_holds(played: Played) -> None:
    played.up_to(5)
    played.move.end()  # whoever still had a message that was handled already would run it again now
    ledger = played.stage.ledger

    assert ledger.lost == []
    assert ledger.twice == []
    assert ledger.early == []
    assert set(ledger.runs) == set(ledger.sent)
    assert ledger.heard_twice == []
    assert ledger.unheard == []
    assert played.stage.waiting(DEAD_QUEUE) == 0
    assert all("Traceback" not in log.read_text() for log in played.stage.all_logs)


def test_the_files_are_the_work_that_was_asked_for(played: Played) -> None:
    played.up_to(1)
    ledger = played.stage.ledger
    made: dict[str, Any] = {path.suffix: path for path in played.stage.var.rglob("*") if path.is_file()}

    assert made[".png"].read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert b"Your order" in made[".eml"].read_bytes()
    mails = [runs for runs in ledger.runs.values() if runs[0]["task"] == "shop.tasks.mail_receipt"]
    assert len(list(played.stage.var.glob("outbox/*.eml"))) == len(mails)
