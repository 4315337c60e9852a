"""Lightbus in a Django project: set-up, discovery, and database connections that fit one message.

`lightbus worker` uses this by itself when `DJANGO_SETTINGS_MODULE` is set. Django asks for the same care around a
message as around a request: a connection that broke or is too old is closed before and after it, and none is used in
another process than the one that opened it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import django
from django.apps import apps
from django.conf import ENVIRONMENT_VARIABLE, settings
from django.db import close_old_connections, connections

from .. import Bus, ConfigError, Invocation

#: Modules of each installed app that may declare something for a worker.
DISCOVERED = ("bus", "listeners", "tasks")


def make_bus(name: str) -> Bus:
    """A bus with the broker of Django's settings: `LIGHTBUS_URL`, and `LIGHTBUS_OPTIONS` for its transport options.

    Without that setting the variable `LIGHTBUS_URL` decides, and then the embedded broker, as for every bus.

    Raises:
        ConfigError: a setting has the wrong type.
    """
    url = getattr(settings, "LIGHTBUS_URL", None)
    options = getattr(settings, "LIGHTBUS_OPTIONS", {})
    if not (url is None or isinstance(url, str)):
        raise ConfigError(f"the Django setting LIGHTBUS_URL must be a text, got {url!r}")
    if not isinstance(options, Mapping):
        raise ConfigError(f"the Django setting LIGHTBUS_OPTIONS must be a dict, got {options!r}")
    return Bus(name, url=url or None, options=options)


def set_up() -> None:
    """`django.setup()`, unless it was done; and from then on no process uses a connection of the one it came from."""
    if not os.environ.get(ENVIRONMENT_VARIABLE) and not settings.configured:
        raise ConfigError(f"{ENVIRONMENT_VARIABLE} is not set: it names the settings, for example 'project.settings'")
    if not apps.ready:
        django.setup()
    InheritedConnections()


def discover() -> list[ModuleType]:
    """Import the modules DISCOVERED of each installed app, as far as they are there; what they raise is raised.

    Database connections that importing has opened are closed.
    """
    found = []
    for config in apps.get_app_configs():
        for name in DISCOVERED:
            full = f"{config.name}.{name}"
            if full in sys.modules or find_spec(full) is not None:
                found.append(import_module(full))
    connections.close_all()  # what importing has opened is nothing that a worker's processes should start with
    return found


@contextmanager
def fresh_connections(invocation: Invocation) -> Iterator[None]:
    """Middleware: close database connections that broke or are older than `CONN_MAX_AGE`, as around a request.

    Connections belong to threads. A coroutine's are in the threads of `sync_to_async`, which this does not reach.
    """
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


class InheritedConnections:
    """Drops, in each process that is forked from here on, the connections of the process before.

    They are kept and never closed: closing one would say goodbye to the server on the other process's behalf.
    """

    def __init__(self) -> None:
        self._kept: list[object] = []
        os.register_at_fork(after_in_child=self.drop)

    def drop(self) -> None:
        """Forget them; the next query connects anew."""
        for connection in connections.all(initialized_only=True):
            if connection.connection is not None:
                self._kept.append(connection.connection)
                connection.connection = None
                connection.in_atomic_block = False
                connection.savepoint_ids = []
