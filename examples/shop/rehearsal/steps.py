"""The move of one task in five steps, each played by real processes. What they say goes to `say`; the ids of what was
sent are kept, so that whoever asks can look each one up in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .programs import Program, Web, wait_for
from .stage import CELERY_QUEUE, CELERY_READY, LIGHTBUS_QUEUE, LIGHTBUS_READY, Stage

SECONDS = 60.0  #: the longest wait for one thing; a healthy machine needs a few
SOON_SECONDS = 1.0
HELD_SECONDS = 10.0  #: a countdown that outlasts the restart of a worker
DELAYED_SECONDS = 4.0

ORDERS = range(1, 6)


@dataclass
class Sent:
    """Ids of the tasks sent, by what they are there to show."""

    before: list[str] = field(default_factory=list)  #: run before the move
    held: list[str] = field(default_factory=list)  #: with a countdown, held by the Celery worker during the move
    queued: list[str] = field(default_factory=list)  #: in Celery's queue while its worker restarts
    moved: list[str] = field(default_factory=list)  #: of the moved task, sent by code that knows of the move
    others: list[str] = field(default_factory=list)  #: of the tasks that stay with Celery, meanwhile
    old_code: list[str] = field(default_factory=list)  #: of the moved task, sent by a process that runs the old code
    queued_back: list[str] = field(default_factory=list)  #: in Lightbus's queue when the task goes back
    delayed_back: list[str] = field(default_factory=list)  #: delayed in the broker when the task goes back
    after: list[str] = field(default_factory=list)  #: sent after the task went back


class Move:
    """The five steps, in order: each goes on where the one before ended.

    Args:
        say: called with one line of narration at a time.
    """

    CALLS_WELL = {"opened": len(ORDERS), "listed": len(ORDERS), "refused": True}  # noqa: RUF012  # never changed

    def __init__(self, stage: Stage, say: Callable[[str], None] = lambda line: None) -> None:
        self.stage = stage
        self.sent = Sent()
        self.diff: list[str] = []
        self.calls: dict[str, Any] = {}
        self._say = say

    def celery_runs_everything(self) -> None:
        """Step 1: a Celery worker, a web process, messages under way."""
        stage, sent = self.stage, self.sent
        self._celery, self._old_web = stage.celery(), stage.web()
        self._say("Starting a Celery worker and the web shop.")
        self._old_web.answer()
        self._celery.wait_for_log(CELERY_READY)
        web = self._old_web
        sent.before += _resize(web, "delay", 6) + _resize(web, "countdown", 2, SOON_SECONDS)
        sent.before += _resize(web, "send_task", 2) + _mail(web, "delay", 6)
        self._say(f"The shop sends {len(sent.before)} tasks: delay, apply_async(countdown=...), send_task.")
        self._results(web, sent.before)
        self._say("Celery ran them all. Their results are back in the shop.")
        sent.held += _resize(web, "countdown", 4, HELD_SECONDS)
        for task_id in sent.held:
            self._celery.wait_for_log(f"[{task_id}] received")
        self._say(
            f"{len(sent.held)} more have a countdown of {HELD_SECONDS:g} s: the Celery worker holds them in memory."
        )

    def one_task_moves(self) -> None:
        """Step 2: the import is edited, the Celery worker restarted, a Lightbus worker started; no caller changes."""
        stage, sent = self.stage, self.sent
        self._say("The edit, all of it:")
        self.diff = stage.move(to_lightbus=True)
        for line in self.diff:
            self._say(f"    {line}")
        self._lightbus = stage.lightbus("shop")
        self._say("A warm restart of the Celery worker. Meanwhile the old shop goes on sending to Celery's queue.")
        self._celery.stop()
        sent.queued += _resize(self._old_web, "delay", 5)
        self._celery, self._web = stage.celery(), stage.web()
        self._web.answer()
        self._lightbus.wait_for_log(LIGHTBUS_READY)
        self._celery.wait_for_log(CELERY_READY)
        self._say("A new shop process with the edited code sends in every way, to both sides.")
        web = self._web
        sent.moved += _resize(web, "delay", 3) + _resize(web, "countdown", 3, SOON_SECONDS)
        sent.moved += _resize(web, "send_task", 3) + _resize(web, "lightbus", 3)
        sent.others += _mail(web, "delay", 3) + _mail(web, "send_task", 3) + _mail(web, "lightbus", 3)
        self._results(web, sent.moved + sent.others)
        self._say("resize_image runs in Lightbus, mail_receipt in Celery; the shop got all results.")

    def nothing_under_way_is_lost(self) -> None:
        """Step 3: what was queued for Celery, held by it, or sent by old code arrives at Lightbus."""
        sent, web = self.sent, self._old_web
        sent.old_code += _resize(web, "delay", 3) + _resize(web, "countdown", 2, SOON_SECONDS)
        self._say(f"The old shop process still sends to Celery: {len(sent.old_code)} more.")
        under_way = sent.held + sent.queued + sent.old_code
        self._say(f"The bridge forwards all {len(under_way)} to Lightbus: held, queued, and sent by old code.")
        self._results(web, under_way)
        self._say("Each ran once, those with a countdown not too early, and the old shop got the results.")

    def two_applications_talk(self) -> None:
        """Step 4: the shop fires events that two listeners of support get, and calls support."""
        support = self.stage.lightbus("support")
        support.wait_for_log(LIGHTBUS_READY)
        self._say("Support, the second application, joins with a Lightbus worker: two listeners and an API.")
        self._web.ask(do="place", orders=list(ORDERS))
        wait_for(lambda: not self.stage.ledger.unheard, SECONDS, "both listeners to hear all", self.stage.all_logs)
        self._say(f"The shop fired {len(ORDERS)} events; both listeners got each one.")
        self.calls = self._web.ask(do="call", orders=list(ORDERS))
        self._say("The shop called support: tickets opened by sync calls, listed by async ones at the same time,")
        self._say("and an order that is not there came back as the error that the API declares.")
        self._support = support

    def the_task_goes_back(self) -> None:
        """Step 5: the edit is undone with messages queued and delayed in Lightbus; Celery runs them."""
        stage, sent, web = self.stage, self.sent, self._web
        self._lightbus.stop()
        sent.queued_back += _resize(web, "delay", 4)
        sent.delayed_back += _resize(web, "countdown", 3, DELAYED_SECONDS)
        self._say(
            f"{len(sent.queued_back)} messages wait in {LIGHTBUS_QUEUE}, {len(sent.delayed_back)} are delayed there."
        )
        for line in stage.move(to_lightbus=False):
            self._say(f"    {line}")
        self._celery.stop()
        self._celery, newest = stage.celery(), stage.web()
        newest.answer()
        self._celery.wait_for_log(CELERY_READY)
        self._lightbus = stage.lightbus("shop")
        sent.after += _resize(newest, "delay", 3)
        self._results(newest, sent.after)
        self._say("New messages go to Celery at once. The Lightbus worker forwards to Celery what it no longer knows.")
        self._results(web, sent.queued_back + sent.delayed_back)
        self._say("Celery ran them all.")

    def end(self) -> None:
        """Stop the workers warmly and see that nothing is left in a queue.

        Raises:
            WaitedInVain: a message is left, or a worker does not end.
        """
        workers: list[Program] = [self._celery, self._lightbus, self._support]
        queues = (CELERY_QUEUE, LIGHTBUS_QUEUE)
        wait_for(
            lambda: not any(map(self.stage.waiting, queues)), SECONDS, f"{queues} to be empty", self.stage.all_logs
        )
        for worker in workers:
            worker.signal(Program.STOP)
        for worker in workers:
            worker.wait()

    STEPS: tuple[tuple[str, Callable[[Move], None]], ...] = (
        ("Celery runs everything", celery_runs_everything),
        ("One task moves", one_task_moves),
        ("Nothing under way is lost", nothing_under_way_is_lost),
        ("Two applications talk", two_applications_talk),
        ("The task goes back", the_task_goes_back),
    )

    def _results(self, web: Web, ids: list[str]) -> None:
        """Get the results of `ids` in the process that sent them, and see that the ledger has them too."""
        got = web.ask(do="results", ids=ids, seconds=SECONDS)["results"]
        assert len(got) == len(ids)
        self.stage.wait_for_runs(ids, SECONDS)


#: Messages that the five steps send, for a progress bar: tasks, and events once per listener.
MESSAGES = 16 + 4 + 5 + 12 + 9 + 5 + 2 * len(ORDERS) + 7 + 3


def _resize(web: Web, how: str, count: int, seconds: float = 0.0) -> list[str]:
    ids: list[str] = web.ask(do="resize", how=how, count=count, seconds=seconds)["ids"]
    return ids


def _mail(web: Web, how: str, count: int) -> list[str]:
    ids: list[str] = web.ask(do="mail", how=how, count=count)["ids"]
    return ids
