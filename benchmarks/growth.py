"""What many queues, many waiting messages and many tasks do to the cost of one: each against the small case."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import filling
import workers
from measure import Figure, Section, Setting

FIGURES = (
    Figure("tasks_per_second", "tasks/s"),
    Figure("cpu_seconds_per_10k", "CPU s per 10,000 tasks", ratio=True, plot=True),
)
MANY_PER_MESSAGE = 1 / 3  #: 1,000 queues and tasks for 3,000 messages
BACKLOG_PER_MESSAGE = 100 / 3  #: and a backlog of 100,000


def sections(setting: Setting) -> Iterator[Section]:
    """One table per broker."""
    template = filling.celery_message(setting.redis_url)
    many = round(setting.messages * MANY_PER_MESSAGE)
    backlog = round(setting.messages * BACKLOG_PER_MESSAGE)
    fills: tuple[tuple[str, str, Callable[..., None]], ...] = (
        ("RabbitMQ", setting.amqp_url, filling.fill_amqp),
        ("Redis", setting.redis_url, filling.fill_redis),
        ("the embedded broker", workers.embedded_url(setting), filling.fill_embedded),
    )
    for broker, url, fill in fills:
        arguments = [*workers.lightbus_arguments("bench_tasks_many", 1)]
        only = [*arguments, "-Q", filling.LIGHTBUS_QUEUE]
        filled = partial(workers.filled, fill, url, [filling.LIGHTBUS_QUEUE], template)
        each = [f"{filling.LIGHTBUS_QUEUE}.queue{number}" for number in range(many)]
        spread = partial(workers.filled, fill, url, each, template)

        def candidate(
            command: list[str], *, tasks: int = 0, queues: int = 0, url: str = url, filled: workers.Fill = filled
        ) -> workers.Candidate:
            return workers.Candidate(url, command, filled, {"BENCH_TASKS": str(tasks), "BENCH_QUEUES": str(queues)})

        turns = {
            "lightbus, 1 queue, 1 task": partial(workers.drain, candidate(only), setting),
            f"lightbus, {many:,} registered tasks": partial(workers.drain, candidate(only, tasks=many), setting),
            f"lightbus, {many:,} queues": partial(workers.drain, candidate(arguments, queues=many), setting),
            f"lightbus, {many:,} queues, all in use": partial(
                workers.drain, candidate(arguments, queues=many, filled=spread), setting
            ),
            f"lightbus, {backlog:,} messages queued": partial(workers.drain, candidate(only), setting, backlog),
        }
        name = f"growth-{broker.split()[-1].lower().replace('broker', 'embedded')}"
        yield Section(name, f"Growth on {broker}", FIGURES).run(turns, setting)
