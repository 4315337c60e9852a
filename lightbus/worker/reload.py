"""New code without a gap: the supervisor becomes the same command once more (exec), keeping its pid.

A process that has imported a module cannot take that back, and its forks have it too. So the supervisor asks its own
command, in a process on the side, whether the new code loads (`--check`); only then it executes itself. Its children
stay its children over that. The new supervisor starts children with the new code, and as each one consumes, it stops
one of the old.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "LIGHTBUS_RELOADED"  #: from the old supervisor to the new one; not for people
CHECK_SECONDS = 60.0
_INSTALLED = {"site-packages", "dist-packages"}


@dataclass(frozen=True, slots=True)
class Predecessors:
    """What is left of the supervisor that this process was before.

    Attributes:
        pids: its children, which are this process's.
        life: write ends of the pipes by which they see that their supervisor lives.
    """

    pids: tuple[int, ...] = ()
    life: tuple[int, ...] = ()

    @staticmethod
    def from_environment() -> Predecessors:
        """Read once: taken out of the environment, so that no child hands it on."""
        text = os.environ.pop(VARIABLE, "")
        if not text:
            return Predecessors()
        found = json.loads(text)
        if found["pid"] != os.getpid():  # set by an outer worker that started this one
            return Predecessors()
        return Predecessors(tuple(found["pids"]), tuple(found["life"]))


def command() -> list[str]:
    """The running command line, to be run again."""
    return [sys.executable, *sys.orig_argv[1:]]


class Check:
    """Whether the code as it is now loads: the command's own `--check`, in a process on the side."""

    def __init__(self) -> None:
        import subprocess  # only a reload needs them
        import tempfile

        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed below; not a pipe: it need not be read while the process runs
        self._deadline = time.monotonic() + CHECK_SECONDS
        self._process = subprocess.Popen(
            [*command(), "--check"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors,
            start_new_session=True,  # a Ctrl-C of the terminal is for the worker
        )  # fmt: skip

    def has_ended(self) -> bool:
        """SIGCHLD tells when to ask."""
        if self._process.poll() is None and time.monotonic() >= self._deadline:
            self._process.kill()
            self._process.wait()
        return self._process.returncode is not None

    def objection(self) -> str | None:
        """What it says against the code; None when that loads. Once it has ended."""
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        self._errors.close()
        if self._process.returncode == 0:
            return None
        return text or f"it did not load within {CHECK_SECONDS:g} s"

    def cancel(self) -> None:
        """Nobody wants to know any more."""
        self._process.kill()
        self._process.wait()
        self._errors.close()


def become_new(pids: Sequence[int], life: Sequence[int], blocked: Iterable[signal.Signals]) -> None:
    """Execute the command again in this process. Does not return.

    Args:
        blocked: held back until the new supervisor has handlers for them; the mask outlives the exec.
    """
    for writer in life:
        os.set_inheritable(writer, True)
    os.environ[VARIABLE] = json.dumps({"pid": os.getpid(), "pids": list(pids), "life": list(life)})
    signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = command()
    os.execv(arguments[0], arguments)


class SourceWatch:
    """Looks whether the project's source has changed, by the files' times (no extra package, any file system).

    Watched are the .py files in the folders of what is imported, without the interpreter's and installed packages'.
    """

    def __init__(self) -> None:
        import sysconfig  # only `--reload` needs it

        standard = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
        apart = {*standard, os.path.realpath(Path(__file__).parents[1])}
        files = [module.__dict__.get("__file__") for module in list(sys.modules.values())]
        folders = {Path(os.path.realpath(file)).parent for file in files if file and file.endswith(".py")}
        self.folders = sorted(folder for folder in folders if not _INSTALLED & set(folder.parts) and not any(
            folder.is_relative_to(one) for one in apart
        ))  # fmt: skip
        self._seen = self._look()

    def changed(self) -> list[Path]:
        """Files that were changed, added or removed since the last call."""
        seen = self._look()
        differing = {path for path, _ in set(seen.items()) ^ set(self._seen.items())}
        self._seen = seen
        return sorted(differing)

    def _look(self) -> dict[Path, tuple[int, int]]:
        found = {}
        for folder in self.folders:
            for path in folder.glob("*.py"):
                try:
                    stat = path.stat()
                except OSError:  # it has just gone
                    continue
                found[path] = (stat.st_mtime_ns, stat.st_size)
        return found
