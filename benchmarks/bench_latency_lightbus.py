"""A task that writes how long its message was under way; run as a program, it sends as many as its argument says."""

import os
import sys
import time

from lightbus.compat import task

PAUSE_SECONDS = 0.01
DONE = os.open(os.environ["BENCH_DONE"], os.O_WRONLY | os.O_APPEND)


@task(name="bench.stamp", ignore_result=True)
def stamp(sent_at: float) -> None:
    os.write(DONE, b"%f\n" % (time.monotonic() - sent_at))  # one clock for all processes of a machine


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        stamp.delay(time.monotonic())
        time.sleep(PAUSE_SECONDS)  # one message at a time: the worker waits when it comes
