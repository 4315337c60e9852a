"""Support on the bus: two listeners to the shop's orders, and the API of its tickets."""

from __future__ import annotations

import json
import os
from dataclasses import asdict

import journal
from contracts import Orders, Ticket, Tickets

from lightbus import Bus, current_delivery, rpc

bus = Bus("support")
ORDERS = journal.FOLDER / "support"


@bus.on(Orders.placed)
def keep_order(event: Orders.placed) -> None:
    """Support's own copy, so that it can answer while the shop is down."""
    ORDERS.mkdir(parents=True, exist_ok=True)
    part = ORDERS / f"{event.order}.{os.getpid()}.part"
    part.write_text(json.dumps({"email": event.email}))
    part.replace(ORDERS / f"{event.order}.json")
    heard("keep_order", event)


@bus.on(Orders.placed)
def greet_customer(event: Orders.placed) -> None:
    heard("greet_customer", event)


class OurTickets(Tickets):
    @rpc()
    def open(self, *, order: int, text: str) -> Ticket:
        kept = ORDERS / f"{order}.json"
        if not kept.exists():
            raise Tickets.UnknownOrder(order=order)
        ticket = Ticket(order=order, email=json.loads(kept.read_text())["email"], text=text)
        with (ORDERS / f"{order}.tickets").open("a") as file:
            file.write(json.dumps(asdict(ticket)) + "\n")
        return ticket

    @rpc()
    async def of_order(self, *, order: int) -> list[Ticket]:
        kept = ORDERS / f"{order}.tickets"
        lines = kept.read_text().splitlines() if kept.exists() else []
        return [Ticket(**json.loads(line)) for line in lines]


bus.serve(OurTickets())


def heard(listener: str, event: Orders.placed) -> None:
    delivery = current_delivery()
    journal.note(
        "heard",
        listener=listener,
        order=event.order,
        id=delivery and delivery.id,
        again=delivery and delivery.redelivered,
    )
