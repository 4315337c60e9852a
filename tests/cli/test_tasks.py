"""Tasks from the command line: the project's, served by `lightbus worker` and sent by `lightbus send`."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Project

TASKS = """
from lightbus.compat import Settings, default_app, task

default_app().configure(
    Settings.from_mapping({{"broker_url": {url!r}, "result_backend": "rpc://", "task_default_queue": "{prefix}"}})
)


@task(name="{prefix}.add")
def add(a, b=0):
    return a + b


@task(name="{prefix}.fail")
def fail():
    raise ValueError("no such photo")
"""


@pytest.fixture
def tasks(empty: Project, broker_url: str, prefix: str) -> Project:
    """An app of tasks, without Celery."""
    empty.write("jobs.py", TASKS.format(url=broker_url, prefix=prefix))
    return empty


def test_a_task_is_sent_by_its_name_and_its_result_printed(tasks: Project, prefix: str) -> None:
    worker = tasks.worker("-A", "jobs", "-c", "1")
    result = tasks.run("send", f"{prefix}.add", "1", "--kwargs", '{"b": 2}', "--wait", "-A", "jobs")
    failed = tasks.run("send", f"{prefix}.fail", "--wait", "-A", "jobs")

    assert (result.code, result.out) == (0, "3\n"), result.err
    assert failed.code == 1
    assert "ValueError: no such photo" in failed.sentence
    assert worker.stop() == 0


def test_a_task_can_be_sent_without_an_app(tasks: Project, prefix: str, broker_url: str) -> None:
    tasks.worker("-A", "jobs", "-c", "1")
    arguments = ("send", f"{prefix}.add", "2", "3", "--queue", prefix, "--url", broker_url)
    result, sent = tasks.run(*arguments, "--wait", "--json"), tasks.run(*arguments)

    assert result.json()["result"] == 5
    assert sent.code == 0
    assert len(sent.out.strip()) == 36


def test_a_task_that_nobody_serves_is_not_sent(empty: Project, prefix: str) -> None:
    ended = empty.run("send", f"{prefix}.add", "--queue", prefix)

    assert ended.code == 69
    assert f"neither queue 'lightbus.{prefix}' nor '{prefix}'" in ended.sentence


def test_a_task_for_a_broker_that_is_away_ends_with_69(empty: Project) -> None:
    ended = empty.run("send", "proj.tasks.add", "1", "--url", "amqp://127.0.0.1:1//")

    assert ended.code == 69
    assert "127.0.0.1:1" in ended.sentence


@pytest.mark.parametrize(
    "options, said",
    [(("--kwargs", "{a: 1}"), "no JSON"), (("--kwargs", "[1]"), "object"), (("--countdown", "soon"), "soon")],
)
def test_wrong_options_of_a_task_are_said(empty: Project, options: tuple[str, ...], said: str) -> None:
    ended = empty.run("send", "proj.tasks.add", *options)

    assert ended.code == 2
    assert said in ended.sentence


def test_waiting_without_a_result_backend_is_refused_before_sending(empty: Project, prefix: str) -> None:
    empty.write("jobs.py", TASKS.format(url="amqp://127.0.0.1:1//", prefix=prefix).replace('"rpc://"', "None"))
    ended = empty.run("send", f"{prefix}.add", "1", "--wait", "-A", "jobs")

    assert ended.code == 78
    assert "result_backend" in ended.sentence
