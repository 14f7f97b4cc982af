"""Where rich prints: text as it is, on a terminal or off it."""

from __future__ import annotations

from typing import Any

from rich.console import Console


def plain_console(off_terminal: int | None = None, **options: Any) -> Console:
    """A console that reads no names between colons as emoji, as `bitget:a` is a lane; `off_terminal`: its width where
    nobody's terminal gives one; `options` as rich has them."""
    made = Console(emoji=False, **options)
    if off_terminal is None or made.is_terminal:
        return made
    return Console(emoji=False, width=off_terminal, **options)
