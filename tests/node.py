"""Packages of the npm registry for tests, and programs in JavaScript.

Node.js and npm are Debian's packages of these names; `tests/tools/run.py` gets them where it may.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

from tests.processes import ROOT

INSTALL_SECONDS = 250


def installed(*packages: str) -> Path:
    """The folder `node_modules` with `packages`, as `name@version`; installed once, beside pytest's own cache.

    Raises:
        AssertionError: npm did not install them; its words are in the text.
    """
    assert shutil.which("npm"), "this test needs Node.js and npm: install Debian's packages nodejs and npm"
    key = hashlib.sha256(" ".join(sorted(packages)).encode()).hexdigest()[:12]
    folder = ROOT / ".pytest_cache" / "node" / key
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests that run in several processes share it
        if not (folder / "ready").exists():
            (folder / "package.json").write_text("{}")
            command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *packages]
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
            )  # fmt: skip
            assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}"
            (folder / "ready").touch()  # last, so that an installation that was interrupted is done again
    return folder / "node_modules"
