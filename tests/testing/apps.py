"""Two apps for the tests of the harness: a shop that fires and calls, and support that listens and serves."""

from __future__ import annotations

from dataclasses import dataclass, field

from lightbus import Api, ApiError, Bus, Event, RetryPolicy, current_delivery, rpc


class Orders(Api, name="shop.orders", version="1.2"):
    class placed(Event):
        order: int
        email: str
        note: str = ""

    class shipped(Event):
        order: int


class Tickets(Api, name="support.tickets", version="1.0"):
    class opened(Event):
        ticket: int
        title: str

    class Closed(ApiError):
        ticket: int

    @rpc(errors=[Closed])
    def title(self, *, ticket: int, language: str = "en") -> str:
        raise NotImplementedError


@dataclass
class Shop:
    """Fires events and asks support."""

    bus: Bus = field(default_factory=lambda: Bus("shop", url="amqp://nobody.invalid"))
    tickets: Tickets = field(init=False)

    def __post_init__(self) -> None:
        self.tickets = self.bus.client(Tickets)

    def place(self, order: int, email: str) -> None:
        self.bus.fire(Orders.placed(order=order, email=email))

    def ask(self, ticket: int) -> str:
        return self.tickets.title(ticket=ticket)


class OurTickets(Tickets):
    @rpc()
    def title(self, *, ticket: int, language: str = "en") -> str:
        if ticket == 404:
            raise Tickets.Closed(ticket=ticket)
        if ticket < 0:
            raise ValueError(f"no ticket {ticket}")
        return f"ticket {ticket} in {language}"


@dataclass
class Support:
    """Listens to orders, opens tickets, serves them."""

    bus: Bus = field(default_factory=lambda: Bus("support", url="amqp://nobody.invalid"))
    seen: list[tuple[str, int, bool]] = field(default_factory=list)
    failures_left: int = 0

    def __post_init__(self) -> None:
        self.bus.serve(OurTickets())
        self.bus.on(Orders.placed, retry=RetryPolicy(max_retries=2))(self.open_ticket)
        self.bus.on(Orders.placed, Orders.shipped, name="audit")(self.audit)

    def open_ticket(self, event: Orders.placed) -> None:
        if self.failures_left:
            self.failures_left -= 1
            raise ConnectionError("the database is away")
        self.bus.fire(Tickets.opened(ticket=event.order, title=f"order of {event.email}"))

    async def audit(self, event: Orders.placed | Orders.shipped) -> None:
        delivery = current_delivery()
        assert delivery is not None
        self.seen.append((delivery.name, delivery.attempt, delivery.redelivered))
