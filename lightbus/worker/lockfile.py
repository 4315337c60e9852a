"""A file without a name, for record locks between the processes of one worker: the kernel frees those of a dead one."""

from __future__ import annotations

import os
from typing import IO


def lock_file() -> IO[bytes]:
    """A new one. It is to be made before the first fork, and open as long as the worker runs."""
    if hasattr(os, "memfd_create"):  # Linux
        return os.fdopen(os.memfd_create("lightbus-locks"), "w+b", buffering=0)
    import tempfile  # it loads half a MiB

    return tempfile.TemporaryFile()
