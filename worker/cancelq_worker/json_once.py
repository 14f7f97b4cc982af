"""JSON whose objects say each name once: readers differ in which of two they take."""

from __future__ import annotations

from typing import Any


class Repeated(ValueError):
    """A name that stands twice in one object; the message is the name."""


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of these fields, for `json.loads(…, object_pairs_hook=once)`. Raises Repeated."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        raise Repeated(next(name for name in names if names.count(name) > 1)[:64])
    return fields
