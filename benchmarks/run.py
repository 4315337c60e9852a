"""Runs the benchmarks on a private RabbitMQ and prints their tables: `python benchmarks/run.py [workers|rpc|all]`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "scheduler")]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="?", choices=["workers", "rpc", "all"], default="all")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each candidate (3)")
    parser.add_argument("--messages", type=int, default=3000, help="tasks per turn (3000)")
    parser.add_argument("--calls", type=int, default=500, help="calls per turn (500)")
    parser.add_argument("--url", help="a running RabbitMQ, with a virtual host of its own; default: a private one")
    parser.add_argument("--output", type=Path, help="write the tables to this Markdown file as well")
    options = parser.parse_args()
    if options.url:
        text = measure(options.url, options)
    else:
        from tests.brokers import RabbitMQ

        broker = RabbitMQ(Path(tempfile.mkdtemp(prefix="lightbus-bench-")), os.getpid())
        with broker:
            text = measure(broker.url, options)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    return 0


def measure(url: str, options: argparse.Namespace) -> str:
    """All chosen benchmarks, one after the other, as Markdown."""
    import rpc
    import workers

    def progress(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    names = ("lightbus-kombu", "celery", "kombu", "amqp")
    packages = ", ".join(f"{name} {version(name)}" for name in names if _installed(name))
    parts = [f"Python {platform.python_version()}, {packages}, {os.cpu_count()} cores, broker on the same machine."]
    if options.which in ("workers", "all"):
        text, _ = workers.run(url, options.rounds, options.messages, progress)
        parts += [f"### Workers: {options.messages} no-op tasks, median of {options.rounds} rounds", text]
    if options.which in ("rpc", "all"):
        text, _ = rpc.run(url, options.rounds, options.calls, progress)
        parts += [f"### RPC: {options.calls} calls, median of {options.rounds} rounds", text]
    return "\n\n".join(parts)


def _installed(name: str) -> bool:
    try:
        version(name)
    except ModuleNotFoundError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
