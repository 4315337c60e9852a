"""`lightbus tail`: prints events as they arrive, from a queue of its own that goes when the command ends."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from queue import SimpleQueue
from uuid import uuid4

import click

from ..core.codec import decode_event
from ..core.errors import DecodeError
from ..core.message import Wire
from ..core.topology import EVENTS, Binding, Queue, Topology
from ..ports import Delivery
from . import apps as discovery
from .connecting import connected
from .shared import app_option, json_option, print_json, url_option

PREFETCH = 100
#: What is left behind by a command that was killed goes after that long.
QUEUE_EXPIRES_SECONDS = 60.0


@click.command()
@click.argument("patterns", nargs=-1, metavar="[EVENT]...")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N events.")
@app_option
@url_option
@json_option
def tail(patterns: tuple[str, ...], count: int | None, apps: tuple[str, ...], url: str | None, as_json: bool) -> None:
    """Print events as they arrive, without taking them from anybody.

    EVENT is `<api>.<event>`; `*` stands for one word, `#` for any number of words; none means all events. Ends with
    Ctrl-C (exit code 130), or after --count events (exit code 0).

    \b
    Examples:
      lightbus tail --url redis://localhost
      lightbus tail 'shop.orders.*' --count 1 --json
    """
    app = discovery.load(apps, url)
    for pattern in patterns:
        check_pattern(pattern)
    with connected(app, url) as bus:
        queue = Queue(
            name=f"lightbus.tail.{os.getpid()}.{uuid4().hex[:8]}", durable=False, exclusive=True, auto_delete=True,
            expires_seconds=QUEUE_EXPIRES_SECONDS,
        )  # fmt: skip
        bus.transport.declare(topology(queue, patterns))
        arrived: SimpleQueue[Wire] = SimpleQueue()

        def take(delivery: Delivery) -> None:
            arrived.put(delivery.wire)
            delivery.ack()

        consumer = bus.transport.consume([queue], take, prefetch=PREFETCH)
        click.echo("waiting for events; Ctrl-C ends", err=True)
        try:
            printed = 0
            while count is None or printed < count:
                show(arrived.get(), as_json)
                printed += 1
        finally:
            consumer.close()
            bus.transport.delete(queue.name)


def topology(queue: Queue, patterns: Sequence[str]) -> Topology:
    """`queue`, bound to the events that meet one of `patterns`, or to all."""
    keys = [key for pattern in patterns or ("#",) for key in routing_keys(pattern)]
    bindings = tuple(Binding(EVENTS.name, key, queue.name) for key in keys)
    return Topology((EVENTS,), (queue,), bindings)


def routing_keys(pattern: str) -> list[str]:
    """The binding keys for a pattern of event names: a routing key ends in the major version, `.v1`."""
    if re.search(r"\.v\d+$", pattern) or pattern.endswith("#"):
        return [pattern]
    return [pattern + ".*"]


def check_pattern(pattern: str) -> None:
    """Raises click.UsageError: no event's name can meet it."""
    words = pattern.split(".")
    if not all(word in ("*", "#") or re.fullmatch(r"[A-Za-z0-9_-]+", word) for word in words):
        raise click.UsageError(
            f"{pattern!r} is no pattern of event names: words parted by dots, where a whole word may be '*' (one word) "
            "or '#' (any number)"
        )


def show(wire: Wire, as_json: bool) -> None:
    """Print one event as a line."""
    try:
        event = decode_event(wire)
        data = json.loads(event.payload)
    except (DecodeError, ValueError) as error:
        if as_json:
            print_json({"error": str(error), "body": wire.body.decode(errors="replace")})
        else:
            click.echo(f"unreadable: {error}: {wire.body!r:.200}")
        return
    sent = datetime.fromtimestamp(event.origin.sent_at, timezone.utc).isoformat(timespec="milliseconds")
    if as_json:
        print_json(
            {
                "name": event.name, "version": event.version, "id": event.origin.id, "source": event.origin.source,
                "sent_at": sent, "correlation_id": event.origin.correlation_id,
                "causation_id": event.origin.causation_id, "data": data,
            }
        )  # fmt: skip
    else:
        click.echo(f"{sent} {event.name} {json.dumps(data, ensure_ascii=False)} from={event.origin.source}")
