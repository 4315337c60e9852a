"""A listener that does nothing; run as a program, it fires as many events as its argument says, pipelined."""

import os
import sys

from bench_contract import Adder

from lightbus import Bus

bus = Bus("bench-listener")
DONE = os.open(os.environ["BENCH_DONE"], os.O_WRONLY | os.O_APPEND)


@bus.on(Adder.added)
def note(event: Adder.added) -> None:
    os.write(DONE, b".")


if __name__ == "__main__":
    import asyncio

    async def fire(count: int) -> None:
        for first in range(0, count, 500):
            events = (Adder.added(x=1, y=2) for _ in range(first, min(count, first + 500)))
            await asyncio.gather(*(bus.fire_async(event) for event in events))

    for endpoint in bus.endpoints():
        bus.transport.declare(endpoint.topology())  # an event that nobody listens to is kept nowhere
    asyncio.run(fire(int(sys.argv[1])))
    bus.close()
