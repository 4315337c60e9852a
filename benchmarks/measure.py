"""What the benchmarks share: taking turns, medians, CPU of a process tree, and a table."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

HERE = Path(__file__).parent


@dataclass
class Samples:
    """The rounds of one candidate: named figures, one list each."""

    figures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        return statistics.median(self.figures[name])


def interleave(
    candidates: Mapping[str, Callable[[], Mapping[str, float]]], rounds: int, progress: Callable[[str], None]
) -> dict[str, Samples]:
    """Run the candidates in turns, so that a noisy minute hits all of them."""
    samples = {name: Samples() for name in candidates}
    for number in range(1, rounds + 1):
        for name, run in candidates.items():
            progress(f"round {number} of {rounds}: {name}")
            samples[name].add(run())
    return samples


def table(samples: Mapping[str, Samples], figures: Sequence[tuple[str, str, bool]]) -> str:
    """A Markdown table; a figure is (name, heading, whether a ratio to the first candidate is shown)."""
    first = next(iter(samples))
    heads = ["candidate"]
    for _, heading, ratio in figures:
        heads += [heading, "ratio", "min..max"] if ratio else [heading]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, sample in samples.items():
        cells = [name]
        for figure, _, ratio in figures:
            values = sample.figures[figure]
            cells.append(f"{sample.median(figure):.4g}")
            if ratio:
                cells.append(f"{sample.median(figure) / samples[first].median(figure):.2f}")
                cells.append(f"{min(values):.4g}..{max(values):.4g}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cpu_seconds(pid: int) -> float:
    """User and system seconds of a process and its living children."""
    root = psutil.Process(pid)
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def start(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A process of a candidate, in its own group, its output in `log`."""
    paths = [str(HERE), str(HERE.parent), str(HERE.parent / "scheduler"), os.environ.get("PYTHONPATH", "")]
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
            stdout=output,
            stderr=output,
            cwd=log.parent,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a candidate and what it started."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in children:
        if child.is_running():
            child.kill()


def wait_until(done: Callable[[], bool], what: str, seconds: float = 60.0, pause_seconds: float = 0.002) -> None:
    """Wait for a thing.

    Raises:
        TimeoutError: it did not come about; names it.
    """
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come about in {seconds:g} s")
        time.sleep(pause_seconds)
