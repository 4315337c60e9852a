"""The benchmarks run, with few messages: what they say of speed is not tested."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import celery  # noqa: F401 - the candidates need it and compat: where one is absent, this file is left out
import pytest

import lightbus.compat  # noqa: F401
from tests.processes import ROOT, Process

#: Each program once; two processes of it, or more threads, are no other code.
ONLY = {
    "workers": ["--only", "1", "--only", "raw"],
    "canvas": ["--only", "-c 1"],
    "rpc": ["--only", "raw", "--only", "call", "--only", "celery", "--only", "faststream"],  # all but Nameko
    "weight": ["--only", "lightbus, 1"],
    "schedule": ["--only", " 10 entries"],  # a burst takes minutes of the clock
}
TABLES = {"workers": 3, "publishing": 3, "canvas": 2, "rpc": 1, "latency": 1, "weight": 1, "growth": 3, "schedule": 1}


@pytest.mark.parametrize("name", TABLES)
def test_a_benchmark_measures_each_of_its_candidates(
    name: str, tmp_path: Path, amqp_vhost_url: str, redis_url: str
) -> None:
    output = tmp_path / "results"
    environment = {"LIGHTBUS_TEST_AMQP_URL": amqp_vhost_url, "LIGHTBUS_TEST_REDIS_URL": redis_url}
    command = ["python", ROOT / "benchmarks" / "run.py", name, "--rounds", "1", "--messages", "30"]
    run = Process([*command, *ONLY.get(name, []), "--output", output], tmp_path / "log", environment)

    assert run.wait(100) == 0, (tmp_path / "log").read_text()

    page = (output / "results.md").read_text()
    assert page.count("\n## ") == TABLES[name]
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if row[0] != "candidate"]
    assert len(rows) > TABLES[name]
    for label, *figures in rows:
        assert re.fullmatch(r"[\d.,]+", figures[0]), f"{name}: {label} measured nothing: {figures}"
        assert float(figures[0].replace(",", "")) > 0
    plots = re.findall(r"!\[.*\]\((.*)\)", page)
    assert plots
    for plot in plots:
        texts = [element.text for element in ElementTree.parse(output / plot).iter("{http://www.w3.org/2000/svg}text")]
        assert any(label in texts for label, *_ in rows), f"{plot} labels none of the candidates"
