"""Run the tests on a copy of the project that has no `lightbus/compat`. Arguments go to pytest.

Shows that Lightbus needs nothing from its Celery layer: the folder is deleted in the copy, and every
test file that does not import it has to pass.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist")


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="lightbus-without-compat-") as folder:
        copy = Path(folder) / "lightbus"
        shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
        shutil.rmtree(copy / "lightbus" / "compat")
        shutil.rmtree(copy / "tests" / "compat", ignore_errors=True)
        run = [sys.executable, str(copy / "tests/tools/run.py"), "--without", "compat", *arguments]
        # -m pytest puts the copy first on the path, before the project that is installed.
        return subprocess.run(run, cwd=copy, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
