"""A TCP proxy that does to connections what networks do: cut, freeze, swallow, delay.

It runs on a thread of its own and is told from the test's. `up` is from the client to the server, `down` the answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")

CHUNK_BYTES = 65_536
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of no time: close sends RST


class Direction(Enum):
    UP = "up"
    DOWN = "down"


class _Pipe:
    """One client's connection, and the one to the server that belongs to it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.tasks: list[asyncio.Task[None]] = []

    def ends(self, direction: Direction) -> tuple[socket.socket, socket.socket]:
        """Where bytes come from and where they go."""
        return (self.client, self.server) if direction is Direction.UP else (self.server, self.client)

    async def cut(self, *, reset: bool) -> None:
        tasks = [task for task in self.tasks if task is not asyncio.current_task()]
        self.tasks = []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # asyncio forgets the sockets now; had they been closed before, their numbers could be others' already.
        await asyncio.sleep(0)
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                else:
                    end.shutdown(socket.SHUT_RDWR)
            end.close()


class Proxy:
    """Stands between clients and the server on a port of loopback. A context manager; ends with the block.

    What is told concerns the connections that stand and those that come, until `pass_on`.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._pipes: set[_Pipe] = set()
        self._flowing = asyncio.Event()
        self._swallowed: set[Direction] = set()
        self._cut_after: dict[Direction, int] = {}
        self._delay_seconds = 0.0
        self._accepted = 0

    def __enter__(self) -> Proxy:
        async def begin() -> None:
            self._flowing.set()
            self._accepting = self._loop.create_task(self._accept())

        self._thread.start()
        self._run(begin())
        return self

    def __exit__(self, *_error: object) -> None:
        async def end() -> None:
            self._accepting.cancel()
            await asyncio.sleep(0)
            await self._cut(reset=True)
            self._listener.close()

        self._run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def accepted(self) -> int:
        """How many connections there have been."""
        return self._accepted

    def pass_on(self) -> None:
        """Everything flows again. Bytes that were swallowed stay so."""

        def heal() -> None:
            self._swallowed.clear()
            self._cut_after.clear()
            self._delay_seconds = 0.0
            self._flowing.set()

        self._tell(heal)

    def cut(self, *, reset: bool = True) -> None:
        """End the connections that stand: with RST, or in good order with FIN. New ones may come."""
        self._run(self._cut(reset=reset))

    def cut_after(self, count: int, direction: Direction) -> None:
        """End the next connection that has passed on `count` more bytes, there and then. Once."""
        self._tell(lambda: self._cut_after.update({direction: count}))

    def swallow(self, direction: Direction) -> None:
        """Half-open: take bytes of that direction, say nothing, and drop them."""
        self._tell(lambda: self._swallowed.add(direction))

    def freeze(self) -> None:
        """Read nothing and write nothing; connections stand, and new ones are taken by the kernel alone."""
        self._tell(self._flowing.clear)

    def delay(self, seconds: float) -> None:
        """Hold each chunk of bytes back for that long."""

        def slow() -> None:
            self._delay_seconds = seconds

        self._tell(slow)

    # -- on the thread -------------------------------------------------------------------------------------------------

    def _tell(self, act: Callable[[], object]) -> None:
        async def do() -> None:
            act()

        self._run(do())

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _accept(self) -> None:
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            server = socket.socket()
            server.setblocking(False)
            try:
                await self._flowing.wait()
                await self._loop.sock_connect(server, ("127.0.0.1", self._server_port))
            except OSError:  # the server is away: so are we
                client.close()
                server.close()
                continue
            client.setblocking(False)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pipe = _Pipe(client, server)
            self._accepted += 1
            self._pipes.add(pipe)
            pipe.tasks = [self._loop.create_task(self._pump(pipe, direction)) for direction in Direction]

    async def _pump(self, pipe: _Pipe, direction: Direction) -> None:
        source, target = pipe.ends(direction)
        try:
            while True:
                await self._flowing.wait()
                data = await self._loop.sock_recv(source, CHUNK_BYTES)
                await self._flowing.wait()
                if self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                if not data:
                    break
                if direction in self._swallowed:
                    continue
                left = self._cut_after.get(direction)
                if left is None:
                    await self._loop.sock_sendall(target, data)
                elif len(data) < left:
                    self._cut_after[direction] = left - len(data)
                    await self._loop.sock_sendall(target, data)
                else:
                    del self._cut_after[direction]
                    await self._loop.sock_sendall(target, data[:left])
                    break
        except OSError:
            pass  # one end is gone, so the other goes
        self._pipes.discard(pipe)
        await pipe.cut(reset=False)

    async def _cut(self, *, reset: bool) -> None:
        pipes, self._pipes = self._pipes, set()
        for pipe in pipes:
            await pipe.cut(reset=reset)
