"""Run a server for as long as its owner lives.

Usage: keep.py OWNER_PID PID_FILE COMMAND...

The command runs in a session of its own, so Ctrl-C in the terminal does not reach it before the
tests have finished with it. It is killed, with all that it started, when this process gets SIGTERM
or when the owner is gone, however the owner ended. The pid file names this process; its removal
says that nothing runs any more. Standard library only.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

LOOK_AT_OWNER_SECONDS = 0.2


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # Killed but not yet reaped by its parent, a process still has its pid. (Only Linux has the file.)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except ProcessLookupError:
        return False
    except (PermissionError, FileNotFoundError):
        return True


def stop(*_signal: object) -> None:
    raise SystemExit(0)


def main() -> int:
    owner, pid_file, command = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        pid_file.write_text(str(os.getpid()))
        while is_alive(owner):
            try:
                return child.wait(timeout=LOOK_AT_OWNER_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        return 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        pid_file.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
