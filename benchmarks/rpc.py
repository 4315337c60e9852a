"""The round trip of a call on RabbitMQ: one caller, one server process."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from measure import HERE, Figure, Figures, Section, Setting, ask, start, stop

FIGURES = (
    Figure("p50_ms", "p50 ms", ratio=True, plot=True),
    Figure("p99_ms", "p99 ms"),
    Figure("calls_per_second", "calls/s, 50 in flight", ratio=True, plot=True),
)
CALLS_PER_MESSAGE = 0.1

LIGHTBUS = ["-m", "lightbus.cli", "worker", "-A", "bench_rpc_lightbus", "--processes", "1", "--prefetch", "100"]
CELERY = ["-m", "celery", "-A", "bench_rpc_celery", "worker", "-l", "ERROR", "--without-mingle"]
NAMEKO = ["-c", "from nameko.cli.main import main; main()", "run", "bench_rpc_nameko", "--broker"]
#: Name in the table: the server's command line, and the way of `bench_call.py`.
CANDIDATES = {
    "raw py-amqp, own reply queue": ([str(HERE / "bench_rpc_raw.py")], "raw"),
    "lightbus call": ([*LIGHTBUS, "-l", "WARNING"], "lightbus"),
    "celery delay().get(), rpc://, solo": ([*CELERY, "-P", "solo"], "celery"),
    "celery delay().get(), rpc://, prefork -c 1": ([*CELERY, "-P", "prefork", "-c", "1"], "celery"),
    "nameko": (NAMEKO, "nameko"),
    "faststream": ([str(HERE / "bench_rpc_faststream.py")], "faststream"),
}


def sections(setting: Setting) -> Iterator[Section]:
    """One table."""
    turns = {name: partial(_turn, server, way, setting) for name, (server, way) in CANDIDATES.items()}
    yield Section("rpc", "Calls over RabbitMQ", FIGURES).run(turns, setting)


def _turn(arguments: list[str], way: str, setting: Setting) -> Figures:
    environment = {"BENCH_BROKER_URL": setting.amqp_url, "LIGHTBUS_URL": setting.amqp_url}
    arguments = [*arguments, setting.amqp_url] if way == "nameko" else arguments
    server = start(arguments, environment, setting.folder / "log")
    try:
        calls = max(50, round(setting.messages * CALLS_PER_MESSAGE))
        return ask([str(HERE / "bench_call.py"), way, str(calls)], environment)
    finally:
        stop(server)
