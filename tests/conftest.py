"""Fixtures that all tests share: brokers, names of one's own, and processes that end with the test.

The first process of a run makes a folder and hands it to its xdist workers; through it they find the
same brokers (`tests/brokers.py`). It ends them when the run ends; when it is killed they end by themselves.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.brokers import Brokers, RabbitMQ, Redis
from tests.processes import ROOT, Processes

BROKERS = pytest.StashKey[Brokers]()
BROKER_FIXTURES = {"amqp_url", "amqp_vhost_url", "redis_url", "broker_url"}
IMPORTS = {
    "celery": re.compile(r"^\s*(from|import) celery\b", re.MULTILINE),
    "compat": re.compile(r"^\s*(from|import) lightbus\.compat\b|^\s*from lightbus import .*\bcompat\b", re.MULTILINE),
}


# How long an example takes says something of the machine, and nothing of the code. The same examples in each run, so
# that a failure belongs to a change; LIGHTBUS_TEST_RANDOM=1 draws others.
hypothesis.settings.register_profile(
    "suite",
    deadline=None,
    derandomize=not os.environ.get("LIGHTBUS_TEST_RANDOM"),
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("suite")


# The run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--without",
        choices=sorted(IMPORTS),
        help="leave out the test files that import celery, or lightbus.compat: the others must pass where it is absent",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    absent = config.getoption("--without")
    if absent is None or collection_path.suffix != ".py":
        return None
    return True if IMPORTS[absent].search(collection_path.read_text(encoding="utf-8")) else None


def load_lightbus() -> None:
    """Load now what threads of the tests would load for the first time.

    pytest rewrites the assertions of a package that brings a plugin, as this one does, and CPython 3.11 fails now and
    then to parse in two threads at a time ("AST constructor recursion depth mismatch").
    """
    for path in sorted((ROOT / "lightbus").rglob("*.py")):
        if "contrib" in path.parts:  # what it integrates with wants to be set up first
            continue
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        with contextlib.suppress(ImportError):  # of a library that is not installed in this row
            importlib.import_module(name.removesuffix(".__init__"))


def pytest_configure(config: pytest.Config) -> None:
    load_lightbus()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started as a background job by a shell: the programs that tests interrupt would inherit that and not hear it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    given: dict[str, Any] | None = getattr(config, "workerinput", None)
    if given is None:
        config.stash[BROKERS] = Brokers(Path(tempfile.mkdtemp(prefix="lightbus-test-")), os.getpid())
    else:
        config.stash[BROKERS] = Brokers(Path(given["lightbus_folder"]), given["lightbus_owner_pid"])
    # The embedded broker's sockets go there when a test's own folder is too deep for them; it goes with the run.
    os.environ["XDG_RUNTIME_DIR"] = str(config.stash[BROKERS].folder)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """xdist is about to start a worker."""
    brokers = node.config.stash[BROKERS]
    node.workerinput["lightbus_folder"] = str(brokers.folder)
    node.workerinput["lightbus_owner_pid"] = brokers.owner_pid


def pytest_unconfigure(config: pytest.Config) -> None:
    brokers = config.stash.get(BROKERS, None)
    if brokers is not None and brokers.owner_pid == os.getpid():
        brokers.stop()
        shutil.rmtree(brokers.folder, ignore_errors=True)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tests of a group run in one process, or they measure each other and build what they share many times over.

    pytest 9.2 does not read what xdist 3.8 writes a test's group into, and says nothing.
    """
    if not hasattr(session.config, "workerinput") or session.config.getoption("dist", None) != "loadgroup":
        return
    for item in session.items:
        if item.get_closest_marker("xdist_group") is not None and "@" not in item.nodeid:
            raise pytest.UsageError(
                f"xdist {version('pytest-xdist')} with pytest {pytest.__version__} does not keep groups of tests "
                "together; setup.py names versions that do: build this environment anew"
            )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """A failed test that used a broker shows the end of the brokers' logs."""
    report = yield
    if report.failed and BROKER_FIXTURES & set(getattr(item, "fixturenames", ())):
        for name, text in item.config.stash[BROKERS].logs().items():
            report.sections.append((f"end of the log of {name}", text))
    return report


# Names and brokers


@pytest.fixture(autouse=True)
def empty_memory_transport() -> None:
    """kombu's `memory://` is one broker for the whole process: what an earlier test left there is not this one's."""
    memory = sys.modules.get("kombu.transport.memory")
    if memory is not None:
        memory.Channel.queues.clear()
        memory.Transport.global_state.clear()


@pytest.fixture(autouse=True)
def root_logger_as_it_was() -> Iterator[None]:
    """A Celery worker that a test runs in its own process takes the root logger over; the next test gets it back."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def prefix() -> str:
    """A beginning for queue and exchange names that no other test has."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="session")
def brokers(pytestconfig: pytest.Config) -> Brokers:
    return pytestconfig.stash[BROKERS]


@pytest.fixture
def amqp_url(brokers: Brokers) -> str:
    """RabbitMQ's virtual host that all tests share: use names that begin with `prefix`."""
    return brokers.rabbitmq().url


@pytest.fixture
def amqp_vhost_url(brokers: Brokers) -> Iterator[str]:
    """A virtual host of RabbitMQ for this test alone (30 milliseconds to make, 50 to delete)."""
    with brokers.vhost() as url:
        yield url


@pytest.fixture
def redis_url(brokers: Brokers) -> Iterator[str]:
    """An empty Redis database for this test alone."""
    with brokers.redis_database() as url:
        yield url


@pytest.fixture
def postgres_url(brokers: Brokers) -> Iterator[str]:
    """An empty database of PostgreSQL for this test alone."""
    with brokers.postgres_database() as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The embedded broker, in a file of this test; the path is absolute."""
    return f"sqlite:///{tmp_path / 'broker.sqlite'}"


@pytest.fixture
def memory_url(prefix: str) -> str:
    """The broker inside this process, under a name of this test."""
    return f"memory://{prefix}"


@pytest.fixture(params=["amqp", "redis", "sqlite"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """Each broker that is promised to work, one after the other, empty and for this test alone."""
    fixture = {"amqp": "amqp_vhost_url", "redis": "redis_url", "sqlite": "sqlite_url"}[request.param]
    url: str = request.getfixturevalue(fixture)
    return url


@pytest.fixture
def own_rabbitmq(tmp_path: Path) -> Iterator[RabbitMQ]:
    """A RabbitMQ for this test alone, to be stopped and started again; 15 seconds to start."""
    server = RabbitMQ(tmp_path / "rabbitmq")
    with server:
        yield server


@pytest.fixture(scope="session")
def killable_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A RabbitMQ to be killed, frozen and alarmed by the tests of the group `own-rabbitmq`, which leave it running."""
    server = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    with server:
        yield server


@pytest.fixture(scope="session")
def killable_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """As `killable_rabbitmq`; it keeps its data. Each xdist worker has one."""
    server = Redis(tmp_path_factory.mktemp("redis"))
    server.keeps_data = True
    with server:
        yield server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    """A Redis for this test alone, to be stopped and started again; it keeps its data."""
    server = Redis(tmp_path / "redis")
    server.keeps_data = True
    with server:
        yield server


# Processes


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts processes; those that still run when the test ends are killed, with what they started."""
    started = Processes(tmp_path)
    yield started
    started.end()
