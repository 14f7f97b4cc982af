"""Records set down in files by a key, to be taken up again part by part: joins of any size in bounded memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

PARTS = 64
# Written when so many bytes have come together.
_BLOCK = 1 << 16


class Spill:
    """Records by key: all of one key come to the same part, in the order they were added. A folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._paths = [folder / f"{number:02d}" for number in range(PARTS)]
        self._waiting = [bytearray() for _ in self._paths]

    def add(self, key: str, record: tuple[Any, ...]) -> None:
        """Text, numbers, None and maps of text; they come back as a list."""
        number = zlib.crc32(key.encode(errors="surrogatepass")) % PARTS
        waiting = self._waiting[number]
        waiting += orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        if len(waiting) >= _BLOCK:
            self._flush(number)

    def parts(self) -> Iterator[list[list[Any]]]:
        """Every part, once; what was read is removed."""
        for number, path in enumerate(self._paths):
            self._flush(number)
            if path.exists():
                with path.open("rb") as file:
                    yield [orjson.loads(line) for line in file]
                path.unlink()

    def _flush(self, number: int) -> None:
        with self._paths[number].open("ab") as file:
            file.write(self._waiting[number])
        self._waiting[number].clear()
