"""What is wrong is said in one sentence on stderr, with an exit code that says whose fault it is."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Project

NOBODY = "amqp://127.0.0.1:1//"


def test_no_app_is_said_with_the_three_ways_to_name_one(empty: Project) -> None:
    ended = empty.run("worker")

    assert ended.code == 78
    assert all(way in ended.sentence for way in ("-A", "LIGHTBUS_APP", "pyproject.toml"))


def test_a_module_that_is_not_there_is_told_from_one_that_fails_inside(empty: Project) -> None:
    empty.write("proj/__init__.py", "")
    empty.write("proj/bus.py", "import os\n\nimport no_such_library\n")
    missing, failing = empty.run("worker", "-A", "prog"), empty.run("worker", "-A", "proj")

    assert (missing.code, failing.code) == (78, 78)
    assert "no module 'prog'" in missing.sentence
    assert "no_such_library" in failing.sentence
    assert "bus.py" in failing.sentence
    assert "line 3" in failing.sentence


@pytest.mark.parametrize(
    "text, said",
    [
        ("x = 1\ny = (\n", "SyntaxError"),
        ("raise RuntimeError('the settings are missing')", "RuntimeError: the settings are missing"),
        ("import sys\nsys.exit('stop')", "line 2"),
        ("from lightbus import Bus\nBus('not a name')", "not a name"),
    ],
)
def test_a_module_that_raises_is_named_with_its_line(empty: Project, text: str, said: str) -> None:
    empty.write("broken.py", text)
    ended = empty.run("worker", "-A", "broken")

    assert ended.code == 78
    assert "broken.py" in ended.sentence
    assert said in ended.sentence


def test_an_attribute_that_is_not_there_or_is_no_app_is_said(project: Project) -> None:
    assert "no attribute 'buss'" in project.run("worker", "-A", "shop:buss").sentence
    assert "OurTickets" in project.run("worker", "-A", "shop:OurTickets").sentence


def test_an_app_without_anything_to_serve_is_said(project: Project) -> None:
    ended = project.run("worker", "-A", "contracts")

    assert ended.code == 78
    assert "nothing to serve" in ended.sentence


def test_a_queue_that_the_app_does_not_have_is_said(project: Project, prefix: str) -> None:
    ended = project.run("worker", "-A", "shop", "-Q", f"{prefix}.on.rember")

    assert ended.code == 78
    assert f"{prefix}.on.remember" in ended.sentence


@pytest.mark.parametrize("command", ["call", "fire"])
def test_an_unknown_name_brings_the_nearest_one(project: Project, prefix: str, command: str) -> None:
    known = {"call": "status", "fire": "created"}[command]
    ended = project.run(command, f"{prefix}.tickets.{known[:-1]}", "-A", "shop")

    assert ended.code == 2
    assert f"did you mean '{prefix}.tickets.{known}'?" in ended.sentence


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("id=seven",), "int"),
        ((), "id"),
        (("id=1", "idd=2"), "idd"),
        (("id",), "key=value"),
        (("--data", "{id: 1}"), "JSON"),
        (("--data", "[1]"), "object"),
        (("id=1", "--data", '{"id": 1}'), "not both"),
    ],
)
@pytest.mark.parametrize("name", ["call tickets.status", "fire tickets.created"])
def test_arguments_that_do_not_fit_are_named_and_nothing_is_sent(
    project: Project, prefix: str, name: str, arguments: tuple[str, ...], said: str
) -> None:
    command, _, rest = name.partition(" ")
    # Nobody is there to send to, so that sending would end with 69.
    ended = project.run(command, f"{prefix}.{rest}", *arguments, "-A", "shop", "--url", NOBODY)

    assert ended.code == 2
    assert said in ended.sentence


@pytest.mark.parametrize(
    "arguments", [("wrok",), ("worker", "--colour"), ("worker", "-c", "0"), ("tail", "--count", "x")]
)
def test_a_wrong_command_line_ends_with_2_and_one_sentence(project: Project, arguments: tuple[str, ...]) -> None:
    ended = project.run(*arguments)

    assert ended.code == 2
    assert ended.sentence


@pytest.mark.parametrize("command", ["worker", "call", "fire", "tail"])
def test_a_broker_that_is_away_ends_with_69(project: Project, prefix: str, command: str) -> None:
    arguments = {
        "worker": ("-A", "shop", "-c", "1"),
        "call": (f"{prefix}.tickets.status", "id=1", "-A", "shop"),
        "fire": (f"{prefix}.tickets.created", "id=1", "-A", "shop"),
        "tail": (),
    }[command]
    project.environment["LIGHTBUS_URL"] = NOBODY
    ended = project.run(command, *arguments)

    assert ended.code == 69, ended.err
    assert "127.0.0.1:1" in ended.err
    assert "Traceback" not in ended.err


def test_a_refused_password_ends_with_77(project: Project, prefix: str, amqp_url: str) -> None:
    user, at, place = amqp_url.rpartition("@")
    wrong = f"{user.rpartition(':')[0]}:wrong{at}{place}" if at else amqp_url.replace("://", "://guest:wrong@")
    ended = project.run("fire", f"{prefix}.tickets.created", "id=1", "-A", "shop", "--url", wrong)

    assert ended.code == 77
    assert "password" in ended.sentence
    assert "wrong" not in ended.sentence.replace("password", "")


def test_a_scheme_that_nobody_has_is_said_with_the_nearest(empty: Project) -> None:
    ended = empty.run("tail", "--url", "redsi://localhost")

    assert ended.code == 78
    assert "did you mean 'redis'?" in ended.sentence


def test_debug_shows_the_traceback_and_nothing_else_does(empty: Project) -> None:
    quiet, loud = empty.run("worker", "-A", "prog"), empty.run("--debug", "worker", "-A", "prog")

    assert "Traceback" not in quiet.err
    assert "Traceback" in loud.err
    assert quiet.code == loud.code == 78


def test_a_pyproject_that_is_no_toml_is_said(empty: Project) -> None:
    empty.write("pyproject.toml", "[tool.lightbus\n")
    ended = empty.run("worker")

    assert ended.code == 78
    assert "pyproject.toml" in ended.sentence


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("--autoscale", "2,x"), "autoscale takes MAX,MIN as in 10,2; got '2,x'"),
        (("--autoscale", "1,2"), "autoscale needs 1 <= MIN <= MAX"),
        (("--autoscale", "2,1", "-c", "2"), "give --processes or --autoscale, not both"),
        (("--pool", "solo", "--max-tasks-per-child", "2"), "--max-tasks-per-child needs a supervisor"),
        (("--time-limit", "0"), "--time-limit"),
        (("--grace-seconds", "-1"), "--grace-seconds"),
    ],
)
def test_wrong_limits_are_said_before_anything_starts(project: Project, arguments: tuple[str, ...], said: str) -> None:
    ended = project.run("worker", "-A", "shop", *arguments)

    assert ended.code == 2
    assert said in ended.err
    assert "ready" not in ended.err
