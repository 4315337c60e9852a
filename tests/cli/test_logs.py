"""What a worker's log looks like, in text and as JSON; and middleware that pyproject.toml names."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from typing import Any

from tests.cli.conftest import Project
from tests.processes import wait_for

LOGGING = """
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from contracts import Tickets
from lightbus import Bus, Invocation, RetryPolicy

bus = Bus("{prefix}")


@bus.on(Tickets.created, retry=RetryPolicy(max_retries=0))
def remember(event: Tickets.created) -> None:
    logging.getLogger("shop").warning("looking at %d", event.id)
    if event.id == 13:
        raise ValueError("unlucky")


@contextmanager
def timed(invocation: Invocation) -> Iterator[None]:
    logging.getLogger("shop").warning("before %s", invocation.name)
    yield
"""


def objects_of(log: str) -> list[dict[str, Any]]:
    """Every line of a log in JSON; a line that is none fails the test."""
    return [json.loads(line) for line in log.splitlines()]


def test_in_json_every_line_is_one_object_and_a_handlers_lines_name_their_message(
    project: Project, prefix: str
) -> None:
    project.write("shop.py", LOGGING.format(prefix=prefix))
    worker = project.start("worker", "-A", "shop", "-c", "1", "--log-format", "json", name="worker")
    worker.wait_for_log("lightbus worker ready pids=")
    project.run("fire", f"{prefix}.tickets.created", "id=13", "-A", "shop")
    worker.wait_for_log('"outcome"')
    assert worker.stop() == 0
    lines = objects_of(worker.read_log())

    (inside,) = [line for line in lines if line["text"] == "looking at 13"]
    (handled,) = [line for line in lines if line["text"].startswith("handled ")]
    (failed,) = [line for line in lines if "exception" in line]
    assert inside["message_name"] == f"{prefix}.tickets.created"
    assert inside["message_id"] == handled["message_id"] == inside["correlation_id"]
    assert (handled["outcome"], handled["attempt"], handled["redelivered"]) == ("parked", 1, False)
    assert handled["queue"] == f"{prefix}.on.remember"
    assert handled["waited_seconds"] >= 0
    assert failed["exception"]["type"] == "builtins.ValueError"
    assert 'raise ValueError("unlucky")' in failed["exception"]["traceback"]
    assert all(line["time"].endswith("Z") for line in lines)


def test_in_text_a_handlers_lines_end_in_their_message(project: Project, prefix: str) -> None:
    project.write("shop.py", LOGGING.format(prefix=prefix))
    worker = project.worker("-A", "shop", "-c", "1")
    project.run("fire", f"{prefix}.tickets.created", "id=7", "-A", "shop")
    log = worker.wait_for_log("outcome=ok")

    (line,) = [line for line in log.splitlines() if "looking at 7" in line]
    (handled,) = [line for line in log.splitlines() if "handled name=" in line]
    message_id = handled.partition(" id=")[2].split()[0]
    assert line.endswith(f"[message_name={prefix}.tickets.created message_id={message_id} attempt=1]")
    assert "\x1b" not in log


def test_colours_are_for_terminals_that_want_them() -> None:
    script = "import logging; from lightbus.cli import logs; logs.configure('INFO', 'text'); logging.error('oh')"

    def on_a_terminal(**variables: str) -> str:
        ours, theirs = pty.openpty()
        environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"} | variables
        subprocess.run([sys.executable, "-c", script], stderr=theirs, env=environment, check=True, timeout=30)
        os.close(theirs)
        said = os.read(ours, 4096).decode()
        os.close(ours)
        return said

    assert "\x1b[31m" in on_a_terminal()
    assert "\x1b" not in on_a_terminal(NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(TERM="dumb")


def test_middleware_named_in_pyproject_is_around_every_handler(project: Project, prefix: str) -> None:
    project.write("shop.py", LOGGING.format(prefix=prefix))
    project.write("pyproject.toml", '[tool.lightbus]\nmiddleware = ["shop:timed"]\n')
    worker = project.worker("-A", "shop", "-c", "1")
    project.run("fire", f"{prefix}.tickets.created", "id=7", "-A", "shop")
    worker.wait_for_log(f"before {prefix}.tickets.created")
    wait_for(lambda: "looking at 7" in worker.read_log(), 10, "the handler", [worker.log])


def test_middleware_that_cannot_be_found_is_said_in_one_sentence(project: Project) -> None:
    project.write("pyproject.toml", '[tool.lightbus]\nmiddleware = ["shop:timer"]\n')
    ended = project.run("worker", "-A", "shop", "-c", "1")

    assert ended.code == 78
    assert ended.sentence == "module 'shop' has no attribute 'timer'"


def test_on_a_terminal_its_title_shows_the_worker_and_a_pipe_gets_none_of_it(project: Project) -> None:
    ours, theirs = pty.openpty()
    worker = subprocess.Popen(
        [sys.executable, "-m", "lightbus.cli", "worker", "-A", "shop", "-c", "2"], cwd=project.folder,
        stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm"}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    said = ""

    def says(text: str) -> bool:
        nonlocal said
        if text not in said:
            with contextlib.suppress(OSError):  # EIO: the other side is closed
                said += os.read(ours, 4096).decode()
        return text in said

    try:
        wait_for(lambda: says("\x1b]2;lightbus ready: 0/2 busy in 2 processes\x07"), 20, "the title")
        worker.terminate()
        wait_for(lambda: says("\x1b[23;2t"), 20, "the title to be given back")
        assert worker.wait(20) == 0
    finally:
        worker.kill()
        os.close(ours)
    piped = project.worker("-A", "shop", "-c", "1")
    assert piped.stop() == 0
    assert "\x1b" not in piped.read_log()
