"""The way of a message is short: frames of Lightbus between the user's code and kombu, read from the stack."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import amqp.transport
import pytest

import lightbus
from lightbus import Api, Bus, Event, rpc
from lightbus.worker import WorkerOptions
from tests.runtime.workers import working

PACKAGE = Path(lightbus.__file__).parent


class Paths(Api, name="tests.paths", version="1.0"):
    class walked(Event):
        id: int

    @rpc()
    def walk(self, *, id: int) -> int:
        raise NotImplementedError


def lightbus_frames() -> list[traceback.FrameSummary]:
    return [frame for frame in traceback.extract_stack() if Path(frame.filename).is_relative_to(PACKAGE)]


@pytest.fixture
def bus(amqp_vhost_url: str) -> Iterator[Bus]:
    bus = Bus("paths", url=amqp_vhost_url)
    yield bus
    bus.close()


#: Class and method behind the 7 bytes that begin an AMQP frame.
BASIC_PUBLISH = b"\x00\x3c\x00\x28"


@pytest.fixture
def ways_out(monkeypatch: pytest.MonkeyPatch) -> Queue[list[traceback.FrameSummary]]:
    """The Lightbus frames of each publish, from the user's call to the write into py-amqp's socket."""
    seen = Queue[list[traceback.FrameSummary]]()
    write = amqp.transport.TCPTransport.write

    def recording(transport: amqp.transport.TCPTransport, data: bytes) -> object:
        if bytes(data[7:11]) == BASIC_PUBLISH:
            seen.put(lightbus_frames())
        return write(transport, data)

    monkeypatch.setattr(amqp.transport.TCPTransport, "write", recording)
    return seen


def short(frames: list[traceback.FrameSummary], *, frames_at_most: int, files_at_most: int) -> None:
    story = " > ".join(f"{Path(frame.filename).name}:{frame.name}" for frame in frames)
    assert 1 <= len(frames) <= frames_at_most, story
    assert len({frame.filename for frame in frames}) <= files_at_most, story


def test_from_fire_to_kombu_there_are_at_most_3_frames_in_3_files(bus: Bus, ways_out: Queue[list]) -> None:  # type: ignore[type-arg]
    bus.fire(Paths.walked(id=1))  # connects; the link's thread sends this one
    ways_out.get(timeout=10)
    bus.fire(Paths.walked(id=2))

    short(ways_out.get(timeout=10), frames_at_most=3, files_at_most=3)


def test_from_a_call_to_kombu_there_are_at_most_3_frames_in_3_files(bus: Bus, ways_out: Queue[list]) -> None:  # type: ignore[type-arg]
    class Owner(Paths):
        @rpc()
        def walk(self, *, id: int) -> int:
            return id

    bus.serve(Owner())
    caller = Bus("caller", url=bus.url)
    with working(bus):
        walk = caller.client(Paths).walk
        assert walk(id=1) == 1  # connects
        while not ways_out.empty():
            ways_out.get()
        assert walk(id=2) == 2
        short(ways_out.get(timeout=10), frames_at_most=3, files_at_most=3)
    caller.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_from_the_workers_loop_to_the_users_function_there_are_at_most_4_frames_in_2_files(
    bus: Bus, threads: int
) -> None:
    seen = Queue[list[traceback.FrameSummary]]()
    bus.on(Paths.walked, name="walk")(lambda event: seen.put(lightbus_frames()))
    with working(bus, options=WorkerOptions(threads=threads)):
        bus.fire(Paths.walked(id=1))
        short(seen.get(timeout=10), frames_at_most=4, files_at_most=2)
