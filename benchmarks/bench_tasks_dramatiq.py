"""The no-op task as Dramatiq serves it; run as a program, it queues as many as its argument says."""

import os
import sys

import dramatiq

url = os.environ["BENCH_BROKER_URL"]
if url.startswith("redis"):
    from dramatiq.brokers.redis import RedisBroker

    broker: dramatiq.Broker = RedisBroker(url=url)
else:
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    # pika writes the virtual host "/" as %2F, kombu as a second slash
    broker = RabbitmqBroker(url=url.removesuffix("//") + "/%2F" if url.endswith("//") else url)
dramatiq.set_broker(broker)
DONE = os.open(os.environ["BENCH_DONE"], os.O_WRONLY | os.O_APPEND)


@dramatiq.actor(queue_name="bench-dramatiq")
def noop(a, b):
    os.write(DONE, b".")


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        noop.send(1, 2)
