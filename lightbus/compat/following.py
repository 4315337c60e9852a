"""What a worker sends after a task has ended: its callbacks and the next step of its chain, or its errbacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .canvas.compose import signature
from .errbacks import errbacks_to_send
from .request import entered
from .results import format_traceback
from .together import Sent, collected

if TYPE_CHECKING:
    from .app import TaskApp
    from .recording import Run


class Followers:
    """Sends what a message says is to follow, each part with the ended task as its parent."""

    def __init__(self, app: TaskApp) -> None:
        self._app = app

    def after_success(self, run: Run, result: object) -> Sent:
        """Send callbacks and the next step. The caller waits for their confirms.

        Raises:
            Exception: it was not sent; with `task_always_eager` also what a callback's own code raises.
        """
        message, chain = run.message, list(run.message.chain or ())
        with entered(run), collected() as sent:
            self._send_all(run, message.callbacks, (result,))
            if chain:
                signature(chain[-1], app=self._app).apply_async((result,), **_flow(run, chain=chain[:-1]))
        sent.raise_known()
        return sent

    def after_failure(self, run: Run, error: BaseException) -> None:
        """Call errbacks, or send them; raises as `after_success`."""
        if not run.message.errbacks:
            return
        with entered(run):
            errbacks = errbacks_to_send(
                self._app, run.message.errbacks, run.request, error, format_traceback(error)
            )  # fmt: skip
            self._send_all(run, errbacks, (run.message.id,))

    def _send_all(self, run: Run, signatures: Sequence[Any] | None, args: tuple[Any, ...]) -> None:
        group = {"group_id": f"{run.message.id}-links"} if len(signatures or ()) > 1 else {}
        for index, one in enumerate(signatures or ()):
            options = _flow(run, **group, **({"group_index": index} if group else {}))
            signature(one, app=self._app).apply_async(args, **options)


def _flow(run: Run, **options: Any) -> dict[str, Any]:
    return {"parent_id": run.message.id, "root_id": run.message.root_id or run.message.id, **options}
