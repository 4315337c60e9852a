"""The API that the Lightbus candidate serves and calls."""

from lightbus import Api, rpc


class Adder(Api, name="bench.adder", version="1.0"):
    @rpc(timeout_seconds=30)
    def add(self, *, x: int, y: int) -> int:
        raise NotImplementedError
