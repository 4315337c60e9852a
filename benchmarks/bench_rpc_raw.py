"""The server of `add` on raw py-amqp."""

import json
import os
from urllib.parse import urlsplit

import amqp


def connect() -> amqp.Connection:
    url = urlsplit(os.environ["BENCH_BROKER_URL"])
    connection = amqp.Connection(
        f"{url.hostname}:{url.port}", url.username, url.password, virtual_host=url.path[1:] or "/"
    )
    connection.connect()
    return connection


def main() -> None:
    connection = connect()
    channel = connection.channel()
    channel.queue_declare("bench.raw-rpc", auto_delete=False, durable=True)
    channel.basic_qos(0, 100, False)

    def on_message(message: amqp.Message) -> None:
        arguments = json.loads(message.body)
        answer = amqp.Message(
            json.dumps(arguments["x"] + arguments["y"]),
            correlation_id=message.properties["correlation_id"],
            content_type="application/json",
        )
        channel.basic_publish(answer, exchange="", routing_key=message.properties["reply_to"])
        channel.basic_ack(message.delivery_tag)

    channel.basic_consume("bench.raw-rpc", callback=on_message)
    while True:
        connection.drain_events()


if __name__ == "__main__":
    main()
