"""The server of `add` on Nameko, run by its own command."""

from nameko.rpc import rpc


class Adder:
    name = "bench_adder"

    @rpc
    def add(self, x, y):
        return x + y
