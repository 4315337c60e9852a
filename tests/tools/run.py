"""Run the tests: what `make test` calls. Arguments go to pytest.

Decides what happens when a broker is not installed: root on Debian gets it with apt-get (unless
LIGHTBUS_TEST_INSTALL=no), everybody else one sentence and exit code 2. Starting brokers is `tests/brokers.py`'s work.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.brokers import how_to_get, missing_packages  # noqa: E402  (the path comes first)

POLICY = Path("/usr/sbin/policy-rc.d")
# Four workers, also on two cores: most of the tests wait for a broker and not for the processor. Any worker may take
# any test, because each has its own virtual host, database or file; only those that measure the machine
# share a group (`pytest.mark.xdist_group`) and so run one after the other.
PYTEST = ["-n", "4", "--dist", "loadgroup", "--durations", "10"]


def apt_get_install(packages: list[str]) -> None:
    """Install Debian packages without starting their services.

    Debian starts a service when it installs it; policy-rc.d is its way to say no. Ours is removed
    again, and one that exists already is left as it is.
    """
    print(f"installing {' '.join(packages)} with apt-get", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    ours = not POLICY.exists()
    try:
        if ours:
            POLICY.write_text("#!/bin/sh\nexit 101\n")
            POLICY.chmod(0o755)
        subprocess.run(["apt-get", "-qq", "update"], env=environment, check=True)
        subprocess.run(
            ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *packages],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    finally:
        if ours:
            POLICY.unlink(missing_ok=True)


def install_missing() -> bool:
    """Have the brokers installed where that is wanted and possible; False, with a sentence, where they stay missing."""
    missing = missing_packages()
    wanted = os.environ.get("LIGHTBUS_TEST_INSTALL") != "no"
    if missing and wanted and os.geteuid() == 0 and Path("/usr/bin/apt-get").exists():
        try:
            apt_get_install(missing)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"apt-get did not install {' '.join(missing)}: {error}", file=sys.stderr)
        missing = missing_packages()
    if missing:
        print(how_to_get(missing), file=sys.stderr)
    return not missing


def main(arguments: list[str]) -> int:
    if not install_missing():
        return 2
    os.chdir(ROOT)
    # In place of this process: Ctrl-C and signals then reach pytest itself.
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *PYTEST, *arguments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
