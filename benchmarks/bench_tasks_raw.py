"""The floor: a loop on raw py-amqp that parses, runs and acknowledges 50 at a time."""

import json
import os
from urllib.parse import urlsplit

import amqp

url = urlsplit(os.environ["BENCH_BROKER_URL"])
DONE = os.open(os.environ["BENCH_DONE"], os.O_WRONLY | os.O_APPEND)
connection = amqp.Connection(f"{url.hostname}:{url.port}", url.username, url.password, virtual_host=url.path[1:] or "/")
connection.connect()
channel = connection.channel()
channel.basic_qos(0, 500, False)
waiting: list[int] = []


def on_message(message: amqp.Message) -> None:
    json.loads(message.body)
    os.write(DONE, b".")
    waiting.append(message.delivery_tag)
    if len(waiting) == 50:
        channel.basic_ack(waiting[-1], multiple=True)
        waiting.clear()


channel.basic_consume("bench.raw", callback=on_message)
while True:
    connection.drain_events()
