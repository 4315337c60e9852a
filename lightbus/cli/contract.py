"""`lightbus contract`: API contracts as documents, for other repositories and for the check before a release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..contracts.asyncapi import asyncapi_of
from ..contracts.compare import Comparison, Level, compare
from ..contracts.document import Json, document_of, read_document
from ..contracts.live import check_live, live_document, newest_of_each
from ..contracts.source import source_of
from ..core.exitcodes import EXIT_FAILED, EXIT_OK
from ..describing import ask
from . import apps as discovery
from .connecting import OWN_NAME, connected
from .names import hint
from .shared import app_option, json_option, print_json, url_option, wait_option

LIVE = "LIVE"


class _Source(click.Path):
    """A file, or the word LIVE."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return LIVE if value == LIVE else super().convert(value, param, ctx)


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_SOURCE = _Source(exists=True, dir_okay=False, path_type=Path)
_OUT = click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
                    help="Write there and not to stdout.")  # fmt: skip
_WORDS = {Level.NONE: "note", Level.MINOR: "minor", Level.MAJOR: "MAJOR"}


@click.group()
def contract() -> None:
    """Export API contracts, compare them, or write one down as Python.

    A released contract is a file: export it with each release, and check the code against it in CI. LIVE, in place of a
    file, stands for what the workers on a broker announce.

    \b
    Examples:
      lightbus contract export -A support -o support.json
      lightbus contract check --against support.json -A support
      lightbus contract diff old.json new.json
      lightbus contract pull LIVE --api support.tickets -o tickets.py
    """


@contract.command()
@click.option("--api", "names", multiple=True, metavar="API", help="Only this API; repeatable.")
@click.option("--asyncapi", is_flag=True, help="As an AsyncAPI 3.1 document, of one API.")
@_OUT
@app_option
def export(names: tuple[str, ...], asyncapi: bool, output: Path | None, apps: tuple[str, ...]) -> None:
    """Print the contracts that the app's modules define or import, as JSON with JSON Schemas (2020-12).

    \b
    Examples:
      lightbus contract export -A support -o support.json
      lightbus contract export --asyncapi --api support.tickets -A support
    """
    document = _of_app(apps)
    chosen = _chosen(document, names)
    if asyncapi:
        _write(json.dumps(asyncapi_of(_single(chosen)), indent=2), output)
    else:
        _write(json.dumps({**document, "apis": chosen}, indent=2), output)


@contract.command()
@click.option("--against", type=_SOURCE, required=True, metavar="FILE|LIVE",
              help="The released contract, as exported; or what runs.")  # fmt: skip
@wait_option
@app_option
@url_option
@json_option
def check(against: Path | str, wait_seconds: float, apps: tuple[str, ...], url: str | None, as_json: bool) -> int:
    """Say whether the app's contracts go with a released one, as their versions claim.

    A removed or tightened field is a major change, an addition that older sides can live without a minor one. Exits
    with 1 when a version was not raised as far as its changes ask, or an API is gone.

    Against LIVE: may the APIs that the app serves take the place of those that run; and does what runs answer the other
    contracts that the app imports, those that it calls and listens by. Exits with 1 too when no worker serves any of
    them.

    \b
    Examples:
      lightbus contract check --against released.json -A support
      lightbus contract check --against LIVE -A support --url amqp://localhost
    """
    if isinstance(against, str):
        return _check_live(wait_seconds, apps, url, as_json)
    return _report(compare(_read(against), _of_app(apps)), as_json, judges=True)


@contract.command()
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE, required=False)
@app_option
@json_option
def diff(old: Path, new: Path | None, apps: tuple[str, ...], as_json: bool) -> int:
    """List what changed from OLD to NEW, or to the app's contracts. Exits with 0.

    \b
    Example:
      lightbus contract diff 1.0.json 1.1.json --json
    """
    return _report(compare(_read(old), _read(new) if new else _of_app(apps)), as_json, judges=False)


@contract.command()
@click.argument("file", type=_SOURCE, metavar="FILE|LIVE")
@click.option("--api", "names", multiple=True, metavar="API", help="Which API, when there are several.")
@_OUT
@wait_option
@app_option
@url_option
def pull(
    file: Path | str, names: tuple[str, ...], output: Path | None, wait_seconds: float, apps: tuple[str, ...],
    url: str | None,
) -> None:  # fmt: skip
    """Write a contract as a typed Python module, to call and listen with: of an exported file, or of what runs.

    Of an API that runs in several versions, the highest.

    \b
    Examples:
      lightbus contract pull support.json --api support.tickets -o tickets.py
      lightbus contract pull LIVE --api support.tickets --url amqp://localhost
    """
    if isinstance(file, str):
        document = newest_of_each(_live(discovery.load(apps, url), url, wait_seconds))
        if not document["apis"]:
            raise click.ClickException(f"no worker announces a contract within {wait_seconds:g} s: does one run there?")
    else:
        document = _read(file)
    _write(source_of(_single(_chosen(document, names))), output)


