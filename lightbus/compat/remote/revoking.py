"""Commands that revoke and terminate. What is revoked is kept before anything else is done or answered."""

from __future__ import annotations

import logging
import signal as signals
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import states
from ..exceptions import TaskRevokedError
from ..results import ResultDocument, exception_triple
from . import statedb
from .panel import ControlNode, Panel, Reply, is_true, listed
from .revokes import matching

logger = logging.getLogger("lightbus.worker")

_MAY_BE_REVOKED = {states.PENDING, states.RECEIVED, states.RETRY, states.REJECTED}
_IDS_PER_WORD = 500  #: ids of 36 characters in one datagram to the processes


def revoke(panel: Panel, task_id: Any = (), terminate: Any = False, signal: Any = None, **_: Any) -> Reply:
    ids = listed(task_id)
    signum = _signum(signal)  # before anything is done
    panel.app.revokes.add(ids)
    _keep(panel.node)
    active = {one["id"] for _, one in panel.held("active")}
    for one in ids:
        if one not in active:
            _store_revoked(panel, one)
    if not is_true(terminate):
        logger.info("tasks flagged as revoked: %s", ", ".join(ids))
        return {"ok": f"tasks {set(ids)} flagged as revoked"}
    _terminate(panel, ids, signum)  # also what was not told of: a busy process may not have answered in time
    ended = [one for one in ids if one in active]
    return {"ok": f"terminate: {', '.join(ended)}" if ended else "terminate: tasks unknown"}


def terminate(panel: Panel, task_id: Any = (), signal: Any = None, **_: Any) -> Reply:
    return revoke(panel, task_id, terminate=True, signal=signal)


def revoke_by_stamped_headers(
    panel: Panel, headers: Any = (), terminate: Any = False, signal: Any = None, **_: Any
) -> Reply:
    signum = _signum(signal)
    if not isinstance(headers, Mapping):
        headers = dict(str(one).split("=", 1) for one in headers)
    wanted = {str(header): _values(stamps) for header, stamps in headers.items()}
    panel.app.revokes.add_stamps(wanted)
    _keep(panel.node)
    if not is_true(terminate):
        return {"ok": f"headers {headers} flagged as revoked, but not terminated"}
    ended = {one["id"]: found for _, one in panel.held("active") if (found := matching(one["stamps"], wanted))}
    if not ended:
        return {"ok": f"headers {headers} were not terminated"}
    _terminate(panel, list(ended), signum)
    return {"ok": f"headers {_merged(ended.values())} revoked"}


def take_revokes(node: ControlNode, ids: Iterable[object]) -> None:
    """Revoke what others have revoked."""
    node.app.revokes.add(str(one) for one in ids)
    _keep(node)


def _terminate(panel: Panel, ids: Sequence[str], signum: int) -> None:
    logger.info("terminating %s (%d)", ", ".join(ids), signum)
    for start in range(0, len(ids), _IDS_PER_WORD):
        panel.worker.say("terminate", {"ids": ids[start : start + _IDS_PER_WORD], "signum": signum})


def _keep(node: ControlNode) -> None:
    if node.state_db is not None:
        try:
            statedb.save(node.state_db, node.app.revokes)
        except OSError as error:
            logger.error("revokes hold, but were not saved to %s: %s", node.state_db, error)


def _store_revoked(panel: Panel, task_id: str) -> None:
    """Tell whoever waits, at once: the message may lie in the broker for long. As Celery 5.7 does it."""
    try:
        results = panel.app.results
        if not results.keeps:
            return
        known = results.fetch(task_id)
        if known is None or known.status in _MAY_BE_REVOKED:
            document = ResultDocument(
                task_id=task_id, status=states.REVOKED, result=exception_triple(TaskRevokedError("revoked")),
                traceback=None, children=[], date_done=panel.app.now_text(),
            )  # fmt: skip
            results.store(document, reply_to="", correlation_id=task_id)
    except Exception as error:  # noqa: BLE001 - a result store that is down must not cost the revoke
        logger.warning("task %s is revoked, but that was not stored: %s", task_id, error)


def _values(stamps: Any) -> list[object]:
    return list(stamps) if isinstance(stamps, (list, tuple, set)) else [stamps]


def _merged(found: Iterable[Mapping[str, Iterable[object]]]) -> dict[str, list[object]]:
    merged: dict[str, list[object]] = {}
    for one in found:
        for header, values in one.items():
            merged.setdefault(header, []).extend(values)
    return merged


def _signum(name: Any) -> int:
    """`SIGKILL`, `KILL`, `kill` or 9; None is SIGTERM.

    Raises:
        ValueError: there is no such signal.
    """
    if name is None or name == "":
        return int(signals.SIGTERM)
    text = str(name)
    if text.isdigit():
        return int(signals.Signals(int(text)))
    found = getattr(signals, f"SIG{text.upper().removeprefix('SIG')}", None)
    if not isinstance(found, signals.Signals):
        raise ValueError(f"no signal is named {name!r}")
    return int(found)
