"""The bytes of a task message to the value in them: content type, compression, character set. Pure.

Read is what `accept_content` names, of itself JSON alone; see `serializers`. Decompression stops at a limit, so that a
small message cannot fill the memory: none of it is ever inflated whole to see how long it is.
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import sys
import zlib
from collections.abc import Collection
from typing import Any, Protocol

from ..core.errors import DecodeError
from ..core.message import MAX_BODY_BYTES, Wire
from . import json
from .serializers import JSON, JSON_TYPES, accepts, bare, decode

_USUAL_TYPE = "application/json"
_CHARSETS = ("", "utf-8", "utf8", "us-ascii", "ascii", "binary")


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...
    @property
    def eof(self) -> bool: ...


def read_body(wire: Wire, max_bytes: int = MAX_BODY_BYTES, accept: Collection[str] = (JSON,)) -> Any:
    """The value in the body of `wire`.

    Args:
        max_bytes: a body that is longer, after decompression where it is compressed, is not read.
        accept: the content types that are read, as in the setting `accept_content`.

    Raises:
        DecodeError: it is too long, of another content type, not what its content type says, or compressed in a way
            that this Python cannot undo.
    """
    usual = wire.content_type == _USUAL_TYPE and wire.content_encoding == "utf-8" and JSON in accept
    is_json = usual or bare(wire.content_type) in JSON_TYPES
    if not usual and not accepts(wire.content_type, accept):
        raise DecodeError(
            f"content type {wire.content_type!r:.100} is not read, only {', '.join(accept)}: set accept_content here if"
            " you trust all who can send to this queue, or task_serializer = 'json' where the message is sent"
        )
    if is_json and not usual and wire.content_encoding.strip().lower() not in _CHARSETS:
        raise DecodeError(f"content encoding {wire.content_encoding!r:.100} is not read, only 'utf-8'")
    body = wire.body
    compression = wire.headers.get("compression")
    if compression is not None:
        body = decompressed(body, compression, max_bytes)
    elif len(body) > max_bytes:
        raise _too_long(f"the body has {len(body)} bytes", max_bytes)
    try:
        return json.loads(body) if is_json else decode(body, wire.content_type, wire.content_encoding)
    except ValueError as error:  # UnicodeDecodeError is one
        what = "the JSON that its content type announces" if is_json else "what its content type announces"
        raise DecodeError(f"the body is not {what}: it {error}") from error


def _too_long(what: str, max_bytes: int) -> DecodeError:
    return DecodeError(f"{what}; at most {max_bytes} are read: send less, or raise the setting lightbus_task_max_bytes")


def decompressed(body: bytes, compression: object, max_bytes: int) -> bytes:
    """`body` without the compression that kombu calls so.

    Raises:
        DecodeError: it is not compressed so, is cut off or longer than `max_bytes`, or the kind is not known.
    """
    if not isinstance(compression, str):
        raise DecodeError(f"header 'compression' must be text, got {compression!r:.100}")
    decompressor = _decompressor(compression.strip().lower())
    try:
        plain = decompressor.decompress(body, max_bytes + 1)
    except Exception as error:  # each library has errors of its own, and a hostile body finds the others
        raise DecodeError(f"the body is not the {compression!r:.100} that its header announces: {error}") from error
    if len(plain) > max_bytes:
        raise _too_long(f"the body, compressed as {compression!r:.100}, holds more than {max_bytes} bytes", max_bytes)
    if not decompressor.eof:
        raise DecodeError(f"the body, compressed as {compression!r:.100}, is cut off")
    return plain


def _decompressor(compression: str) -> _Decompressor:
    match compression:
        case "application/x-gzip" | "gzip" | "zlib":
            return zlib.decompressobj(zlib.MAX_WBITS | 32)  # kombu writes zlib's header and calls it gzip; take both
        case "application/x-bz2" | "bzip2" | "bzip":
            return bz2.BZ2Decompressor()
        case "application/x-lzma" | "lzma" | "xz":
            return lzma.LZMADecompressor(memlimit=_LZMA_MEMORY_BYTES)
        case "application/zstd" | "zstd" | "zstandard":
            module = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
            decompressor: _Decompressor = _library(module, compression).ZstdDecompressor()  # 128 MiB of window at most
            return decompressor
        case "application/x-brotli" | "brotli":
            return _Brotli(_library("brotli", compression))
    raise DecodeError(
        f"header 'compression' is {compression!r:.100}; gzip, bzip2, lzma, zstd and brotli are read."
        " Set task_compression to one of them where the message is sent"
    )


#: A few bytes of xz may ask for a dictionary of 4 GiB; the highest preset, 9, needs 65 MiB.
_LZMA_MEMORY_BYTES = 128 * 2**20


def _library(name: str, compression: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DecodeError(
            f"header 'compression' is {compression!r:.100}, which takes the Python package {name!r}: install it"
        ) from error


class _Brotli:
    """brotli as the standard library's decompressors are used here; before 1.2 it has no limit to stop at."""

    def __init__(self, brotli: Any) -> None:
        self._decompressor = brotli.Decompressor()
        self.eof = False

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        try:
            plain: bytes = self._decompressor.process(data, output_buffer_limit=max_length)
        except TypeError as error:
            raise ValueError("brotli 1.2 or later is needed, which can stop at a limit: upgrade it") from error
        parts, length = [plain], len(plain)
        while length < max_length and not self._decompressor.can_accept_more_data():
            parts.append(self._decompressor.process(b"", output_buffer_limit=max_length - length))
            length += len(parts[-1])
        self.eof = self._decompressor.is_finished()
        return b"".join(parts)
