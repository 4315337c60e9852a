"""The suite that says whether a transport is right. A new transport subclasses it:

    class TestMyTransport(TransportContract):
        tells_mismatch = False

        def make_transport(self) -> Transport:
            return MyTransport("my://127.0.0.1:4711")

        def url_for_processes(self) -> str | None:
            return "my://127.0.0.1:4711"

        def make_unreachable(self) -> Transport | None:
            return MyTransport("my://127.0.0.1:1", give_up_seconds=0.5)

        def make_refused(self) -> Transport | None:
            return MyTransport("my://user:wrong@127.0.0.1:4711")

Nothing is skipped: where `Capabilities` say that a transport does not do a thing, its test asserts what happens
instead.
"""

from __future__ import annotations

import time

from ..core.errors import AccessRefused, BrokerUnreachable
from ..core.message import Wire
from ..core.topology import Queue, Topology
from .bench import Bench, Inbox, error_of
from .contract_delivery import DeliveryContract
from .contract_permits import PermitContract
from .contract_prefetch import PrefetchContract
from .contract_routing import RoutingContract

#: A publish to a broker that is away has failed by then, whatever the transport's own patience is.
BOUND_SECONDS = 15.0


class FailureContract(Bench):
    """What is wrong is said soon, in the right class of error."""

    def test_a_broker_that_is_away_is_reported_in_bounded_time(self) -> None:
        transport = self.make_unreachable()
        if transport is None:
            assert not self.open().capabilities.shared
            return
        queue = Queue(name="unreachable")
        started = time.monotonic()

        errors = [
            error_of(lambda: transport.publish(Wire(body=b"x"), queue.route).result(BOUND_SECONDS)),
            error_of(lambda: transport.consume([queue], Inbox(), prefetch=1)),
            error_of(lambda: transport.declare(Topology(queues=(queue,)))),
        ]

        transport.close()
        assert [type(error) for error in errors] == [BrokerUnreachable] * 3
        assert time.monotonic() - started < 2 * BOUND_SECONDS

    def test_a_wrong_password_is_refused_and_not_retried(self) -> None:
        transport = self.make_refused()
        if transport is None:
            return
        queue = Queue(name="refused")

        errors = [
            error_of(lambda: transport.publish(Wire(body=b"x"), queue.route).result(BOUND_SECONDS)),
            error_of(lambda: transport.consume([queue], Inbox(), prefetch=1)),
        ]

        transport.close()
        assert [type(error) for error in errors] == [AccessRefused] * 2


class TransportContract(DeliveryContract, PermitContract, PrefetchContract, RoutingContract, FailureContract):
    """All of it; see the module and `bench.Bench` for the hooks."""
