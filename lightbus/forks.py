"""What must be made anew in a forked child: locks that another thread held at that moment, connections of the parent.

Preloading servers fork a program that has published already: gunicorn with `--preload`, `multiprocessing`, a worker. In
the child only the thread that forked lives on, so a lock that another one held stays locked for ever, and the sockets
are shared with the parent, who still uses them.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Renewable(Protocol):
    """Something with locks, connections or threads."""

    def renew_after_fork(self) -> None:
        """In the child: new locks, and nothing of the parent's is used any more. Must not block or write anywhere.

        What the parent has connected is kept and left alone: the end of such an object would say goodbye on the
        parent's socket.
        """


# A hook of the process cannot know its objects otherwise. Weak: it keeps nothing alive.
_RENEWABLE: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renewed_after_fork(thing: Renewable) -> None:
    """Have `thing` renewed in each child of this process."""
    _RENEWABLE.add(thing)


def _renew() -> None:
    for thing in list(_RENEWABLE):
        thing.renew_after_fork()


os.register_at_fork(after_in_child=_renew)
