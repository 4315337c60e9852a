"""The embedded broker: a kombu transport on one SQLite file, for the processes of one machine.

Importing this package teaches kombu the URL scheme `sqlite`; nothing else is loaded until a connection is made.

    sqlite:////var/lib/shop/bus.db    an absolute path (four slashes)
    sqlite:///bus.db                  relative to the working directory of the process that connects

A stock Celery app uses it in one of two ways:

    import lightbus.drivers.sqlite    # in the module of the app
    app = Celery("shop", broker="sqlite:////var/lib/shop/bus.db")

or, with settings alone and no import of ours,

    broker_url = "sqlite:////var/lib/shop/bus.db"
    broker_transport = "lightbus.drivers.sqlite.transport:Transport"

(kombu refuses a URL whose scheme is an import path, so the class cannot be named in the URL itself.)

What it does as RabbitMQ would: direct, topic and fanout exchanges, priorities, message and queue expiry, exclusive and
auto-delete queues, prefetch, redelivery with the flag set. Beyond that: delayed messages. What it does not: headers
exchanges, exchange-to-exchange bindings, length limits, dead-lettering. It loses no message when a process dies; when
the machine loses power, the last few that were published may be missing. The file must be on a disk of this machine.
"""

from __future__ import annotations

from kombu.transport import TRANSPORT_ALIASES

SCHEME = "sqlite"
TRANSPORT = "lightbus.drivers.sqlite.transport:Transport"


def register() -> None:
    """Teach kombu the URL scheme. Importing the package has done so already; again is harmless."""
    TRANSPORT_ALIASES[SCHEME] = TRANSPORT


register()
