"""What a worker says of itself: to systemd, in a file, in its pid file."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightbus.core.errors import ConfigError
from lightbus.worker import Health, HealthFile, Systemd
from lightbus.worker.health import TOUCH_SECONDS
from lightbus.worker.pidfile import PidFile
from tests.processes import wait_for
from tests.worker.staged import SECONDS, Staged

READY = Health(ready=True, processes=1, consuming=1, slots=1)
STARTING = Health(processes=1, slots=1)
STOPPING = Health(stopping=True, processes=1, slots=1)


class Manager:
    """A service manager's end of sd_notify(3)."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + path[1:] if path.startswith("@") else path)
        self._socket.setblocking(False)
        self.words: list[str] = []

    def heard(self) -> list[str]:
        try:
            while True:
                self.words.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return self.words

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.close()


def test_systemd_hears_of_ready_reload_and_stop(staged: Staged, manager: Manager) -> None:
    worker = staged.worker(NOTIFY_SOCKET=str(staged.folder / "notify"))
    wait_for(lambda: "READY=1" in manager.heard(), SECONDS, "READY=1", [worker.log])
    worker.signal(signal.SIGHUP)
    wait_for(lambda: manager.heard().count("READY=1") == 2, SECONDS, "a second READY=1", [worker.log])
    reloading = manager.words.index(
        next(word for word in manager.words if word.startswith("RELOADING=1\nMONOTONIC_USEC="))
    )
    assert manager.words.index("READY=1") < reloading < len(manager.words) - 1
    assert worker.stop() == 0
    assert manager.heard()[-1] == "STOPPING=1"


def test_the_watchdog_is_fed_only_while_the_worker_is_ready(manager: Manager, tmp_path: Path) -> None:
    environment = {
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "20000000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    systemd = Systemd.from_environment(environment)
    assert systemd is not None
    systemd.show(STARTING, 100.0)
    assert manager.heard() == []
    systemd.show(READY, 101.0)
    systemd.show(READY, 110.9)
    assert manager.heard() == ["READY=1", "WATCHDOG=1"]
    systemd.show(READY, 111.0)
    assert manager.heard()[2:] == ["WATCHDOG=1"]
    systemd.show(STARTING, 121.0)
    assert manager.heard()[3:] == []
    systemd.show(STOPPING, 131.0)
    systemd.show(STOPPING, 141.0)
    assert manager.heard()[3:] == ["STOPPING=1"]


def test_without_a_manager_nobody_is_told_and_an_abstract_socket_is_found(prefix: str) -> None:
    assert Systemd.from_environment({}) is None
    manager = Manager(f"@{prefix}")
    systemd = Systemd.from_environment({"NOTIFY_SOCKET": f"@{prefix}"})
    assert systemd is not None
    systemd.show(READY, 0.0)
    assert manager.heard() == ["READY=1"]
    manager.close()
    systemd.show(STOPPING, 1.0)  # a manager that is gone must not hurt


def test_the_health_file_is_fresh_only_while_the_worker_is_ready(tmp_path: Path) -> None:
    path = tmp_path / "run" / "health"
    path.parent.mkdir()
    path.touch()  # left by a worker that was killed
    file = HealthFile(path)
    assert not path.exists()
    file.show(STARTING, 0.0)
    assert not path.exists()
    file.show(READY, 1.0)
    os.utime(path, (0, 0))
    file.show(READY, 1.0 + TOUCH_SECONDS - 0.1)
    assert path.stat().st_mtime == 0
    file.show(READY, 1.0 + TOUCH_SECONDS)
    assert path.stat().st_mtime > 0
    file.show(STOPPING, 9.0)
    assert not path.exists()


def test_a_containers_health_check_succeeds_while_the_worker_consumes(staged: Staged) -> None:
    health, pidfile = staged.folder / "health", staged.folder / "pid"
    check = f'test -n "$(find {health} -newermt "-15 seconds")"'
    worker = staged.worker("--health-file", str(health), "--pidfile", str(pidfile))
    wait_for(health.exists, SECONDS, "the health file", [worker.log])

    assert subprocess.run(check, shell=True, check=False).returncode == 0
    assert int(pidfile.read_text()) == worker.pid
    second = staged.start("--pidfile", str(pidfile))
    assert second.wait() == 78
    assert f"belongs to process {worker.pid}" in second.read_log()
    worker.signal(signal.SIGHUP)  # the lock stays over that
    wait_for(lambda: worker.read_log().count("worker ready") == 2, SECONDS, "the new code", [worker.log])
    assert staged.start("--pidfile", str(pidfile)).wait() == 78
    assert worker.stop() == 0
    assert not health.exists()
    assert not pidfile.exists()
    assert subprocess.run(check, shell=True, check=False, stderr=subprocess.DEVNULL).returncode != 0


def test_the_pid_file_of_a_killed_worker_holds_nobody_up(staged: Staged) -> None:
    pidfile = staged.folder / "pid"
    worker = staged.worker("--pidfile", str(pidfile))
    worker.kill()
    assert pidfile.exists()

    again = staged.worker("--pidfile", str(pidfile))
    assert int(pidfile.read_text()) == again.pid
    assert again.stop() == 0


def test_files_that_cannot_be_written_are_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"pid file .* cannot be written"):
        PidFile(tmp_path / "file" / "pid")
    with pytest.raises(ConfigError, match=r"health file .* cannot be written"):
        HealthFile(tmp_path / "file" / "health")
