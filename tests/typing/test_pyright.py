"""What pyright sees of contracts, as `test_typing` for mypy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.node import INSTALL_SECONDS, installed
from tests.processes import ROOT

HERE = Path(__file__).parent
PYRIGHT = "pyright@1.1.414"


def pyright(path: Path) -> dict[int, str]:
    """Line to what pyright says of it."""
    done = subprocess.run(
        ["node", installed(PYRIGHT) / "pyright" / "index.js", "--outputjson", "--pythonpath", sys.executable, path],
        cwd=ROOT, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout + done.stderr
    errors = [one for one in json.loads(done.stdout)["generalDiagnostics"] if one["severity"] == "error"]
    return {one["range"]["start"]["line"] + 1: one["message"] for one in errors}


@pytest.mark.timeout(INSTALL_SECONDS + 250)
def test_right_code_passes() -> None:
    assert pyright(HERE / "right.py") == {}


@pytest.mark.timeout(INSTALL_SECONDS + 250)
def test_each_wrong_line_is_refused_and_no_other() -> None:
    path = HERE / "wrong.py"
    wrong = {number for number, line in enumerate(path.read_text().splitlines(), 1) if "# WRONG" in line}
    assert len(wrong) > 20

    found = pyright(path)

    # A checker may point at the decorator above a method in place of the method.
    lines = {line + 1 if line + 1 in wrong and line not in wrong else line for line in found}
    assert lines == wrong, found
