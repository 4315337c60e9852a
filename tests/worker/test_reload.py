"""New code in a running worker: by SIGHUP, and in development by a changed file."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from lightbus.worker.reload import SourceWatch
from tests.processes import Process, handlers, is_running, wait_for
from tests.worker.staged import SECONDS, Staged, only_child


def change(staged: Staged, old: str, new: str) -> None:
    """Change the project's source, and make sure that its time differs whatever the file system's clock does."""
    path = staged.folder / "staged.py"
    before = path.stat().st_mtime_ns
    path.write_text(path.read_text().replace(old, new))
    os.utime(path, ns=(before + 10**9, before + 10**9))


def wait_for_new_children(worker: Process, old: list[int]) -> None:
    wait_for(
        lambda: not any(map(is_running, old)) and len(handlers(worker.pid)) == len(old), SECONDS,
        "the old children to be gone", [worker.log],
    )  # fmt: skip


def test_sighup_loads_new_code_keeps_the_pid_and_loses_nothing(each_staged: Staged) -> None:
    staged = each_staged
    worker = staged.worker("-c", "2")
    old = handlers(worker.pid)
    staged.fire(("long", "wait"), *((f"a{number}", "") for number in range(20)))
    staged.wait_for_noted("began", 5, log=worker.log)
    change(staged, "VERSION = 1", "VERSION = 2")
    worker.signal(signal.SIGHUP)
    worker.wait_for_log("reloading")
    # The one that runs `long` is left, and cannot begin anything else.
    wait_for(lambda: sum(map(is_running, old)) == 1, SECONDS, "the idle old process to be gone", [worker.log])
    staged.fire(*((f"b{number}", "") for number in range(20)))
    staged.wait_for_noted("ended", 40, log=worker.log)
    staged.open_gate()  # the old process that runs `long` has waited for it
    entries = staged.wait_for_noted("ended", 41, log=worker.log)
    wait_for_new_children(worker, old)

    ids = [entry["id"] for entry in entries]
    assert sorted(ids) == sorted(["long", *(f"{kind}{number}" for kind in "ab" for number in range(20))])
    assert [entry["version"] for entry in entries if entry["id"] == "long"] == [1]
    assert [entry["version"] for entry in entries if entry["id"].startswith("b")] == [2] * 20
    assert worker.exit_code is None
    assert worker.stop() == 0


def test_code_that_does_not_load_leaves_the_old_one_running(staged: Staged) -> None:
    worker = staged.worker()
    child = only_child(worker)
    change(staged, "VERSION = 1", "VERSION = (")
    worker.signal(signal.SIGHUP)
    worker.wait_for_log("the new code does not load, the old goes on")
    staged.fire(("1", ""))
    entries = staged.wait_for_noted("ended", log=worker.log)

    assert "SyntaxError" in worker.read_log()
    assert entries[0]["pid"] == child
    assert worker.stop() == 0


def test_a_second_reload_and_a_stop_end_all_that_was_ever_started(staged: Staged) -> None:
    worker = staged.worker("--grace-seconds", "600")
    staged.fire(("long", "wait"))
    staged.wait_for_noted("began", log=worker.log)
    seen = handlers(worker.pid)
    for count in (2, 3):
        worker.signal(signal.SIGHUP)
        wait_for(
            lambda count=count: worker.read_log().count("worker ready") == count, SECONDS, "a new child", [worker.log]
        )
        seen += handlers(worker.pid)
    worker.signal(signal.SIGTERM)
    worker.wait_for_log("a second signal ends")
    staged.open_gate()

    assert worker.wait() == 0
    assert [entry["id"] for entry in staged.noted("ended")] == ["long"]
    assert not any(map(is_running, seen))


def test_in_development_a_changed_file_reloads_and_a_mistake_in_it_is_shown(staged: Staged) -> None:
    worker = staged.worker("--reload")
    change(staged, "VERSION = 1", "VERSION = (")
    worker.wait_for_log("SyntaxError")
    change(staged, "VERSION = (", "VERSION = 3")
    wait_for(lambda: worker.read_log().count("lightbus worker ready") == 2, SECONDS, "the new code", [worker.log])
    staged.fire(("1", ""))

    assert staged.wait_for_noted("ended", log=worker.log)[0]["version"] == 3
    assert worker.stop() == 0


def test_a_check_says_whether_the_app_loads_and_does_not_connect(staged: Staged) -> None:
    assert staged.start("--check", BROKER="amqp://127.0.0.1:1//").wait() == 0
    change(staged, "VERSION = 1", "VERSION = (")
    assert staged.start("--check").wait() == 78


def test_the_watch_sees_the_projects_files_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "watched_module.py").write_text("a = 1")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("watched_module")
    watch = SourceWatch()

    assert tmp_path.resolve() in watch.folders
    assert not any("site-packages" in folder.parts or folder.name == "json" for folder in watch.folders)
    assert watch.changed() == []
    (tmp_path / "another.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "watched_module.py").write_text("a = 123")
    assert [path.name for path in watch.changed()] == ["another.py", "watched_module.py"]
    (tmp_path / "another.py").unlink()
    assert [path.name for path in watch.changed()] == ["another.py"]
    assert watch.changed() == []
