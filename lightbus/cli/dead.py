"""`lightbus dead`: looks at what was parked, tries it again, or throws it away."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from ..core.errors import BadArguments, DeclarationError
from ..core.exitcodes import EXIT_FAILED, EXIT_OK
from ..core.parked import Failure, Parked, Selection, checked_body
from ..core.topology import check_name
from ..deadletters import DeadLetters, ReplayOptions
from . import apps as discovery
from .connecting import connected
from .shared import app_option, json_option, print_json, url_option

F = TypeVar("F", bound=Callable[..., Any])

ERROR_CHARACTERS = 100  #: of an error, in a table
IDS_SHOWN = 3


@click.group()
def dead() -> None:
    """Look at what was parked, try it again, or throw it away.

    \b
    Examples:
      lightbus dead ls --url amqp://localhost
      lightbus dead show 7f3a
      lightbus dead replay --error ConnectionError --rate 50
      lightbus dead discard --name 'shop.orders.*' --yes
    """


def which_options(function: F) -> F:
    """The options that say which dead letters are meant."""
    for option in reversed(
        (
            click.option("--name", "names", multiple=True, metavar="NAME",
                         help="Of the event or task; repeatable, and '*' stands for anything."),
            click.option("--queue", "queues", multiple=True, metavar="NAME",
                         help="The queue that it came from; repeatable, and '*' stands for anything."),
            click.option("--reason", "reasons", multiple=True, metavar="WORD", help="Why it was parked; repeatable."),
            click.option("--error", default="", metavar="TEXT", help="A part of the error's class and text."),
        )
    ):  # fmt: skip
        function = option(function)
    return function


def place_options(function: F) -> F:
    """The options that say where the dead letters are."""
    dead_queue = click.option(
        "--dead-queue", metavar="NAME", help="The dead-letter queue; default: the app's, or lightbus.dead."
    )
    return dead_queue(app_option(url_option(json_option(function))))


@dead.command()
@which_options
@click.option("--each", is_flag=True, help="One line for each message.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Look at no more than N of them.")
@place_options
def ls(
    names: tuple[str, ...], queues: tuple[str, ...], reasons: tuple[str, ...], error: str, each: bool,
    limit: int | None, dead_queue: str | None, apps: tuple[str, ...], url: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Count dead letters by queue, name, reason and error class; all stay where they are.

    \b
    Examples:
      lightbus dead ls
      lightbus dead ls --queue 'billing.*' --each --json
    """
    which = Selection(names=names, queues=queues, reasons=reasons, error=error)
    with _dead_letters(apps, url, dead_queue) as letters:
        found = letters.look(which, limit=limit)
    if as_json:
        document: dict[str, object] = {"dead_queue": letters.queue, "count": len(found), "groups": _groups(found)}
        print_json(document | ({"messages": [_summary(parked) for parked in found]} if each else {}))
        return
    if each:
        for parked in found:
            why = parked.failure
            click.echo(
                f"{parked.id}  {why.at or '-'}  {why.queue or '-'}  {parked.name or '-'}  {why.reason or '-'}  "
                f"{why.error[:ERROR_CHARACTERS]}"
            )
        return
    _print_groups(found)
    click.echo(f"{len(found)} in {letters.queue!r}")


