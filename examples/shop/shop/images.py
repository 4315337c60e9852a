"""Photos and thumbnails, by the standard library alone."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

Pixel = tuple[int, int, int]
Picture = list[list[Pixel]]


def photo(number: int, side: int = 64) -> Picture:
    """What the camera saw: a gradient of its own for each number."""
    return [[(x * 4 % 256, y * 4 % 256, number * 37 % 256) for x in range(side)] for y in range(side)]


def resized(picture: Picture, width: int) -> Picture:
    """The picture at another width, its shape kept; each pixel is the nearest of the old ones."""
    old_height, old_width = len(picture), len(picture[0])
    height = max(1, old_height * width // old_width)
    return [[picture[y * old_height // height][x * old_width // width] for x in range(width)] for y in range(height)]


def write_png(path: Path, picture: Picture) -> None:
    """Write a PNG file; it is there whole or not at all."""
    head = struct.pack(">2I5B", len(picture[0]), len(picture), 8, 2, 0, 0, 0)
    rows = b"".join(b"\0" + b"".join(bytes(pixel) for pixel in row) for row in picture)
    chunks = _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    part.replace(path)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
