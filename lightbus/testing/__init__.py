"""What helps to test with Lightbus: the contract that every transport has to keep."""

from __future__ import annotations

from .contract import TransportContract

__all__ = ["TransportContract"]
