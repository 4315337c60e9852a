"""The API that the Lightbus candidates serve, call and listen to."""

from lightbus import Api, Event, rpc


class Adder(Api, name="bench.adder", version="1.0"):
    class added(Event):
        x: int
        y: int

    @rpc(timeout_seconds=30)
    def add(self, *, x: int, y: int) -> int:
        raise NotImplementedError
