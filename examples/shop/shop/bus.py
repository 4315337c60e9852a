"""The shop on the bus: it tells of its orders, and calls support."""

from __future__ import annotations

from lightbus import Bus

from .settings import BROKER

bus = Bus("shop", url=BROKER)
