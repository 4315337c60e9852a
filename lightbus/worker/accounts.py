"""The supervisor's books on what its children run: who is over a limit, what a dead one ran, who must hear of it."""

from __future__ import annotations

import logging
import signal

from .board import Board
from .children import Child, send_signal
from .crashes import death_of, next_mark
from .lost import as_message, lost_run

logger = logging.getLogger("lightbus.worker")

KILL_SECONDS = 2.0  #: after its hard limit, a process that has not ended itself is killed
NO_CELL = -1  #: what a process was killed for has left the board: nothing in it is to blame


class Accounts:
    """Kept on the supervisor's only thread."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._lost: dict[str, object] = {}  # by message id; no child has been asked to tell of them yet

    def kill_if_hung(self, child: Child, now: float) -> None:
        """Kill a child that did not end itself when something that it runs was over its hard limit, or in time then."""
        over = frozenset(run.cell for run in child.place.running() if now >= run.deadline + KILL_SECONDS)
        kill_at = child.place.kill_at
        hangs = now >= kill_at if kill_at else bool(over)
        if hangs and not child.killed_for:
            logger.error("process %d did not end at a hard time limit of what it runs; it is killed", child.pid)
            child.killed_for = over or frozenset({NO_CELL})
            send_signal(child.pid, signal.SIGKILL)

    def close(self, child: Child, cause: str) -> None:
        """A child is dead: mark what it ran for those who get it next, and note what nobody gets any more.

        Args:
            cause: completes "process 7 ..." for people.
        """
        death = death_of(child.place.running(), child.killed_for)
        self._lost |= child.untold
        for run in death.suspects:
            mark = next_mark(self._board.marked(run.identity), death)
            self._board.mark(run.identity, mark)
            logger.error(
                "process %d %s while it ran name=%s id=%s crashes=%d",
                child.pid, cause, run.name, run.message_id, mark.crashes,
            )  # fmt: skip
        for run in death.lost:
            over_time = run.cell in death.over_time
            if over_time:
                text = "it ran for longer than its hard limit, and its process was killed"
            else:
                text = f"its process {cause}"
            if run.complete:
                self._lost[run.message_id] = as_message(lost_run(run, over_time=over_time, text=text))
            else:
                logger.error(
                    "nobody can be told of a lost run, its id is too long name=%s id=%s", run.name, run.message_id
                )
        self._board.clear(child.number)

    def have_told(self, child: Child) -> None:
        """Ask a child that consumes to tell the endpoints of lost runs. If it dies over that, another one is asked."""
        if self._lost:
            sent = {key: run for key, run in self._lost.items() if child.channel.send("lost", run)}
            child.untold |= sent
            self._lost = {key: run for key, run in self._lost.items() if key not in sent}

    def give_up(self) -> None:
        """The worker ends, and no process is left to tell anybody."""
        for message_id in self._lost:
            logger.error("nobody could be told of a lost run, no process was left id=%s", message_id)