@dead.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--queue", "queues", multiple=True, metavar="NAME", help="Only those that came from this queue.")
@place_options
def show(
    ids: tuple[str, ...], queues: tuple[str, ...], dead_queue: str | None, apps: tuple[str, ...], url: str | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Show dead letters whole: headers, payload, reason, error, attempts, origin and earlier failures.

    ID is the beginning of a message's id.

    \b
    Examples:
      lightbus dead show 7f3a
      lightbus dead show 7f3a --queue billing.on.write_invoice --json
    """
    with _dead_letters(apps, url, dead_queue) as letters:
        found = letters.look(Selection(ids=ids, queues=queues))
    if as_json:
        print_json([_document(parked) for parked in found])
    else:
        for parked in found:
            _print_document(parked)
    return _found(found, letters)


@dead.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@which_options
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="No more than N.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="N", help="No more than N per second.")
@click.option("--data", metavar="JSON", help="The payload in place of the parked one; for one message.")
@click.option("--edit", is_flag=True, help="Edit the payload in $EDITOR; for one message.")
@click.option("--to", default="", metavar="QUEUE", help="A queue in place of the one that it came from.")
@place_options
def replay(
    ids: tuple[str, ...], names: tuple[str, ...], queues: tuple[str, ...], reasons: tuple[str, ...], error: str,
    everything: bool, limit: int | None, rate: float | None, data: str | None, edit: bool, to: str,
    dead_queue: str | None, apps: tuple[str, ...], url: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Put dead letters back into the queues that they came from, where they begin with attempt 1.

    Each is with the broker before its dead letter goes. Exits with 1 when none was found or one could not be replayed.

    \b
    Examples:
      lightbus dead replay 7f3a
      lightbus dead replay 7f3a --data '{"order": 1}'
      lightbus dead replay --reason handler-failed --error ConnectionError --rate 50
      lightbus dead replay --all
    """
    which = _meant(Selection(ids=ids, names=names, queues=queues, reasons=reasons, error=error), everything)
    if data is not None and edit:
        raise click.UsageError("give --data or --edit, not both")
    with _dead_letters(apps, url, dead_queue) as letters:
        if data is not None or edit:
            parked = _only_one(letters, which)
            data = data if data is not None else _edited(parked)
            _check(parked, data)
        outcome = letters.replay(
            which, options=ReplayOptions(rate_per_second=rate, limit=limit, payload=data, to=_queue_name(to))
        )
    kept = [{"id": parked.id, "queue": parked.failure.queue, "why": why} for parked, why in outcome.kept]
    if as_json:
        print_json({"replayed": outcome.done, "kept": kept})
    else:
        for (_, why), number in Counter((one["queue"], one["why"]) for one in kept).most_common():
            click.echo(f"kept {number}: {why}", err=True)
        click.echo(f"replayed {outcome.done}")
    return EXIT_OK if outcome.done and not kept else EXIT_FAILED


@dead.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@which_options
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@place_options
def discard(
    ids: tuple[str, ...], names: tuple[str, ...], queues: tuple[str, ...], reasons: tuple[str, ...], error: str,
    everything: bool, yes: bool, dead_queue: str | None, apps: tuple[str, ...], url: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Throw dead letters away for good, after a question.

    Exits with 1 when none was found, or the answer was no.

    \b
    Examples:
      lightbus dead discard 7f3a
      lightbus dead discard --name 'shop.orders.*' --reason undecodable --yes
    """
    which = _meant(Selection(ids=ids, names=names, queues=queues, reasons=reasons, error=error), everything)
    with _dead_letters(apps, url, dead_queue) as letters:
        found = letters.look(which)
        if found and not yes and not _agreed(found, letters):
            return EXIT_FAILED
        # No more than were counted: what is parked meanwhile was not asked about.
        done = letters.discard(which, limit=len(found)) if found else 0
    if as_json:
        print_json({"discarded": done})
    else:
        click.echo(f"discarded {done}")
    return _found(found, letters)


@contextmanager
def _dead_letters(apps: tuple[str, ...], url: str | None, dead_queue: str | None) -> Iterator[DeadLetters]:
    app = discovery.load(apps, url)
    name = dead_queue or (app.buses[0].dead_letter_queue if app.buses else "")
    with connected(app, url) as bus:
        letters = bus.dead_letters()
        yield DeadLetters(bus.transport, _queue_name(name)) if name else letters


def _queue_name(name: str) -> str:
    try:
        return check_name(name, "the queue") if name else ""
    except DeclarationError as error:
        raise click.UsageError(str(error)) from error


def _meant(which: Selection, everything: bool) -> Selection:
    if which.is_everything and not everything:
        raise click.UsageError("say which: an ID, --name, --queue, --reason, --error, or --all")
    return which


def _only_one(letters: DeadLetters, which: Selection) -> Parked:
    found = letters.look(which, limit=2)
    if len(found) != 1:
        number = "more than one" if found else "no"
        raise click.UsageError(f"another payload is for exactly one message, and {number} dead letter meets this")
    return found[0]


def _edited(parked: Parked) -> str:
    text = click.edit(parked.wire.body.decode(errors="replace"), extension=".json", require_save=False)
    if text is None:
        raise click.UsageError("--edit found no editor: set EDITOR, or use --data")
    return text.strip()


def _check(parked: Parked, text: str) -> None:
    try:
        checked_body(parked, text)
    except BadArguments as error:
        raise click.UsageError(str(error)) from error


def _agreed(found: list[Parked], letters: DeadLetters) -> bool:
    for group in _groups(found):
        click.echo(
            f"{group['count']:>6}  {group['queue']}  {group['name']}  {group['reason']}  {group['error']}", err=True
        )
    return click.confirm(f"discard these {len(found)} of {letters.queue!r} for good?", err=True)


def _found(found: list[Parked], letters: DeadLetters) -> int:
    if found:
        return EXIT_OK
    click.echo(f"no dead letter in {letters.queue!r} meets this", err=True)
    return EXIT_FAILED


def _groups(found: list[Parked]) -> list[dict[str, Any]]:
    """Counts by queue, name, reason and error class, the largest first."""
    members: dict[tuple[str, str, str, str], list[Parked]] = {}
    for parked in found:
        why = parked.failure
        members.setdefault((why.queue, parked.name, why.reason, why.error_class), []).append(parked)
    return [
        {
            "count": len(group), "queue": queue, "name": name, "reason": reason, "error_class": error_class,
            "error": group[-1].failure.error[:ERROR_CHARACTERS], "oldest": group[0].failure.at,
            "newest": group[-1].failure.at, "ids": [parked.id for parked in group[:IDS_SHOWN]],
        }
        for (queue, name, reason, error_class), group in sorted(members.items(), key=lambda item: -len(item[1]))
    ]  # fmt: skip


def _print_groups(found: list[Parked], *, err: bool = False) -> None:
    for group in _groups(found):
        place = "  ".join(str(group[key]) or "-" for key in ("queue", "name", "reason"))
        click.echo(f"{group['count']:>6}  {place}  {group['error']}", err=err)


def _summary(parked: Parked) -> dict[str, object]:
    return {
        "id": parked.id, "kind": parked.kind, "name": parked.name, "source": parked.source,
        **dataclasses.asdict(parked.failure), "replays": len(parked.history),
    }  # fmt: skip


def _document(parked: Parked) -> dict[str, object]:
    wire = parked.wire
    try:
        payload: object = json.loads(wire.body)
    except (ValueError, RecursionError):
        payload = wire.body.decode(errors="backslashreplace")
    return _summary(parked) | {
        "history": [dataclasses.asdict(failure) for failure in parked.history],
        "correlation_id": wire.correlation_id,
        "content_type": wire.content_type,
        "headers": dict(wire.headers),
        "payload": payload,
    }


def _print_document(parked: Parked) -> None:
    document = _document(parked)
    click.echo(f"{parked.id}  {parked.kind} {parked.name}")
    for key in ("reason", "error", "attempts", "queue", "at", "source", "correlation_id", "content_type"):
        click.echo(f"  {key:15} {document[key]}")
    for failure in parked.history:
        click.echo(f"  {'replayed after':15} {_line(failure)}")
    for key, value in sorted(parked.wire.headers.items()):
        click.echo(f"  header {key}: {value}")
    click.echo(json.dumps(document["payload"], indent=2, ensure_ascii=False, default=str))


def _line(failure: Failure) -> str:
    return f"{failure.at} {failure.reason}, {failure.attempts} attempts: {failure.error}"
