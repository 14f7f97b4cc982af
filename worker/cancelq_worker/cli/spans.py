"""Spans of time as people write them: 500ms, 10s, 1m, 2h."""

from __future__ import annotations

import re

from cancelq_worker.exits import CommandFailed, Exit

_SPAN = re.compile(r"([0-9]{1,7})(\.[0-9]{1,3})?(ms|s|m|h)?")
_UNIT_MS = {None: 1000, "s": 1000, "ms": 1, "m": 60_000, "h": 3_600_000}


def span_ms(text: str, option: str, *, least_ms: int, most_ms: int) -> int:
    """The milliseconds of a span; a bare number is seconds. `CommandFailed` (usage) names the option."""
    match = _SPAN.fullmatch(text)
    ms = round(float(match[1] + (match[2] or "")) * _UNIT_MS[match[3]]) if match else -1
    if not least_ms <= ms <= most_ms:
        bounds = f"{_shown(least_ms)} to {_shown(most_ms)} are possible"
        raise CommandFailed(f"{option} wants a time like 500ms, 10s, 1m or 2h", bounds, Exit.USAGE)
    return ms


def _shown(ms: int) -> str:
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if ms >= size and ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms"
