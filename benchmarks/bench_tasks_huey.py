"""The no-op task as Huey serves it; run as a program, it queues as many as its argument says."""

import os
import sys

from huey import RedisHuey

huey = RedisHuey("bench-huey", url=os.environ["BENCH_BROKER_URL"], results=False)
DONE = os.open(os.environ["BENCH_DONE"], os.O_WRONLY | os.O_APPEND)


@huey.task(name="noop")
def noop(a, b):
    os.write(DONE, b".")


if __name__ == "__main__":
    import bench_tasks_huey  # Huey finds a task by its module, which is __main__ here

    for _ in range(int(sys.argv[1])):
        bench_tasks_huey.noop(1, 2)
