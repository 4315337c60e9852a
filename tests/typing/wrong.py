"""Code of which both type checkers have to refuse each line that says WRONG, and no other."""

from __future__ import annotations

from lightbus import Api, Bus, Event, rpc
from lightbus.testing import harness


class Tickets(Api, name="support.tickets", version="1.0"):
    class created(Event):
        id: int
        email: str = ""

    @rpc()
    def status(self, *, id: int) -> str:
        raise NotImplementedError

    @rpc()
    def sizes(self, *, of: list[str]) -> dict[str, int]:
        raise NotImplementedError


class Drifted(Tickets):
    @rpc()
    def status(self, *, id: str) -> str:  # WRONG the argument has another type
        return id

    @rpc()
    def sizes(self, *, of: list[str]) -> dict[str, str]:  # WRONG the result has another type
        return {}


class Renamed(Tickets):
    @rpc()
    def status(self, *, number: int) -> str:  # WRONG the argument has another name
        return ""


bus = Bus("support")
tickets = bus.client(Tickets)


def events() -> None:
    bus.fire(Tickets.creatde(id=1))  # WRONG a name
    bus.fire(Tickets.created())  # WRONG a field is missing
    bus.fire(Tickets.created(id="1"))  # WRONG a type
    bus.fire(Tickets.created(id=1, mail=""))  # WRONG a field that is not there
    bus.fire(Tickets.created(1))  # WRONG a field without its name
    bus.fire(Tickets)  # WRONG no event
    bus.fire("support.tickets.created")  # WRONG no event


def calls() -> None:
    tickets.statsu(id=1)  # WRONG a name
    tickets.status()  # WRONG an argument is missing
    tickets.status(id="1")  # WRONG a type
    tickets.status(id=1, reader="")  # WRONG an argument that is not there
    tickets.status(1)  # WRONG an argument without its name
    tickets.status(id=1) + 1  # WRONG the result is text
    tickets.status.start(id="1")  # WRONG a type
    bus.call(Tickets.status, id="1")  # WRONG a type
    bus.call(Tickets.statsu, id=1)  # WRONG a name
    bus.call(Tickets.sizes, of=[1])  # WRONG a type inside a type
    bus.client(Bus)  # WRONG no API


async def calls_async() -> None:
    (await tickets.status.aio(id=1)) + 1  # WRONG the result is text
    await bus.call_async(Tickets.status)  # WRONG an argument is missing
    await tickets.status.aio(id="1")  # WRONG a type


@bus.on(Tickets.created)
def thank(event: Tickets.created) -> None:
    print(event.mail)  # WRONG a field that is not there
    print(event.id.upper())  # WRONG the field is a number
    event.id = 2  # WRONG an event does not change


with harness(bus) as t:
    t.assert_fired(Tickets.created, id="1")  # WRONG a type
    t.assert_fired(Tickets.created, mail="")  # WRONG a field that is not there
    t.simulate(Tickets.created, id="1")  # WRONG a type
    t.assert_called(Tickets.status, reader="")  # WRONG an argument that is not there
    t.simulate(Tickets.status, id=1) + 1  # WRONG the result is text
    t.stub(Tickets.status, returns=1)  # WRONG the result is text
