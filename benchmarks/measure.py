"""What the benchmarks share: taking turns, tables, and processes whose time and memory are watched."""

from __future__ import annotations

import json
import math
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


Figures = Mapping[str, float]  #: what one turn of a candidate measured, by the keys of its section's `Figure`s


@dataclass(frozen=True)
class Figure:
    """One column of a table; `ratio` and `plot` show it beside the first candidate, and as bars."""

    key: str
    heading: str
    ratio: bool = False
    plot: bool = False


@dataclass(frozen=True)
class Setting:
    """What all benchmarks of a run are given.

    Attributes:
        redis_url: a database that is emptied before each turn.
        folder: for the files of the candidates.
        rounds: turns of each candidate.
        messages: per turn.
        only: candidates whose name has one of these in it; all when it is empty.
    """

    amqp_url: str
    redis_url: str
    folder: Path
    rounds: int
    messages: int
    progress: Callable[[str], None]
    only: Sequence[str] = ()


@dataclass
class Section:
    """One table: a title, the figures that it shows, and what each candidate's turns measured."""

    name: str  #: of its files
    title: str
    figures: Sequence[Figure]
    turns: dict[str, list[Figures]] = field(default_factory=dict)

    def values(self, candidate: str, key: str) -> list[float]:
        return [turn[key] for turn in self.turns[candidate] if key in turn]

    def median(self, candidate: str, key: str) -> float:
        return statistics.median(self.values(candidate, key))

    def run(self, candidates: Mapping[str, Callable[[], Figures]], setting: Setting) -> Section:
        """Run the candidates in turns, so that a noisy minute hits all of them."""
        only = setting.only or ("",)
        chosen = {name: turn for name, turn in candidates.items() if any(part in name for part in only)}
        self.turns = {name: [] for name in chosen}
        for number in range(1, setting.rounds + 1):
            for name, turn in chosen.items():
                setting.progress(f"{self.name}, round {number} of {setting.rounds}: {name}")
                self.turns[name].append(turn())
        return self

    def table(self) -> str:
        """In Markdown. A candidate that does not measure a figure has a dash there."""
        if not self.turns:
            return "(none of its candidates was chosen)"
        first = next(iter(self.turns))
        heads = ["candidate"]
        for figure in self.figures:
            heads += [figure.heading, "ratio", "min..max"] if figure.ratio else [figure.heading]
        lines = ["| " + " | ".join(heads) + " |", "|---" + "|--:" * (len(heads) - 1) + "|"]
        for name in self.turns:
            cells = [name]
            for figure in self.figures:
                values = self.values(name, figure.key)
                if not values:
                    cells += ["-"] * (3 if figure.ratio else 1)
                    continue
                median = self.median(name, figure.key)
                cells.append(rounded(median))
                if figure.ratio:
                    base = self.median(first, figure.key)  # of few messages, no tick of CPU time may be measured
                    cells.append(f"{median / base:.2f}" if base else "-")
                    cells.append(f"{rounded(min(values))}..{rounded(max(values))}")
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)


def rounded(value: float) -> str:
    """Three figures that count, and no exponent."""
    if value >= 100:
        return f"{round(value, 2 - math.floor(math.log10(value))):,.0f}"
    return f"{value:.3g}"


def tree(pid: int) -> list[psutil.Process]:
    """A process and its living descendants."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """User and system seconds of a process and its living descendants."""
    total = 0.0
    for process in tree(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def start(arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A process of a candidate, in its own group, its output in `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, *arguments],
            env=_environment(environment),
            stdout=output,
            stderr=output,
            cwd=log.parent,
            start_new_session=True,
        )


def ask(arguments: Sequence[str], environment: Mapping[str, str]) -> Figures:
    """Run a program of a candidate to its end; it prints its figures as a JSON object, in its last line.

    Raises:
        RuntimeError: it failed; the text ends in what it said.
    """
    done = subprocess.run(
        [sys.executable, *arguments], env=_environment(environment), capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}
    return figures


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    paths = [str(HERE), str(HERE.parent), str(HERE.parent / "scheduler"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", **own}


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