def _live(app: discovery.LoadedApp, url: str | None, wait_seconds: float) -> Json:
    with connected(app, url) as bus:
        return live_document(ask(bus.transport, OWN_NAME, seconds=wait_seconds))


def _check_live(wait_seconds: float, apps: tuple[str, ...], url: str | None, as_json: bool) -> int:
    app = discovery.required(apps, url)
    own = document_of(app.apis.values())
    served = {api.api_name for bus in app.buses for api in bus.apis()}
    checked = check_live(own, served, _live(app, url, wait_seconds))
    is_fine = checked.is_fine and len(checked.absent) < len(own["apis"])
    if as_json:
        print_json({
            "ok": is_fine, "owned": [_as_json(one) for one in checked.owned],
            "used": [_as_json(one) for one in checked.used],
            "unserved": [
                {"api": name, "version": version, "running": running} for name, version, running in checked.unserved
            ],
            "absent": list(checked.absent),
        })  # fmt: skip
        return EXIT_OK if is_fine else EXIT_FAILED
    for heading, comparisons in (("served here", checked.owned), ("used here", checked.used)):
        for one in comparisons:
            _print_changes(one)
            click.echo(f"{heading}: {one.api} {one.old_version} to {one.new_version}: {_live_verdict(heading, one)}")
    for name, version, running in checked.unserved:
        click.echo(
            f"used here: {name} {version}: only {running} runs, so its calls are not served and its events not sent"
        )
    for name in checked.absent:
        click.echo(f"{name}: no worker serves it now, so there is nothing to compare")
    return EXIT_OK if is_fine else EXIT_FAILED


def _live_verdict(heading: str, one: Comparison) -> str:
    if heading == "used here" and one.is_lower:
        return "what runs is older than what this app was written against: deploy its owner first"
    return _verdict(one)


def _of_app(apps: tuple[str, ...]) -> Json:
    app = discovery.required(apps)
    try:
        return document_of(app.apis.values())
    finally:
        app.close()


def _read(path: Path) -> Json:
    return read_document(path.read_bytes(), str(path))


def _chosen(document: Json, names: tuple[str, ...]) -> list[Json]:
    apis = {api["name"]: api for api in document["apis"]}
    for name in names:
        if name not in apis:
            raise click.UsageError(f"no API {name!r}{hint(name, apis)}")
    return [api for api in document["apis"] if not names or api["name"] in names]


def _single(apis: list[Json]) -> Json:
    if len(apis) != 1:
        names = ", ".join(api["name"] for api in apis) or "none"
        raise click.UsageError(f"this is for one API, and there is {names}: say --api")
    return apis[0]


def _write(text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text.rstrip("\n"))
    else:
        output.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        click.echo(f"wrote {output}", err=True)


def _report(comparisons: list[Comparison], as_json: bool, *, judges: bool) -> int:
    is_fine = all(one.is_fine for one in comparisons)
    if as_json:
        print_json({"ok": is_fine, "apis": [_as_json(one) for one in comparisons]})
    else:
        for one in comparisons:
            _print_changes(one)
            if judges or one.changes:
                click.echo(f"{one.api} {one.old_version} to {one.new_version or 'nothing'}: {_verdict(one)}")
    return EXIT_FAILED if judges and not is_fine else EXIT_OK


def _print_changes(one: Comparison) -> None:
    for change in sorted(one.changes, key=lambda change: -change.level):
        click.echo(f"{_WORDS[change.level]:5}  {change.place}: {change.text}")


def _verdict(one: Comparison) -> str:
    if one.is_lower:
        return "the version is lower than the released one"
    if not one.is_fine:
        part = "major" if one.needed is Level.MAJOR else "minor"
        return f"{'breaking' if one.needed is Level.MAJOR else 'compatible'}, and the {part} version was not raised"
    if one.raised is Level.MAJOR:
        return "another major version: serve both until the old one's callers and listeners have gone"
    return "compatible"


def _as_json(one: Comparison) -> dict[str, object]:
    return {
        "api": one.api, "old_version": one.old_version, "new_version": one.new_version or None,
        "needed": one.needed.name.lower(), "raised": one.raised.name.lower(), "ok": one.is_fine,
        "verdict": _verdict(one),
        "changes": [
            {"place": change.place, "text": change.text, "level": change.level.name.lower()} for change in one.changes
        ],
    }  # fmt: skip
