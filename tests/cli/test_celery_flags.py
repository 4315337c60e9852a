"""Command lines of Celery workers, as projects have them, with `celery` replaced by `lightbus`."""

from __future__ import annotations

import json
import shlex
import socket
from typing import Any

import click
import pytest

from lightbus.cli import apps as discovery
from lightbus.cli.celery_flags import CeleryFlags, celery_options
from lightbus.cli.ordering import order_of
from lightbus.cli.selection import Selection, prepared
from lightbus.compat import Settings, TaskApp
from lightbus.core.errors import ConfigError
from lightbus.core.turns import QueueOrder
from tests.cli.conftest import Project

PROJECT = """
from lightbus.compat import Settings, default_app, task
from lightbus.compat.signals import celeryd_init

nodes = []


@celeryd_init.connect
def began(sender, **_):
    nodes.append(sender)


default_app().configure(Settings(broker_url="memory://"))


@task(queue="images")
def resize():
    pass


@task
def mail():
    pass
"""

#: Runs each command line in a fork, since a process serves one app.
CHECK = """
import json, os, shlex, sys

import lightbus.cli.worker, lightbus.compat.endpoint, lightbus.drivers.memory, proj
from lightbus.cli.__main__ import main

for line in json.loads(sys.argv[1]):
    pid = os.fork()
    if pid == 0:
        print(f"--- {line}", file=sys.stderr, flush=True)
        sys.argv = ["lightbus", *shlex.split(line), "--check"]
        main()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""

#: From unit files, Dockerfiles, Procfiles and compose files.
LINES = [
    "-A proj worker -l info",
    "-A proj.celery worker --loglevel=INFO --concurrency=4",
    "--app=proj worker -l info -c 2 -Q celery,images",
    "worker --app proj --loglevel info --concurrency 2 --max-tasks-per-child 100",
    "-A proj worker -l WARNING -O fair --prefetch-multiplier=1",
    "-A proj worker -E -l info -n worker1@%h",
    "-A proj worker --hostname=default@%h --without-gossip --without-mingle --without-heartbeat",
    "-A proj worker --autoscale=10,0 -l info",
    "-A proj worker --autoscale=8,2 --time-limit=3600 --soft-time-limit=3000",
    "-A proj worker -P solo -l debug",
    "-A proj worker -B -l info -s /var/run/celerybeat-schedule --url sqlite:///bus.db",
    "-A proj worker --beat --scheduler celery.beat:PersistentScheduler --url sqlite:///bus.db",
    "-A proj worker --pool=prefork -c 8 -Ofair",
    "-A proj worker --pool=threads --concurrency=20",
    "-A proj worker -l info --max-memory-per-child=200000 -X images",
    "-A proj worker --exclude-queues=images --pidfile=/tmp/proj-%n.pid --logfile=/dev/stderr",
    "-A proj worker --task-events --heartbeat-interval 10 --pool-start-method fork",
]


@pytest.fixture
def proj(empty: Project) -> Project:
    """A project as Celery's have it: a package with a module `celery`."""
    empty.write("proj/__init__.py", PROJECT)
    empty.write("proj/celery.py", "import proj\n")
    empty.write("check.py", CHECK)
    return empty


def checked(proj: Project, lines: list[str]) -> tuple[list[int], str]:
    """Exit code of each command line, and all that was said."""
    done = proj.python("check.py", json.dumps(lines))
    return [int(code) for code in done.out.split()], done.err


def test_a_celery_workers_command_line_is_understood(proj: Project) -> None:
    codes, said = checked(proj, LINES)
    assert len(codes) == len(LINES), said
    assert [line for line, code in zip(LINES, codes, strict=True) if code] == [], said


REFUSED = {
    "-P gevent": "use --pool threads, or `async def` handlers",
    "-P eventlet": "use --pool threads",
    "--pool custom": "use processes, threads or solo",
    "--detach": "let systemd run the worker in the foreground",
    "-D": "systemd",
    "-B --scheduler django_celery_beat.schedulers:DatabaseScheduler": "the beat beside a worker is `lightbus beat`",
    "-P threads -c 4 --threads 2": "leave --threads out",
    "-P threads --autoscale 4,2": "--autoscale changes the number of processes",
    "--prefetch 3 --prefetch-multiplier 2": "not both",
}


def test_what_cannot_be_had_is_refused_with_what_to_do(proj: Project) -> None:
    codes, said = checked(proj, [f"-A proj worker {arguments}" for arguments in REFUSED])
    assert codes == [2] * len(REFUSED), said
    answers = said.split("--- ")[1:]
    for sentence, answer in zip(REFUSED.values(), answers, strict=True):
        assert sentence in answer


