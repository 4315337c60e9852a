"""A short soak of each broker (`soak`); a long one is `make soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.soak import soak

pytestmark = pytest.mark.xdist_group("own-rabbitmq")  # one private broker at a time: two cores


@pytest.mark.timeout(300)  # on a busy machine it goes on until enough messages are through
@pytest.mark.parametrize("broker", ["amqp", "redis", "sqlite"])
def test_random_faults_cost_nothing(broker: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    fixture = {"amqp": "killable_rabbitmq", "redis": "killable_redis"}.get(broker)
    server = request.getfixturevalue(fixture) if fixture else None
    report = soak(2026, 6.0, broker, tmp_path, server, at_least=60)
    assert report.is_clean, str(report)
    assert len(report.ledger.done) > 50
    assert report.faults
    assert report.answers["answered"]
