"""The server of `add`, as a Lightbus app."""

from bench_contract import Adder

from lightbus import Bus, rpc

bus = Bus("bench-server")


class Owner(Adder):
    @rpc()
    def add(self, *, x: int, y: int) -> int:
        return x + y


bus.serve(Owner())
