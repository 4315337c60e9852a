"""kombu connections of a Celery app, for a project's own use: health checks, queue lengths, a publish by hand.

Lightbus does not send through these; its own connections are in `lightbus.drivers`.
"""

from __future__ import annotations

from typing import Any

import kombu

from .conf import Configuration


def open_connection(conf: Configuration, url: str | list[str] | None, **options: Any) -> kombu.Connection:
    """A connection to the project's broker, made when it is first used; the options are kombu's."""
    transport_options = {**(conf.broker_transport_options or {}), **(options.pop("transport_options", None) or {})}
    return kombu.Connection(
        url or conf.broker_url,
        transport_options=transport_options,
        ssl=options.pop("ssl", None) or conf.broker_use_ssl or False,
        connect_timeout=options.pop("connect_timeout", None) or conf.broker_connection_timeout,
        **{key: value for key, value in options.items() if value is not None},
    )
