"""The server of `add` on FastStream."""

import asyncio
import os

from faststream import FastStream
from faststream.rabbit import Channel, RabbitBroker
from pydantic import BaseModel

broker = RabbitBroker(os.environ["BENCH_BROKER_URL"], default_channel=Channel(prefetch_count=100))
QUEUE = "bench.faststream"


class Numbers(BaseModel):
    x: int
    y: int


@broker.subscriber(QUEUE)
async def add(numbers: Numbers) -> int:
    return numbers.x + numbers.y


if __name__ == "__main__":
    asyncio.run(FastStream(broker).run())
