"""Programs that the tests of the embedded broker run as processes. Each prints one line per thing that happened."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import suppress

from kombu import Connection, Consumer, Message, Producer, Queue

import lightbus.drivers.sqlite  # noqa: F401 - teaches kombu the URL

LEASE = {"lease_seconds": 4.0}


def consume(url: str, queue: str, prefetch: int, *, ack: bool) -> None:
    """Print `got BODY REDELIVERED`, and acknowledge or hold. A lost connection is printed, then made again."""

    def on_message(message: Message) -> None:
        body = message.body.decode()
        late = time.time() - float(body.partition(" at ")[2] or time.time())
        print(f"got {body.partition(' ')[0]} {message.delivery_info['redelivered']} {late:.4f}", flush=True)
        if ack:
            message.ack()

    while True:
        with Connection(url, transport_options=LEASE) as connection:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=prefetch)
            with Consumer(channel, [Queue(queue)], on_message=on_message):
                print("ready", flush=True)
                try:
                    while True:
                        with suppress(TimeoutError):
                            connection.drain_events(timeout=5)
                except connection.connection_errors as error:
                    print(f"lost: {error}", flush=True)


def publish(url: str, queue: str, count: int, first: int) -> None:
    with Connection(url) as connection:
        channel = connection.channel()
        Queue(queue)(channel).declare()
        producer = Producer(channel)
        for number in range(first, first + count):
            producer.publish(f"{number} at {time.time()}", routing_key=queue)
    print("published", flush=True)


def hold_and_leave(url: str, queue: str) -> None:
    """Take one message and end without closing anything."""
    connection = Connection(url)
    message = connection.channel().basic_get(queue)
    print(f"holds {message.body.decode()}", flush=True)
    sys.exit(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["consume", "hold", "publish", "leave"])
    parser.add_argument("url")
    parser.add_argument("queue")
    parser.add_argument("--prefetch", type=int, default=20)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    if options.what == "publish":
        publish(options.url, options.queue, options.count, options.first)
    elif options.what == "leave":
        hold_and_leave(options.url, options.queue)
    else:
        consume(options.url, options.queue, options.prefetch, ack=options.what == "consume")


if __name__ == "__main__":
    main()
