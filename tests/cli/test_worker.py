"""`lightbus worker` as a process, on each broker."""

from __future__ import annotations

import os
import re
import signal

import pytest

from lightbus.core.description import Description
from lightbus.describing import ask
from lightbus.drivers import open_transport
from tests.cli.conftest import Project
from tests.processes import children, handlers, is_running, wait_for


def test_a_worker_answers_calls_hears_events_and_ends_with_0(each_broker: Project, prefix: str) -> None:
    worker = each_broker.worker("-A", "shop", "-c", "2")
    answer = each_broker.run("call", f"{prefix}.tickets.status", "id=7", "-A", "shop")
    fired = each_broker.run("fire", f"{prefix}.tickets.created", "id=9", "due=2026-11-24", "-A", "shop")

    assert (answer.code, answer.out) == (0, "ticket 7 is open\n"), answer.err
    assert fired.code == 0, fired.err
    worker.wait_for_log("heard of 9 '' 2026-11-24")
    assert worker.stop() == 0


def test_a_child_that_is_killed_is_replaced_and_its_work_goes_on(each_broker: Project, prefix: str) -> None:
    worker = each_broker.worker("-A", "shop", "-c", "1")
    (first,) = handlers(worker.pid)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: [pid for pid in handlers(worker.pid) if pid != first], 10, "another child", [worker.log])
    fired = each_broker.run("fire", f"{prefix}.tickets.created", "id=3", "-A", "shop")

    assert fired.code == 0, fired.err
    worker.wait_for_log("heard of 3")
    assert worker.stop() == 0


def test_the_ready_line_has_the_pids_of_the_children(project: Project) -> None:
    worker = project.worker("-A", "shop", "-c", "2")
    found = re.search(r"^lightbus worker ready pids=([\d,]+)$", worker.read_log(), re.MULTILINE)

    assert found is not None
    assert sorted(map(int, found[1].split(","))) == handlers(worker.pid)
    worker.interrupt()
    assert worker.wait() == 0


def test_the_start_says_what_is_served_and_where(project: Project, prefix: str) -> None:
    log = project.worker("-A", "shop", "-c", "1").read_log()

    assert "embedded" in log
    assert f"{prefix}.on.remember" in log
    assert f"lightbus.rpc.{prefix}.tickets.v1" in log


def test_the_start_shows_no_password(project: Project, redis_url: str) -> None:
    # Redis without a password takes none, so the worker ends; its banner has been printed.
    project.environment["LIGHTBUS_URL"] = redis_url.replace("://", "://:s3cret@", 1)
    worker = project.start("worker", "-A", "shop", "-c", "1")
    worker.wait()

    assert "s3cret" not in worker.read_log()


def test_one_queue_of_the_app_can_be_served_alone(project: Project, prefix: str) -> None:
    worker = project.worker("-A", "shop", "-c", "1", "-Q", f"{prefix}.on.remember")
    project.run("fire", f"{prefix}.tickets.created", "id=1", "-A", "shop")
    worker.wait_for_log("heard of 1")
    ended = project.run("call", f"{prefix}.tickets.status", "id=7", "--timeout", "0.5", "-A", "shop")

    assert ended.code == 1


def test_a_solo_worker_has_no_child(project: Project, prefix: str) -> None:
    worker = project.worker("-A", "shop", "--pool", "solo")
    assert children(worker.pid) == []
    answer = project.run("call", f"{prefix}.tickets.pid", "-A", "shop", "--json")

    assert str(worker.pid) in answer.out
    assert worker.stop() == 0


def test_children_end_when_the_worker_is_killed(project: Project) -> None:
    worker = project.worker("-A", "shop", "-c", "2")
    # Both that handle messages, and the one beside them that says what the worker is.
    pids = wait_for(lambda: len(found := children(worker.pid)) == 3 and found, 10, "all children", [worker.log])
    worker.kill()

    wait_for(lambda: not any(map(is_running, pids)), 10, "the children to end", [worker.log])


@pytest.mark.parametrize("way", ["environment", "pyproject", "pyproject above", "package"])
def test_the_app_is_found(project: Project, way: str) -> None:
    arguments: tuple[str, ...] = ()
    if way == "environment":
        project.environment["LIGHTBUS_APP"] = "shop:bus"
    elif way.startswith("pyproject"):
        project.write("pyproject.toml", '[tool.lightbus]\napp = ["shop"]\n')
    else:
        text = (project.folder / "shop.py").read_text()
        (project.folder / "shop.py").unlink()
        project.write("shop/__init__.py", "")
        project.write("shop/bus.py", text)
        arguments = ("-A", "shop")
    if way.endswith("above"):
        project.folder = project.folder / "docs"
        project.folder.mkdir()

    assert project.worker(*arguments, "-c", "1").stop() == 0


def test_the_command_lines_broker_wins_over_the_environment_and_not_over_the_code(
    project: Project, prefix: str, sqlite_url: str
) -> None:
    project.environment["LIGHTBUS_URL"] = "amqp://127.0.0.1:1//"
    assert "ready" in project.worker("-A", "shop", "-c", "1", "--url", sqlite_url).read_log()

    text = (project.folder / "shop.py").read_text()
    project.write("shop.py", text.replace(f'Bus("{prefix}")', f'Bus("{prefix}", url="{sqlite_url}")'))
    log = project.worker("-A", "shop", "-c", "1", "--url", "redis://127.0.0.1:1").read_log()
    assert "names its broker in the code" in log


@pytest.mark.parametrize("broker_url", ["redis"], indirect=True)
def test_a_worker_whose_processes_all_hang_says_what_it_is(each_broker: Project, broker_url: str, prefix: str) -> None:
    """And goes on saying so when the process that does was killed, and after a reload; then no more."""

    def answers(count: int = 1) -> list[Description]:
        transport = open_transport(broker_url)
        try:
            return ask(transport, "test", seconds=2.0, enough=lambda found: len(found) == count)
        finally:
            transport.close()

    worker = each_broker.worker("-A", "shop", "-c", "2")
    (said,) = wait_for(answers, 30, "an answer", [worker.log])
    assert (said.app, said.pid, said.processes) == (prefix, worker.pid, 2)
    stopped = handlers(worker.pid)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        (still,) = wait_for(answers, 30, "an answer", [worker.log])
        assert (still.worker, still.slots) == (said.worker, 2)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)

    (beside,) = set(children(worker.pid)) - set(handlers(worker.pid))
    os.kill(beside, signal.SIGKILL)
    worker.wait_for_log("another starts")
    wait_for(lambda: [one for one in answers() if one.pid == worker.pid], 30, "an answer", [worker.log])
    worker.signal(signal.SIGHUP)
    new = wait_for(lambda: [one for one in answers() if one.worker != said.worker], 30, "the new code", [worker.log])
    assert new[0].pid == worker.pid
    assert worker.stop() == 0
    assert answers() == []
