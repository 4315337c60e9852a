"""A chain and a chord, for the worker; run as a program, the client: sends them, and prints how long they took.

CANVAS_SIDE says whose both are, celery or lightbus. Arguments: steps of the chain, tasks in the chord's header.
"""

import json
import os
import statistics
import sys
import time

URLS = {"broker": os.environ["BENCH_BROKER_URL"], "backend": os.environ["BENCH_RESULTS_URL"]}
CHAINS = 5

if os.environ["CANVAS_SIDE"] == "celery":
    from celery import Celery, chain, chord
else:
    from lightbus.compat import Celery, chain, chord

app = Celery("canvas", **URLS)
app.conf.update(broker_connection_retry_on_startup=True)


@app.task(name="bench.add")
def add(a, b=1):
    return a + b


@app.task(name="bench.total")
def total(numbers):
    return sum(numbers)


def seconds(canvas, wanted):
    """From the call that sends it to its result."""
    started = time.perf_counter()
    found = canvas.apply_async().get(timeout=120)
    assert found == wanted, f"{found} instead of {wanted}"
    return time.perf_counter() - started


def main(steps, tasks):
    def chains():
        return seconds(chain(add.s(0), *(add.s() for _ in range(steps - 1))), steps)

    def chords():
        return seconds(chord([add.s(n, 0) for n in range(tasks)], total.s()), tasks * (tasks - 1) // 2)

    seconds(chord([add.s(1), add.s(2)], total.s()), 5)  # the worker is up, and all that is made once is made
    print(json.dumps({
        "chain_seconds": statistics.median(chains() for _ in range(CHAINS)), "chord_seconds": chords(),
    }))  # fmt: skip


if __name__ == "__main__":
    from bench_canvas import main as run  # the tasks are those of the module that the worker imports

    run(*map(int, sys.argv[1:]))
