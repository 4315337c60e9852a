"""What mypy and pyright see of contracts: they accept right code, and refuse each wrong line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.node import INSTALL_SECONDS, installed
from tests.processes import ROOT

HERE = Path(__file__).parent
PYRIGHT = "pyright@1.1.414"


def mypy(path: Path) -> dict[int, str]:
    """Line to what mypy says of it."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", "--no-pretty"]
    done = subprocess.run(
        [*command, "--config-file=", f"--cache-dir={ROOT / '.mypy_cache' / 'typing'}", str(path)],
        cwd=ROOT, capture_output=True, text=True, timeout=250, check=False,
        env={**os.environ, "MYPYPATH": str(ROOT / "scheduler")},
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(r"^(.*?):(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    assert {Path(name).name for name, _, _ in found} <= {path.name}, done.stdout
    return {int(line): text for _, line, text in found}


def pyright(path: Path) -> dict[int, str]:
    """Line to what pyright says of it."""
    done = subprocess.run(
        ["node", installed(PYRIGHT) / "pyright" / "index.js", "--outputjson", "--pythonpath", sys.executable, path],
        cwd=ROOT, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout + done.stderr
    errors = [one for one in json.loads(done.stdout)["generalDiagnostics"] if one["severity"] == "error"]
    return {one["range"]["start"]["line"] + 1: one["message"] for one in errors}


CHECKERS = pytest.mark.parametrize("check", [mypy, pyright])


@pytest.mark.timeout(INSTALL_SECONDS + 250)
@CHECKERS
def test_right_code_passes(check: Callable[[Path], dict[int, str]]) -> None:
    assert check(HERE / "right.py") == {}


@pytest.mark.timeout(INSTALL_SECONDS + 250)
@CHECKERS
def test_each_wrong_line_is_refused_and_no_other(check: Callable[[Path], dict[int, str]]) -> None:
    path = HERE / "wrong.py"
    wrong = {number for number, line in enumerate(path.read_text().splitlines(), 1) if "# WRONG" in line}
    assert len(wrong) > 20

    found = check(path)

    # A checker may point at the decorator above a method in place of the method.
    lines = {line + 1 if line + 1 in wrong and line not in wrong else line for line in found}
    assert lines == wrong, found
