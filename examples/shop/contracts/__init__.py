"""What the two applications have agreed on: events and calls. Both install it; neither imports the other."""

from .orders import Orders
from .tickets import Ticket, Tickets

__all__ = ["Orders", "Ticket", "Tickets"]
