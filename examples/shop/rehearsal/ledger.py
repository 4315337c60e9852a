"""What the processes wrote into the journal, counted: was anything lost or done twice? Reads files only."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LISTENERS = ("keep_order", "greet_customer")


@dataclass(frozen=True)
class Ledger:
    """The journal at one moment.

    Attributes:
        sent: id -> the line of a task whose sending had returned.
        runs: id -> the lines of its runs.
        fired: numbers of the orders whose event was fired.
        heard: (listener, order) -> how often.
    """

    sent: dict[str, dict[str, Any]]
    runs: dict[str, list[dict[str, Any]]]
    fired: list[int]
    heard: Counter[tuple[str, int]]

    @classmethod
    def read(cls, journal: Path) -> Ledger:
        text = journal.read_text() if journal.exists() else ""
        sent, fired, heard = {}, [], Counter[tuple[str, int]]()
        runs: dict[str, list[dict[str, Any]]] = {}
        for line in text.splitlines():
            entry = json.loads(line)
            match entry["what"]:
                case "sent":
                    sent[entry["id"]] = entry
                case "ran":
                    runs.setdefault(entry["id"], []).append(entry)
                case "fired":
                    fired.append(entry["order"])
                case "heard":
                    heard[entry["listener"], entry["order"]] += 1
        return cls(sent, runs, fired, heard)

    @property
    def lost(self) -> list[str]:
        """Ids that were sent and not run."""
        return [task_id for task_id in self.sent if task_id not in self.runs]

    @property
    def twice(self) -> list[str]:
        """Ids that ran more than once."""
        return [task_id for task_id, runs in self.runs.items() if len(runs) > 1]

    @property
    def marked(self) -> list[str]:
        """Ids of messages that carried the mark of a hand-over when they ran."""
        return [task_id for task_id, runs in self.runs.items() if any(run["hops"] for run in runs)]

    @property
    def early(self) -> list[str]:
        """Ids that ran before their countdown was over."""
        return [i for i, line in self.sent.items() if self.ran(i) and self.runs[i][0]["at"] < line["due"]]

    def ran(self, *ids: str) -> bool:
        """Whether all of them ran."""
        return all(task_id in self.runs for task_id in ids)

    def engine_of(self, task_id: str) -> str:
        """`celery`, `lightbus`, or `""`: who ran it first."""
        return str(self.runs[task_id][0]["engine"]) if task_id in self.runs else ""

    def run_by(self, engine: str) -> list[str]:
        return [task_id for task_id in self.runs if self.engine_of(task_id) == engine]

    @property
    def handled(self) -> int:
        """Runs of tasks, and events heard."""
        return sum(len(runs) for runs in self.runs.values()) + sum(self.heard.values())

    @property
    def unheard(self) -> list[tuple[str, int]]:
        """Listeners with the orders that they were not told of."""
        return [(name, order) for order in self.fired for name in LISTENERS if not self.heard[name, order]]

    @property
    def heard_twice(self) -> list[tuple[str, int]]:
        return [pair for pair, count in self.heard.items() if count > 1]
