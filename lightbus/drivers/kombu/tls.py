"""The transport option `ssl`, which kombu wants told apart from the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SSL = "ssl"


def tls_of(options: Mapping[str, object]) -> tuple[Any, dict[str, object]]:
    """What kombu's `Connection(ssl=...)` takes, and the options without it.

    It is Celery's `broker_use_ssl`: a dict of py-amqp's or redis-py's own options, or True for their defaults.
    """
    others = dict(options)
    return others.pop(SSL, None) or False, others
