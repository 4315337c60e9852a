"""The no-op task as a stock Celery app serves it."""

import os

from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_BROKER_URL"])
app.conf.update(
    task_default_queue=os.environ.get("BENCH_QUEUE", "bench"),
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
)
DONE = os.open(os.environ["BENCH_DONE"], os.O_WRONLY | os.O_APPEND) if "BENCH_DONE" in os.environ else -1


@app.task(name="bench.noop")
def noop(a, b):
    os.write(DONE, b".")
