"""Runs the benchmarks on a private RabbitMQ, Redis and embedded broker: what `make bench` calls.

Prints the tables as they are finished. A full run writes them to benchmarks/results/ as results.md and SVG plots; any
other does with `--output`. LIGHTBUS_TEST_AMQP_URL and LIGHTBUS_TEST_REDIS_URL (an empty database) name servers that run
already, as for the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import redis

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "scheduler")]

import plots  # noqa: E402  (the path comes first)
from measure import Section, Setting  # noqa: E402

from tests.brokers import RabbitMQ, Redis, Server  # noqa: E402

#: Modules with a function `sections`, in the order of the page.
BENCHMARKS = ("workers", "publishing", "canvas", "rpc", "latency", "weight", "growth", "schedule")
PACKAGES = ("lightbus-kombu", "celery", "dramatiq", "huey", "kombu", "amqp", "pika", "redis")
ROUNDS, MESSAGES = 3, 10_000
QUICK_ROUNDS, QUICK_MESSAGES = 1, 300


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", help=f"some of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--rounds", type=int, help=f"turns of each candidate ({ROUNDS})")
    parser.add_argument("--messages", type=int, help=f"per turn ({MESSAGES})")
    parser.add_argument("--quick", action="store_true", help="few messages, one round: does it run, and roughly what?")
    parser.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="candidates with this in their name"
    )
    parser.add_argument("--output", type=Path, help="the folder to write results.md and the plots to")
    options = parser.parse_args()
    unknown = set(options.which) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    from tests.tools.run import install_missing

    if not install_missing():
        return 2
    folder = Path(tempfile.mkdtemp(prefix="lightbus-bench-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        setting = Setting(
            amqp_url=os.environ.get("LIGHTBUS_TEST_AMQP_URL") or _started(RabbitMQ(folder / "rabbitmq"), stack),
            redis_url=os.environ.get("LIGHTBUS_TEST_REDIS_URL") or _started(Redis(folder / "redis"), stack),
            folder=folder,
            rounds=options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS),
            messages=options.messages or (QUICK_MESSAGES if options.quick else MESSAGES),
            progress=lambda text: print(text, file=sys.stderr, flush=True),
            only=options.only,
        )
        with redis.Redis.from_url(setting.redis_url) as server:
            if server.dbsize():
                parser.error("the database of LIGHTBUS_TEST_REDIS_URL is not empty, and the benchmarks would empty it")
        sections = []
        for name in options.which or BENCHMARKS:
            for section in importlib.import_module(name).sections(setting):
                if not section.turns:
                    continue  # --only names none of its candidates
                print(f"\n### {section.title}\n\n{section.table()}", flush=True)
                sections.append(section)
    is_full = not (options.quick or options.which or options.only)
    output = options.output or (HERE / "results" if is_full else None)
    if output:
        write(sections, setting, output)
    return 0


def _started(server: Server, stack: contextlib.ExitStack) -> str:
    stack.enter_context(server)
    return server.url


def write(sections: Sequence[Section], setting: Setting, folder: Path) -> None:
    """results.md and one SVG per plotted figure."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [head(setting)]
    for section in sections:
        parts.append(f"## {section.title}\n\n{section.table()}")
        for figure in section.figures:
            if figure.plot:
                name = f"{section.name}-{figure.key.replace('_', '-')}.svg"
                (folder / name).write_text(plots.plot(section, figure), encoding="utf-8")
                parts.append(f"![{section.title}: {figure.heading}]({name})")
    (folder / "results.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def head(setting: Setting) -> str:
    """What the figures were measured with."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    now = datetime.now(timezone.utc)
    return (
        "# Results\n\n"
        f"Measured on {now:%Y-%m-%d %H:%M} UTC: Python {platform.python_version()}, {versions}; {os.cpu_count()} cores "
        f"({_processor()}), Linux {platform.release()}; the brokers on the same machine. {setting.rounds} rounds of "
        f"{setting.messages:,} messages; medians. Ratios are to the first row.\n\n"
        f"Repeat: `make bench ARGS='--rounds {setting.rounds} --messages {setting.messages} --output FOLDER'`. What is "
        "measured is described in [README.md](../README.md)."
    )


def _processor() -> str:
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    sys.exit(main())
