"""Revokes over a restart: one JSON file per worker, replaced as a whole. Celery's `--statedb` is a shelve; this is not.

Moments are not kept: a monotonic clock begins anew with the machine, so what is read counts as revoked now.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from ...core.errors import ConfigError
from .revokes import Revokes

FORMAT = "lightbus-statedb-1"


def load(path: Path, revokes: Revokes) -> None:
    """Revoke what the file says; a file that is not there says nothing.

    Raises:
        ConfigError: it cannot be read, or is something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {found['format']!r}")
        revokes.add([str(one) for one in found["revoked"]])
        if found["stamps"]:
            revokes.add_stamps({str(header): list(values) for header, values in found["stamps"].items()})
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--statedb {path}: it is no state of a Lightbus worker ({error}); Celery's own file cannot be taken over,"
            " name another path"
        ) from error


def save(path: Path, revokes: Revokes) -> None:
    """Raises OSError."""
    state = {"format": FORMAT, "revoked": revokes.ids(), "stamps": revokes.stamps()}
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(state), encoding="utf-8")
    os.replace(draft, path)
