"""The relay of a transactional outbox, and what it needs of a table. The tables are in `lightbus.contrib.outbox`."""

from ..core.outbox import Backlog, Row
from .relay import Relay, RelayOptions, RelayWatcher
from .store import Claim, OutboxStore, StoreUnavailable

__all__ = ["Backlog", "Claim", "OutboxStore", "Relay", "RelayOptions", "RelayWatcher", "Row", "StoreUnavailable"]
