"""Celery's own integration tests, with a Lightbus worker where they start Celery's: what `make celery-tests` calls.

    python -m tests.celery_suite [--broker redis|rabbitmq] [--worker lightbus|celery] [arguments of pytest]

Brokers are private ones and end with the run. Exit code 0: every test came out as `known.py` says, on each broker.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from tests.brokers import BrokerFailed, BrokerMissing, RabbitMQ, Redis
from tests.celery_suite.names import BROKER, FOLDER, WORKER
from tests.celery_suite.sdist import SuiteUnavailable, fetch
from tests.processes import ROOT
from tests.tools.run import install_missing

BROKERS = ("redis", "rabbitmq")
INTERRUPT_SECONDS = 30.0
CACHE = ROOT / ".celery-suite"


@contextlib.contextmanager
def environment(broker: str, worker: str, folder: Path) -> Iterator[dict[str, str]]:
    """Start the brokers of one run, and say where they are as Celery's tests want to hear it.

    Results are in Redis also on RabbitMQ: a row of Celery's own test matrix, and some tests read Redis themselves.
    """
    with contextlib.ExitStack() as running:
        redis = Redis(folder / "redis")
        running.enter_context(redis)
        url = redis.url
        if broker == "rabbitmq":
            rabbitmq = RabbitMQ(folder / "rabbitmq")
            running.enter_context(rabbitmq)
            url = rabbitmq.url
        yield {
            **os.environ,
            "TEST_BROKER": url,
            "TEST_BACKEND": redis.url,
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(redis.port),
            FOLDER: str(folder),
            BROKER: broker,
            WORKER: worker,
        }


def run(broker: str, worker: str, suite: Path, arguments: Sequence[str]) -> int:
    """The exit code of pytest over Celery's tests on one broker."""
    command = [
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "celery.contrib.pytest",
        "-p", "tests.celery_suite.plugin", "--tb=short", "-rfE", "t/integration", *arguments,
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="lightbus-celery-suite-") as folder:
        with environment(broker, worker, Path(folder)) as told:
            told["PYTHONPATH"] = os.pathsep.join(map(str, [suite, ROOT, ROOT / "scheduler"]))
            # A group of its own: Ctrl-C then comes to pytest once, from here.
            tests = subprocess.Popen(command, cwd=suite, env=told, start_new_session=True)
            try:
                return tests.wait()
            finally:
                _interrupt(tests)


def _interrupt(tests: subprocess.Popen[bytes]) -> None:
    """Let pytest end its worker, which it alone knows; it is killed when it does not within a while."""
    if tests.poll() is None:
        tests.terminate()
        try:
            tests.wait(INTERRUPT_SECONDS)
        except subprocess.TimeoutExpired:
            tests.kill()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="make celery-tests", description="Celery's integration tests, on a Lightbus worker.", allow_abbrev=False
    )
    parser.add_argument("--broker", choices=BROKERS, action="append", help="only on this one; repeatable")
    parser.add_argument(
        "--worker",
        choices=("lightbus", "celery"),
        default="lightbus",
        help="celery: its own, to compare; none may fail",
    )
    chosen, rest = parser.parse_known_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # by which worker and brokers end too
    if not install_missing():
        return 2
    celery = version("celery")
    try:
        suite = fetch(celery, CACHE)
        codes = {}
        for broker in chosen.broker or BROKERS:
            print(f"Celery {celery}'s integration tests on {broker}, served by {chosen.worker} worker", flush=True)
            codes[broker] = run(broker, chosen.worker, suite, rest)
    except (BrokerFailed, BrokerMissing, SuiteUnavailable) as error:
        print(error, file=sys.stderr)
        return 2
    for broker, code in codes.items():
        print(f"{broker}: {'as expected' if code == 0 else f'NOT as expected, pytest ended with {code}'}")
    return max(codes.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
