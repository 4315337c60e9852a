"""A Lightbus app with many tasks, or with many queues: as many as BENCH_TASKS and BENCH_QUEUES say."""

import os

from lightbus.compat import task

DONE = os.open(os.environ["BENCH_DONE"], os.O_WRONLY | os.O_APPEND)
TASKS = int(os.environ.get("BENCH_TASKS", "0"))
QUEUES = int(os.environ.get("BENCH_QUEUES", "0"))


def noop(a, b):
    os.write(DONE, b".")


task(name="bench.noop", ignore_result=True, queue="bench")(noop)
for number in range(TASKS):
    task(name=f"bench.other{number}", ignore_result=True, queue="bench")(noop)
for number in range(QUEUES):
    task(name=f"bench.queue{number}", ignore_result=True, queue=f"bench.queue{number}")(noop)
