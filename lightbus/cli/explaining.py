"""`lightbus doctor MESSAGE`: gathers the evidence, and prints what `why` makes of it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from ..core.anyevent import is_heard
from ..core.description import ANY_VERSION
from ..core.exitcodes import EXIT_FAILED, EXIT_OK
from ..core.outcome import DEAD_PREFIX
from ..describing import ask
from .apps import LoadedApp
from .connecting import OWN_NAME
from .shared import print_json, without_password
from .why import Evidence, explain, queues_of

if TYPE_CHECKING:
    from ..bus import Bus
    from ..ports import Delivery, Transport

SAMPLE = 50  #: dead letters that are looked at


def evidence_of(message: str, to: str, app: LoadedApp, bus: Bus, wait_seconds: float) -> Evidence:
    """What can be seen of `message` on the way to the app `to`: in the code, on the broker, and from the workers."""
    declared = {
        one.name: {
            listener.name: {kind.spec.name: kind.spec.version for kind in listener.events if kind.spec is not None}
            | dict.fromkeys(listener.patterns, ANY_VERSION)
            for listener in one.listeners()
        }
        for one in app.buses
    }
    transport = bus.transport
    found = ask(transport, OWN_NAME, seconds=wait_seconds)
    queues = queues_of(message, to, found) | {
        f"{to}.on.{listener}"
        for listener, events in declared.get(to, {}).items()
        if any(is_heard(message, event) for event in events)
    }
    dead = sample_of_dead_letters(transport, bus.dead_letter_queue, transport.message_count(bus.dead_letter_queue) or 0)
    return Evidence(
        found=found, contracts=list(app.apis.values()), declared=declared, broker=without_password(bus.url),
        waiting={queue: transport.message_count(queue) for queue in queues},
        parked={
            queue: {reason: number for (reason, source), number in dead.items() if source == queue} for queue in queues
        },
    )  # fmt: skip


def explained(message: str, to: str, sender: str, evidence: Evidence, as_json: bool) -> int:
    """Print why the message does not come; the exit code."""
    why = explain(message, to, sender, evidence)
    if as_json:
        print_json({"ok": not why.findings, "message": message, "findings": why.findings, "notes": why.notes})
    else:
        for finding in why.findings:
            click.echo(f"FOUND    {finding}")
        for note in why.notes:
            click.echo(f"         {note}")
        click.echo("nothing is in its way" if not why.findings else f"{len(why.findings)} found")
    return EXIT_FAILED if why.findings else EXIT_OK


def sample_of_dead_letters(transport: Transport, queue: str, count: int) -> Counter[tuple[str, str]]:
    """Reason and source of the first dead letters of `queue`, which go back in their order."""
    taken: list[Delivery] = []
    why: Counter[tuple[str, str]] = Counter()
    try:
        while len(taken) < min(count, SAMPLE) and (delivery := transport.get(queue)) is not None:
            taken.append(delivery)
            headers = delivery.wire.headers
            source = str(headers.get(DEAD_PREFIX + "queue", "unknown"))
            why[str(headers.get(DEAD_PREFIX + "reason", "unknown")), source] += 1
    finally:
        for delivery in reversed(taken):  # so that they stand in their old order again
            delivery.release()
    return why
