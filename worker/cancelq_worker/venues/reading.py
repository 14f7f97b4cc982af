"""What every venue's answers have in common: objects, ids and amounts that somebody else wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from cancelq_worker.json_once import once
from cancelq_worker.venues.port import Answer

#: Said of a row that bears another order's ids.
OTHERS = "the answer speaks of another order"
#: Said of an answer that names an order nobody asked for: it is about another call, or mixed up.
NOT_ASKED = "the answer speaks of an order that was not in the call"

_MARK_APART = re.compile(rb'"[ \t\r\n]+:')  # a name's colon that does not follow its quotation mark
_AMOUNT = re.compile(r"[0-9]{1,30}(\.[0-9]{1,30})?", re.ASCII)
_YEAR_2000_MS = 946_684_800_000
_SAFE_ID = re.compile(r"[!-+\--~]{1,64}")  # printable, without space and comma


def payload(answer: Answer) -> dict[str, Any] | None:
    """The body as an object, whatever the HTTP status; None if it is none. Integers are exact up to 64 bits."""
    return object_of(answer.body)


def object_of(text: bytes | str) -> dict[str, Any] | None:
    """A text of a venue's as an object; None if it is none, or if an object in it says one name twice: readers differ
    in which of the two they take, so nobody knows what was meant (RFC 8259, section 4)."""
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(data, dict):
        return None
    raw = text.encode() if isinstance(text, str) else text
    # As many names as there are marks of names, which is nearly always so, and quickly counted: none stands twice.
    if (raw.count(b'":') != _names_in(data) or _MARK_APART.search(raw)) and _says_twice(raw):
        return None
    return data


def _names_in(value: dict[str, Any]) -> int:
    count = 0
    inner: list[Any] = [value]
    while inner:
        held = inner.pop()
        if type(held) is dict:
            count += len(held)
            held = held.values()
        inner.extend(one for one in held if type(one) is dict or type(one) is list)
    return count


def _says_twice(raw: bytes) -> bool:
    try:
        json.loads(raw.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError):
        return True
    return False


def rows_of(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; nothing of what is no list."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def word(row: Mapping[str, Any], name: str, most: int = 200) -> str:
    """A field as text, "" where it is missing; never longer than `most`."""
    return plain(row.get(name), most)


def plain(value: Any, most: int = 200) -> str:
    """A value as text, "" for what is no text or number: showing what is nested can take more stack than there is."""
    return "" if value is None or isinstance(value, bool | dict | list) else str(value)[:most]


def names_another(asked: Sequence[str], told: Iterable[str]) -> bool:
    """Whether an answer tells an id that was not in its call, of the kind that the call named: a batch goes by order
    ids or by client ids. Such an answer is about another call, or its rows stand under ids that are not theirs.

    Both are keys as `Target.named_as` makes them; nothing behind the colon where there is none.
    """
    known, kind = set(asked), asked[0][:2]
    return any(key[:2] == kind and key != kind and key not in known for key in told)


def safe_id(text: str) -> str:
    """An id from an answer, if it can stand in a state line, else ""."""
    return text if _SAFE_ID.fullmatch(text) else ""


def row_id(row: Mapping[str, Any], name: str) -> str:
    """An id of a row as exact text; "" where there is none that can stand in a state line, or one that went through a
    float and has lost its last digits."""
    value = row.get(name)
    return safe_id(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def filled(text: str) -> str:
    """A filled quantity as decimal text; "" for none, and for what is no plain number."""
    return text if _AMOUNT.fullmatch(text) and text.strip("0.") else ""


def epoch_ms(text: str) -> int | None:
    """An epoch time in ms; one of ten digits or fewer is in seconds. None for anything else, and for a time before the
    year 2000: a 0 tells nothing, least of all that an order is old."""
    if not re.fullmatch(r"[0-9]{1,16}", text, re.ASCII):
        return None
    ms = int(text) * 1000 if len(text) <= 10 else int(text)
    return ms if ms >= _YEAR_2000_MS else None


def named_field(text: str, fields: Sequence[tuple[str, str]]) -> str:
    """A refusal's text with the field of an intent that it is about. `fields`: the venue's parameter names, small
    letters alone, each with our field; the first one in the text counts."""
    squeezed = re.sub(r"[^a-z]", "", text.lower())
    for theirs, ours in fields:
        if theirs in squeezed:
            return f"{ours}: refused by the venue: {text}"
    return f"refused by the venue: {text}; check symbol, order_id and client_order_id"
