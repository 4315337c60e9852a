"""What helps to test with Lightbus: apps without a broker (`harness`), and the contract that every transport keeps.

Each name is loaded when it is first used: pytest imports this package, for its plugin, wherever Lightbus is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .assertions import Sent
    from .contract import TransportContract
    from .running import Handled
    from .verbs import Harness, Parked, harness

__all__ = ["Handled", "Harness", "Parked", "Sent", "TransportContract", "harness"]

_HOMES = {"Handled": "running", "Sent": "assertions", "TransportContract": "contract"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{_HOMES.get(name, 'verbs')}", __name__), name)
    globals()[name] = value  # so that this function is asked once per name
    return value
