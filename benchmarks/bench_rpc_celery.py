"""The server of `add`, as a stock Celery app with `rpc://` results."""

import os

from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_BROKER_URL"], backend="rpc://")
app.conf.update(task_default_queue="bench.rpc", worker_prefetch_multiplier=100)


@app.task(name="bench.add")
def add(x, y):
    return x + y
