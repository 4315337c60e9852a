"""`lightbus shell`: Python with a bus in it, and clients of all that runs."""

from __future__ import annotations

import code
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..contracts.live import live_document, newest_of_each
from ..contracts.remote import remote_class
from ..core.description import Description
from ..core.errors import ConfigError
from ..describing import ask
from ..version import VERSION
from . import apps as discovery
from .connecting import OWN_NAME, connected
from .shared import app_option, url_option, wait_option, without_password

if TYPE_CHECKING:
    from ..bus import Bus


@click.command()
@wait_option
@app_option
@url_option
def shell(wait_seconds: float, apps: tuple[str, ...], url: str | None) -> None:
    """Start Python with a bus in it: IPython where it is installed. Without a terminal, run what stdin says.

    \b
    bus                        the app's bus, or one of the command line's own
    support_tickets            a client of each API that a worker serves now, here of support.tickets
    remote("support.tickets")  the same for one that has come later
    workers()                  what the workers say of themselves now
    Tickets                    the contracts of the app, by the names of their classes

    \b
    Examples:
      lightbus shell --url amqp://localhost
      lightbus shell -A shop
      echo 'print(support_tickets.status(id=7))' | lightbus shell -A shop
    """
    app = discovery.load(apps, url)
    with connected(app, url) as bus:
        found = ask(bus.transport, OWN_NAME, seconds=wait_seconds)
        clients = clients_of(bus, found)
        names = names_of(bus, app, clients, wait_seconds)
        if sys.stdin.isatty():
            _interact(names, _banner(bus, found, clients))
        else:
            exec(compile(sys.stdin.read(), "<stdin>", "exec"), names)  # as `python` does with it


def clients_of(bus: Bus, found: Sequence[Description]) -> dict[str, Any]:
    """A client of each API that is announced, by its name with `_` for what cannot stand in a Python name.

    A contract with names that Python has no way to write is left out, with a word about it.
    """
    clients: dict[str, Any] = {}
    for api in newest_of_each(live_document(found))["apis"]:
        try:
            client = bus.client(remote_class(api))
        except ConfigError as error:
            click.echo(f"{api['name']}: {error}", err=True)
        else:
            clients["".join(c if c.isalnum() else "_" for c in api["name"])] = client
    return clients


def names_of(bus: Bus, app: discovery.LoadedApp, clients: Mapping[str, Any], wait_seconds: float) -> dict[str, Any]:
    """What the shell begins with; the app's own contracts and the bus win over clients of the same name."""

    def remote(api: str) -> Any:
        """A client of an API that a worker serves now."""
        return bus.remote(api, wait_seconds=wait_seconds)

    def workers() -> list[Description]:
        """What the workers say of themselves now."""
        return ask(bus.transport, OWN_NAME, seconds=wait_seconds)

    own: dict[str, Any] = {api.__name__: api for api in app.apis.values()}
    return {"__name__": "__main__", **clients, **own, "bus": bus, "remote": remote, "workers": workers}


def _banner(bus: Bus, found: Sequence[Description], clients: Mapping[str, Any]) -> str:
    lines = [f"lightbus {VERSION} shell: bus is {bus.name!r} on {without_password(bus.url)}"]
    lines += [
        f"  {name}: {client.api_name} {client.api_version}, {', '.join(client.api_calls) or 'no calls'}"
        for name, client in clients.items()
    ]
    if not found:
        lines.append("  no worker answers; remote(NAME) asks again")
    return "\n".join(lines)


def _interact(names: dict[str, Any], banner: str) -> None:
    if importlib.util.find_spec("IPython") is not None:
        from IPython import start_ipython

        click.echo(banner)
        # Completion by looking at the objects themselves: Jedi reads source, and what runs has none here.
        start_ipython(argv=["--no-banner", "--IPCompleter.use_jedi=False"], user_ns=names)
        return
    try:
        import readline
        import rlcompleter
    except ImportError:  # a Python without it; the shell works, without completion
        pass
    else:
        readline.set_completer(rlcompleter.Completer(names).complete)
        readline.parse_and_bind("tab: complete")
    code.interact(banner, local=names, exitmsg="")
