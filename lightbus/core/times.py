"""Unix seconds to RFC 3339 text and back. Pure."""

from __future__ import annotations

from datetime import datetime, timezone


def iso_utc(unix_seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds, for example `2026-11-24T03:00:00.000Z`."""
    return datetime.fromtimestamp(unix_seconds, timezone.utc).isoformat(timespec="milliseconds")[:-6] + "Z"


def unix_seconds(text: str) -> float:
    """The inverse of `iso_utc`; any RFC 3339 offset is accepted, none means UTC.

    Raises:
        ValueError: the text is no RFC 3339 moment.
    """
    if text.endswith(("Z", "z")):
        text = text[:-1] + "+00:00"  # Python 3.10 does not read the Z
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
