"""The way of a task is short too; see `tests/test_path_length.py`."""

from __future__ import annotations

from queue import Queue

from lightbus.compat import Settings, TaskApp
from tests.test_path_length import short, ways_out  # noqa: F401  # a fixture


def test_from_delay_to_kombu_there_are_at_most_3_frames_in_3_files(
    amqp_vhost_url: str,
    ways_out: Queue[list],  # type: ignore[type-arg]  # noqa: F811
) -> None:
    app = TaskApp(Settings(broker_url=amqp_vhost_url))

    @app.task(name="paths.walk")
    def walk() -> None: ...

    walk.delay()  # connects
    ways_out.get(timeout=10)
    walk.delay()
    short(ways_out.get(timeout=10), frames_at_most=3, files_at_most=3)
    app.close()
