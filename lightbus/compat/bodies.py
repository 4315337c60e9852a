"""The bytes of a task message to the JSON value in them: content type, compression, character set. Pure.

Only JSON is read: pickle would run what the sender chose, and YAML and msgpack need libraries. Decompression stops at
a limit, so that a small message cannot fill the memory.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import Any, Protocol

from ..core.errors import DecodeError
from ..core.message import Wire
from . import json

MAX_BODY_BYTES = 256 * 2**20

_JSON_TYPES = ("application/json", "application/x-json", "text/json")
_CHARSETS = ("", "utf-8", "utf8", "us-ascii", "ascii", "binary")


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...
    @property
    def eof(self) -> bool: ...


def read_body(wire: Wire) -> Any:
    """The value in the body of `wire`.

    Raises:
        DecodeError: it is not JSON in UTF-8, or compressed in a way that this Python cannot undo.
    """
    kind = wire.content_type.partition(";")[0].strip().lower()
    if kind not in _JSON_TYPES:
        raise DecodeError(
            f"content type {wire.content_type!r:.100} is not read, only 'application/json':"
            " set task_serializer = 'json' where the message is sent"
        )
    if wire.content_encoding.strip().lower() not in _CHARSETS:
        raise DecodeError(f"content encoding {wire.content_encoding!r:.100} is not read, only 'utf-8'")
    body = wire.body
    compression = wire.headers.get("compression")
    if compression is not None:
        body = decompressed(body, compression)
    try:
        return json.loads(body)
    except ValueError as error:  # UnicodeDecodeError is one
        raise DecodeError(f"the body is not the JSON that its content type announces: it {error}") from error


def decompressed(body: bytes, compression: object) -> bytes:
    """`body` without the compression that kombu calls so; at most MAX_BODY_BYTES.

    Raises:
        DecodeError: it is not compressed so, is cut off or too large, or the kind is not known.
    """
    if not isinstance(compression, str):
        raise DecodeError(f"header 'compression' must be text, got {compression!r:.100}")
    decompressor = _decompressor(compression.strip().lower())
    try:
        plain = decompressor.decompress(body, MAX_BODY_BYTES)
    except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError) as error:
        raise DecodeError(f"the body is not the {compression!r:.100} that its header announces: {error}") from error
    if not decompressor.eof:
        state = f"holds more than {MAX_BODY_BYTES} bytes" if len(plain) >= MAX_BODY_BYTES else "is cut off"
        raise DecodeError(f"the body, compressed as {compression!r:.100}, {state}")
    return plain


def _decompressor(compression: str) -> _Decompressor:
    match compression:
        case "application/x-gzip" | "gzip" | "zlib":
            return zlib.decompressobj(zlib.MAX_WBITS | 32)  # kombu writes zlib's header and calls it gzip; take both
        case "application/x-bz2" | "bzip2" | "bzip":
            return bz2.BZ2Decompressor()
        case "application/x-lzma" | "lzma" | "xz":
            return lzma.LZMADecompressor()
    raise DecodeError(
        f"header 'compression' is {compression!r:.100}; gzip, bzip2 and lzma are read."
        " Set task_compression to one of them where the message is sent"
    )
