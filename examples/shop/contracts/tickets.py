"""What support answers."""

from __future__ import annotations

from dataclasses import dataclass

from lightbus import Api, ApiError, rpc


@dataclass
class Ticket:
    order: int
    email: str
    text: str


class Tickets(Api, name="support.tickets", version="1.0"):
    """Owned by `support`."""

    class UnknownOrder(ApiError):
        order: int

    @rpc(errors=[UnknownOrder])
    def open(self, *, order: int, text: str) -> Ticket:
        """A new ticket for the customer of `order`."""
        raise NotImplementedError

    @rpc(idempotent=True)
    def of_order(self, *, order: int) -> list[Ticket]:
        """All tickets of `order`."""
        raise NotImplementedError
