"""The command line before it does anything: what it loads, what it says about itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from lightbus.cli.__main__ import COMMANDS
from tests.cli.conftest import Project
from tests.processes import ROOT

HELP = "import sys; sys.argv = ['lightbus', '--help']\nfrom lightbus.cli.__main__ import main\n"
TELL_MODULES = "try:\n    main()\nfinally:\n    import json; print('\\n' + json.dumps(sorted(sys.modules)))\n"
#: What the start may cost beside click's own, as a multiple of it. Ratios hold on a busy machine; milliseconds do not.
BUDGET = 1.5


def modules_of_help() -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", HELP + TELL_MODULES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def seconds(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def test_help_loads_no_library_that_only_commands_need() -> None:
    loaded = modules_of_help()

    assert "lightbus.cli.__main__" in loaded
    assert not loaded & {"kombu", "amqp", "redis", "celery", "rich", "asyncio", "lightbus.worker", "lightbus.compat"}


def test_help_loads_no_command() -> None:
    assert not modules_of_help() & {f"lightbus.cli.{name}" for name in COMMANDS}


def test_help_costs_little_more_than_click() -> None:
    pairs = [(seconds("import click"), seconds(HELP + "main()")) for _ in range(5)]  # side by side, best of each

    assert min(own for _, own in pairs) < min(click for click, _ in pairs) * (1 + BUDGET)


def test_help_names_every_command_and_every_exit_code(empty: Project) -> None:
    ended = empty.run("--help")

    assert ended.code == 0
    for word in [*COMMANDS, "69", "70", "77", "78", "130"]:
        assert word in ended.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_with_an_example(empty: Project, name: str) -> None:
    ended = empty.run(name, "--help")

    assert ended.code == 0
    assert f"  lightbus {name}" in ended.out.partition("Example")[2]


def test_a_reader_that_leaves_is_no_reason_for_words(empty: Project) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "lightbus.cli", "version"], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)

    assert done.stderr == b""
    assert done.returncode == 1


def test_version_is_printed_as_text_and_as_json(empty: Project) -> None:
    found = empty.run("version", "--json").json()

    assert found["python"] == sys.version.split()[0]
    assert {"lightbus", "kombu", "amqp", "celery"} <= found.keys()
    assert found["kombu"] in empty.run("version").out
