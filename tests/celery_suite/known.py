"""Which of Celery's integration tests a Lightbus worker does not pass, each with its reason.

The list is strict both ways: a test that is not here has to pass, one that is here has to fail, and has to exist.
"""

from __future__ import annotations

from typing import NamedTuple

#: Files that are not collected, because they import what Celery's tests need beside Celery itself.
LEFT_OUT = {
    "test_backend.py": "Azure's storage, of which there is no private one; no test of it needs a worker's behaviour",
    "test_security.py": "the package cryptography; its one test is expected to fail on Celery's worker too",
}


class Known(NamedTuple):
    test: str  #: as pytest names it, from `t/integration` on
    reason: str
    broker: str = ""  #: redis or rabbitmq; on both when empty
    sometimes: bool = False  #: it depends on the moment whether it passes


KNOWN: dict[str, list[Known]] = {
    "5.7.0": [],
}


def known_failures(version: str, broker: str) -> dict[str, Known]:
    """By the test's name, for one version of Celery and one broker."""
    return {known.test: known for known in KNOWN[version] if known.broker in ("", broker)}
