"""What an event is when it is compared and hashed: one line of JSON, the same wherever the event lies.

`["1763690000000-0",{"account":"main","attempt":"1",…}]`: the entry's id and its fields sorted by name, UTF-8, no
blanks, ended by a newline. An entry that text cannot hold (bytes that are no UTF-8, a name given twice) is
`["1763690000000-0",["6964","612d31",…]]`: names and values in the server's order, each in hex.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a stream. `raw` is empty unless `fields` lose something: then it holds names and values as they
    were, and `fields` what can be shown of them."""

    entry_id: str
    fields: dict[str, str]
    raw: tuple[bytes, ...] = ()


def read(entry_id: bytes, flat: Sequence[bytes]) -> Entry:
    """An entry as the server answered it: name, value, name, value … Never raises."""
    fields: dict[str, str] = {}
    try:
        pairs = iter(flat)
        for name, value in zip(pairs, pairs, strict=True):
            fields[name.decode()] = value.decode()
    except ValueError:
        return from_raw(entry_id.decode(), tuple(flat))
    return (
        Entry(entry_id.decode(), fields) if 2 * len(fields) == len(flat) else from_raw(entry_id.decode(), tuple(flat))
    )


def from_raw(entry_id: str, raw: tuple[bytes, ...]) -> Entry:
    """An entry that text cannot hold; what is no UTF-8 is shown escaped, of a repeated name the last value."""
    text = [part.decode(errors="backslashreplace") for part in raw]
    return Entry(entry_id, dict(zip(text[::2], text[1::2], strict=False)), raw)


def line(entry: Entry) -> bytes:
    """The canonical form, its newline included."""
    content: object = [part.hex() for part in entry.raw] if entry.raw else entry.fields
    return orjson.dumps([entry.entry_id, content], option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def order_of(entry_id: str) -> tuple[int, int]:
    """By this entry ids are in the order of their stream."""
    ms, _, number = entry_id.partition("-")
    return int(ms), int(number or 0)
