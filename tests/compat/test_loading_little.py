"""What a process loads, it weighs, and its start takes longer by it."""

from __future__ import annotations

import subprocess
import sys

import lightbus.compat  # noqa: F401 - where it is absent, this file is left out


def test_a_worker_of_plain_tasks_loads_no_library_that_only_others_need() -> None:
    program = "import sys; import lightbus.cli.worker, lightbus.compat.endpoint; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()

    assert {"lightbus.compat.task", "lightbus.worker.process"} <= set(loaded)
    needless = {"asyncio", "difflib", "kombu", "amqp", "redis", "celery", "sqlite3"}
    if sys.version_info >= (3, 11):
        needless.add("subprocess")  # Python 3.10 loads it with `uuid`
    assert not needless & set(loaded)
