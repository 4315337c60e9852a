"""Which broker to use: the argument, else `LIGHTBUS_URL`, else the embedded broker in `./.lightbus/`."""

from __future__ import annotations

import os
from collections.abc import Mapping

URL_VARIABLE = "LIGHTBUS_URL"
EMBEDDED_FILE = os.path.join(".lightbus", "bus.db")  # not pathlib: it would be a tenth of the start of `lightbus`


def resolve_url(url: str | None = None, *, environ: Mapping[str, str] | None = None) -> str:
    """The broker's URL.

    Args:
        url: what the program says; wins over everything.
        environ: in place of the process's environment, for tests.
    """
    variables = os.environ if environ is None else environ
    return url or variables.get(URL_VARIABLE, "") or embedded_url()


def embedded_url(folder: str = "") -> str:
    """The URL of the embedded broker in `folder`, by default the current one."""
    return f"sqlite:///{os.path.abspath(os.path.join(folder, EMBEDDED_FILE))}"


def is_embedded(url: str) -> bool:
    """Whether the broker is a file of ours and not a server."""
    return url.startswith("sqlite:")