@click.command()
@celery_options
def probe(flags: CeleryFlags) -> CeleryFlags:
    return flags


def flags_of(line: str) -> Any:
    return probe.main(shlex.split(line), standalone_mode=False)


def test_names_and_paths_are_expanded_as_celery_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "web.example.org")
    assert flags_of("").hostname == ""
    assert flags_of("-n w1").hostname == "w1@web.example.org"
    assert flags_of("-n w1@%h").hostname == "w1@web.example.org"
    assert flags_of("-n w1@%n.%d").hostname == "w1@web.example.org"
    assert flags_of("-n w%%1@%n").hostname == "w%1@web"
    assert flags_of("-n w1 -f /var/log/%n%I.log").logfile == "/var/log/w1.log"


def test_a_multiplier_counts_threads_and_0_is_adaptive() -> None:
    assert flags_of("--prefetch-multiplier 3").prefetch(None, threads=4) == 12
    assert flags_of("--prefetch-multiplier 0").prefetch(None, threads=4) is None
    assert flags_of("").prefetch(7, threads=4) == 7


def test_what_has_no_effect_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "lightbus.worker"):
        flags_of("--without-gossip -O fair").say_idle()
        flags_of("").say_idle()
    (record,) = caplog.records
    assert "--without-gossip: " in record.getMessage()
    assert "-O: " in record.getMessage()


def test_a_worker_beats_and_mingles_unless_it_is_told_not_to() -> None:
    usual, quiet = flags_of("--heartbeat-interval 30 -S %n.db -n w1"), flags_of("--without-heartbeat --without-mingle")

    assert (usual.heartbeat_seconds, usual.mingles, usual.statedb) == (30.0, True, "w1.db")
    assert (quiet.heartbeat_seconds, quiet.mingles, quiet.statedb) == (None, False, "")


def test_queues_are_excluded_by_celerys_name_or_their_own() -> None:
    def served(*, wanted: tuple[str, ...] = (), excluded: tuple[str, ...]) -> frozenset[str]:
        tasks = TaskApp(Settings(broker_url="memory://"))
        tasks.task(name="resize", queue="images")(lambda: None)
        tasks.task(name="mail")(lambda: None)
        app = discovery.LoadedApp(names=("proj",), task_app=tasks)
        return prepared(app, Selection(wanted, excluded))[1]

    assert served(excluded=("images",)) == {"lightbus.celery"}
    assert served(excluded=("lightbus.celery",)) == {"lightbus.images"}
    assert served(wanted=("celery", "images"), excluded=("images",)) == {"celery"}
    with pytest.raises(ConfigError, match="no queue imagse"):
        served(excluded=("imagse",))
    with pytest.raises(ConfigError, match="nothing is left"):
        served(excluded=("celery", "images"))


def test_a_weight_takes_celerys_name_of_a_queue_or_its_own() -> None:
    tasks = TaskApp(Settings(broker_url="memory://"))
    tasks.task(name="resize", queue="images")(lambda: None)
    tasks.task(name="mail")(lambda: None)
    buses, wanted = prepared(discovery.LoadedApp(names=("proj",), task_app=tasks), Selection())

    order = order_of(QueueOrder({"images": 3}, ["lightbus.celery"]), buses, wanted)

    assert order == QueueOrder({"lightbus.images": 3}, ["lightbus.celery"])


def test_a_threads_pool_with_a_name_and_a_log_file_works(project: Project, prefix: str) -> None:
    project.write("jobs.py", JOBS)
    worker = project.start(
        "-A", "jobs", "worker", "-P", "threads", "-c", "3", "-n", "w1@here", "-f", "%n.log", "--without-gossip",
        name="worker",
    )  # fmt: skip
    worker.wait_for_log("lightbus worker ready pids=")
    sent = project.run("send", "jobs.who", "--wait", "-A", "jobs")
    assert sent.code == 0, sent.err
    assert sent.out.split() == ['["w1@here",', '"lightbus-slot",', '"w1@here"]']
    log = (project.folder / "w1.log").read_text()
    assert "--without-gossip: workers take no notice" in log


JOBS = """
import threading
from lightbus.compat import Settings, default_app, task
from lightbus.compat.signals import celeryd_init

nodes = []


@celeryd_init.connect
def began(sender, **_):
    nodes.append(sender)


default_app().configure(Settings(result_backend="rpc://"))


@task(bind=True)
def who(self):
    return [self.request.hostname, threading.current_thread().name.rpartition("-")[0], *nodes]
"""
