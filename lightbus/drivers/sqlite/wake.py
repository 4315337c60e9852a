"""How a waiting consumer learns at once that there is something for it, without looking again and again.

Each consuming connection binds a datagram socket in the file system and writes its path into its session's row; who
publishes sends one byte to it. A lost or refused byte does no harm: consumers look by themselves at least once per
second. `transport.py` decides how long to wait, `sessions.py` who is woken.
"""

from __future__ import annotations

import hashlib
import os
import select
import socket
import stat
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress

MAX_SOCKET_PATH_BYTES = 100  # sockaddr_un holds 108 on Linux and 104 on macOS, the final NUL included
STALE_SECONDS = 3600.0


class Waker:
    """Sends the wake-ups. Never blocks, never fails; may cross a fork."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._closed = False

    def __call__(self, socket_paths: Iterable[str]) -> None:
        for path in socket_paths:
            if self._closed:
                return
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            # Full: it has been woken and is about to look. Refused or gone: its process died, its lease will end.
            with suppress(OSError):
                self._socket.sendto(b"w", path)

    def close(self) -> None:
        self._closed = True
        if self._socket is not None:
            self._socket.close()


class Waiter:
    """Where one connection waits: for wake-ups from other processes, and for a nudge from its own."""

    def __init__(self) -> None:
        self._nudge_in, self._nudge_out = socket.socketpair()
        self._nudge_in.setblocking(False)
        self._nudge_out.setblocking(False)
        self._inbox: socket.socket | None = None
        self._poll = select.poll()
        self._poll.register(self._nudge_in, select.POLLIN)
        self.path: str | None = None

    def bind(self, bus_path: str, name: str) -> None:
        """Open the inbox. Without a folder that can hold one, `path` stays None and waiting is by the clock."""
        for folder in _folders(bus_path):
            path = os.path.join(folder, name)
            if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
                continue
            inbox = _bound(folder, path)
            if inbox is None:
                continue
            inbox.setblocking(False)
            self._inbox, self.path = inbox, path
            self._poll.register(inbox, select.POLLIN)
            return

    def nudge(self) -> None:
        """End a `wait` under way, or the next one. From any thread."""
        with suppress(OSError):
            self._nudge_out.send(b"n")

    def clear(self) -> None:
        """Forget the wake-ups so far. Look for messages after this and before `wait`, and none is overlooked."""
        for source in (self._nudge_in, self._inbox):
            if source is not None:
                with suppress(OSError):
                    while source.recv(64):
                        pass

    def wait(self, seconds: float) -> None:
        """Return when woken, nudged, or after `seconds`."""
        self._poll.poll(max(0.0, seconds) * 1000)

    def close(self, *, unlink: bool) -> None:
        """`unlink=False` in a forked child, where the inbox is still the parent's."""
        for source in (self._nudge_in, self._nudge_out, self._inbox):
            if source is not None:
                source.close()
        if unlink and self.path is not None:
            with suppress(OSError):
                os.unlink(self.path)
                os.rmdir(os.path.dirname(self.path))  # fails while another connection has its inbox there
        self._inbox = self.path = None


def remove_stale_sockets(folder: str, live: set[str]) -> None:
    """Unlink sockets in `folder` that no session names. Old ones only: a young one may be about to be named."""
    now = time.time()
    with suppress(OSError):
        for entry in os.scandir(folder):
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISSOCK(status.st_mode) and entry.path not in live and now - status.st_mtime > STALE_SECONDS:
                    os.unlink(entry.path)


def _folders(bus_path: str) -> list[str]:
    """Where the inbox may live, best first: beside the file; for deep paths, a short folder of this user's own."""
    digest = hashlib.sha256(os.fsencode(os.path.realpath(bus_path))).hexdigest()[:12]
    short = f"lightbus-{os.getuid()}-{digest}"
    roots = [os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"]
    return [bus_path + ".wake", *(os.path.join(root, short) for root in roots if root)]


def _bound(folder: str, path: str) -> socket.socket | None:
    """An inbox at `path`, or None when `folder` cannot hold one."""
    for _ in range(10):
        inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            _make_private(folder)
            inbox.bind(path)
        except FileNotFoundError:
            inbox.close()  # the last connection has just removed the folder that was there a moment ago
        except OSError:
            inbox.close()
            return None
        else:
            return inbox
    return None


def _make_private(folder: str) -> None:
    """The folder, ours alone. In a shared directory somebody else could have made it first."""
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} is not a directory of this user alone")
