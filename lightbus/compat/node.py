"""A worker as it is known to others: its name on the bus of Celery's workers, and its process."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from typing import Any


def node_name(name: str = "") -> str:
    """`name`, or `lightbus@<host>`: never `celery@`, because two nodes of one name fight."""
    return name or f"lightbus@{socket.gethostname()}"


@dataclass(frozen=True)
class Node:
    """What is the sender of a worker's signals.

    Attributes:
        hostname: the node's name.
        app: the Celery app whose tasks it serves, or the `TaskApp` where there is none.
        pid: of the process that is the parent of the others.
    """

    hostname: str
    app: Any = field(repr=False)
    pid: int = field(default_factory=os.getpid)

    def __str__(self) -> str:
        return self.hostname
