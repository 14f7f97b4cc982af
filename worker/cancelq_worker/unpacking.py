"""Answers that come packed although plain ones were asked for, unpacked within a size: a few kilobytes can unpack to
gigabytes."""

from __future__ import annotations

import zlib
from typing import Final

_WBITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def unpacked(body: bytes, encoding: str, most: int) -> bytes:
    """The plain body, of at most `most` bytes. `encoding` as the header tells it. Raises ValueError where it is larger,
    broken, cut off, or packed in another way."""
    way = encoding.strip().lower()
    if way in ("", "identity"):
        return body
    if way not in _WBITS:
        raise ValueError("an answer packed in a way that was not asked for")
    unpacker = zlib.decompressobj(_WBITS[way])
    try:
        plain = unpacker.decompress(body, most)
    except zlib.error:
        raise ValueError("an answer that cannot be unpacked") from None
    if unpacker.unconsumed_tail:
        raise ValueError(f"an answer over {most} bytes")
    if not unpacker.eof:
        raise ValueError("an answer that is cut off")
    return plain
