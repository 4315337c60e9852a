"""Celery's own integration tests, which are in its source distribution only: fetched for one version, and checked."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path

#: SHA-256 of the distributions as they were when the lists of `known.py` were made.
SHA256 = {"5.7.0": "6a5dfcf6662287204f009a02002b9e66c83d4105e47ebabdc7079108772fc6f0"}
#: Not the package `celery` beside them: the tests are to run with the one that is installed.
WANTED = ("t/", "pyproject.toml")


class SuiteUnavailable(RuntimeError):
    """Celery's tests could not be had; the text says why and what to do."""


def fetch(version: str, cache: Path) -> Path:
    """The folder with `t/` of that version of Celery, made in `cache` when it is not there.

    Raises:
        SuiteUnavailable: pip failed, the file is not the one that is expected, or it holds no tests.
    """
    folder = cache / f"celery-{version}"
    expected = expected_hash(version)
    if not (folder / "complete").exists():
        archive = download(version, cache)
        check(archive, expected)
        unpack(archive, folder, version)
        (folder / "complete").touch()
    return folder


def download(version: str, cache: Path) -> Path:
    """The archive, from pip's package index or, when it was fetched before, from `cache`."""
    archive = cache / f"celery-{version}.tar.gz"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        wanted = ["--no-deps", "--no-binary", ":all:", "--dest", str(cache), f"celery=={version}"]
        done = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
        if done.returncode != 0 or not archive.exists():
            last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
            raise SuiteUnavailable(
                f"pip did not bring the source of Celery {version} ({last}): is there a way to the package index? "
                f"Where there is none, put celery-{version}.tar.gz into {cache}"
            )
    return archive


def expected_hash(version: str) -> str:
    """The SHA-256 that the archive of that version has to have."""
    if version not in SHA256:
        raise SuiteUnavailable(
            f"the tests of Celery {version} are not known here, only those of {', '.join(SHA256)}: "
            "install one of these, or add its hash to tests/celery_suite/sdist.py and its lists to known.py"
        )
    return SHA256[version]


def check(archive: Path, expected: str) -> None:
    """Refuse an archive that is not the one whose tests `known.py` speaks of."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != expected:
        raise SuiteUnavailable(f"{archive} has the SHA-256 {found}, and not {expected}: delete it and try again")


def unpack(archive: Path, folder: Path, version: str) -> None:
    top = f"celery-{version}/"
    with tarfile.open(archive) as files:
        members = [member for member in files if member.isfile() and member.name.removeprefix(top).startswith(WANTED)]
        if not members:
            raise SuiteUnavailable(f"{archive} has no tests: {' and '.join(WANTED)} are not in it")
        for member in members:
            content = files.extractfile(member)
            if content is not None:
                path = folder / member.name.removeprefix(top)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())
