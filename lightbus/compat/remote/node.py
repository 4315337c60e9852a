"""The control node: it stands beside a worker's children, with a connection of its own.

It listens for commands, beats, and greets the other nodes once. It holds no message and no task: what goes wrong here
is logged, and it connects anew. It ends with the worker, after a good-bye.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import kombu
from kombu.exceptions import InconsistencyError
from kombu.pidbox import Mailbox

from ...version import VERSION
from .changing import Shutdown
from .commands import commands
from .facts import Attended, Worker
from .mailbox import Announcer, drain, open_connection, open_mailbox
from .panel import ControlNode, Panel
from .revoking import take_revokes

logger = logging.getLogger("lightbus.worker")

LOOK_SECONDS = 0.25  #: an end of the worker is seen after so long
BEAT_SECONDS = 2.0  #: how often the connection is looked after where the node itself does not beat
MINGLE_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
HEARTBEAT_SECONDS = 30.0  #: of the connection on AMQP


def run_node(node: ControlNode, attended: Attended) -> None:
    """See `worker.attendant.Program`: returns when the worker has ended."""
    _Listening(node, Worker(attended)).run()


class _Listening:
    def __init__(self, node: ControlNode, worker: Worker) -> None:
        self._node = node
        self._worker = worker
        self._mailbox = open_mailbox(node.app)
        self._has_mingled = not node.mingles
        self._started = time.time()
        self._announcer: Announcer | None = None
        self._listens = False
        self._said = ""  # the last complaint

    def run(self) -> None:
        pause = 0.0
        while self._worker.lives:
            try:
                with open_connection(self._node.app, to_write=False, heartbeat_seconds=HEARTBEAT_SECONDS) as connection:
                    connection.ensure_connection(max_retries=1, timeout=5)
                    with self._way_out(connection) as outgoing:
                        self._serve(connection, outgoing)
            except Exception as error:  # noqa: BLE001 - a broker that is away has as many errors as transports
                pause = FIRST_PAUSE_SECONDS if self._listens or not pause else min(2 * pause, LONGEST_PAUSE_SECONDS)
                self._complain(error)
                self._worker.rest(pause)
            self._announcer, self._listens = None, False

    def _way_out(self, connection: kombu.Connection) -> AbstractContextManager[kombu.Connection]:
        """Where events are sent: the same connection, unless the settings have an URL of its own for that."""
        app = self._node.app
        return open_connection(app) if app.settings.broker_write_url else nullcontext(connection)

    def _complain(self, error: Exception) -> None:
        """Once, as long as it is the same."""
        text = str(error)
        if isinstance(error, InconsistencyError):
            text = f"a node of the name {self._node.hostname} is there already; give this worker another with -n NAME"
        logger.log(
            logging.DEBUG if text == self._said else logging.WARNING,
            "remote control is not heard, it is tried again until it is: %s", text,
        )  # fmt: skip
        self._said = text

    def _serve(self, connection: kombu.Connection, outgoing: kombu.Connection) -> None:
        mailbox, hostname, app = self._mailbox(connection), self._node.hostname, self._node.app
        if self._node.heartbeat_seconds is not None:
            made = partial(app.task_events.made, hostname=hostname, pid=self._worker.pid)
            self._announcer = Announcer(outgoing, app.event_post, hostname, made)
        panel = Panel(
            self._node, self._worker, connection, beat=lambda: self._beat("worker-heartbeat"), started=self._started
        )
        if not self._has_mingled:
            self._mingle(mailbox)
        node = mailbox.Node(hostname, state=panel, channel=connection.channel(), handlers=commands())

        def on_message(body: Any, message: Any) -> None:
            try:
                node.handle_message(body, message)
            except Shutdown:
                pass
            except (*connection.connection_errors, *connection.channel_errors):
                raise  # no answer gets out: connect anew
            except Exception as error:  # whatever somebody has sent
                logger.exception("a control message could not be handled: %s", error)

        node.listen(callback=on_message)
        drain(connection, 0.0)  # kombu subscribes on Redis when it first looks; what was sent before that is lost
        self._listens, self._said = True, ""
        logger.info("remote control: node %s", hostname)
        self._beat("worker-online")
        try:
            self._listen(connection)
        finally:
            self._say_goodbye()

    def _listen(self, connection: kombu.Connection) -> None:
        pause = self._node.heartbeat_seconds or BEAT_SECONDS
        next_beat = time.monotonic() + pause
        while self._worker.lives:
            drain(connection, min(LOOK_SECONDS, next_beat - time.monotonic()))
            connection.heartbeat_check()
            if time.monotonic() >= next_beat:
                self._beat("worker-heartbeat")
                next_beat = time.monotonic() + pause

    def _mingle(self, mailbox: Mailbox) -> None:
        """Ask the other nodes for their revokes, and give them ours."""
        about = {"from_node": self._node.hostname, "revoked": self._node.app.revokes.ids(told_only=True)}
        replies = mailbox.multi_call("hello", about, timeout=MINGLE_SECONDS)
        self._has_mingled = True
        for reply in replies:
            for name, answer in reply.items():
                if name != self._node.hostname and isinstance(answer, Mapping) and answer.get("revoked"):
                    take_revokes(self._node, answer["revoked"])
                    logger.info("revokes of node %s are taken", name)

    def _beat(self, kind: str) -> None:
        if self._announcer is not None:
            self._announcer.send(
                kind, freq=self._node.heartbeat_seconds, active=self._worker.active(),
                processed=self._worker.handled(), loadavg=[round(one, 2) for one in os.getloadavg()],
                sw_ident="lightbus", sw_ver=VERSION, sw_sys=platform.system(),
            )  # fmt: skip

    def _say_goodbye(self) -> None:
        try:
            self._beat("worker-offline")
        except Exception as error:  # noqa: BLE001 - the connection may be what ended
            logger.debug("no good-bye: %s", error)
