"""The ways in which the body of a task's message is compressed: names and content types are kombu's. Pure.

Reading is in `bodies`. Those that need a library (zstd, brotli) are not written.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable

_TYPES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("application/x-gzip", zlib.compress),  # kombu writes zlib's header and calls it gzip
    "bzip2": ("application/x-bz2", bz2.compress),
    "lzma": ("application/x-lzma", lzma.compress),
}
_ALIASES = {"zlib": "gzip", "bzip": "bzip2", "xz": "lzma"} | {kind: name for name, (kind, _) in _TYPES.items()}


def compression_name(value: object) -> str:
    """The name in this module of what Celery calls `value`; "" for None.

    Raises:
        ValueError: it is not written here.
    """
    if value is None or value == "":
        return ""
    name = _ALIASES.get(str(value), str(value))
    if name not in _TYPES:
        raise ValueError(f"compression {value!r} is not supported: use one of {', '.join(_TYPES)}")
    return name


def compress(body: bytes, name: str) -> tuple[bytes, str]:
    """The compressed body, and the content type of the compression for the header `compression`."""
    kind, how = _TYPES[name]
    return how(body), kind
