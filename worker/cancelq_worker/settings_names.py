"""Names that stand in settings, and what was meant by one that is none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from cancelq.contract import VENUES, Lane
from cancelq.errors import LaneError


def known_venue(name: str) -> str:
    """The name of a venue. Raises ValueError for any other."""
    if name not in VENUES:
        raise ValueError(f'unknown venue "{name}"{meant(name, VENUES, "venues are")}')
    return name


def usable_account(name: str) -> str:
    """A name that an account may have. Raises ValueError for any other."""
    try:
        Lane.parse(f"{VENUES[0]}:{name}")
    except LaneError as error:
        rule = "a lower-case letter, then up to 31 of a-z, 0-9 and single _"
        raise ValueError(f'"{name}" cannot name an account; use {rule}') from error
    return name


def meant(name: str, known: Iterable[str], otherwise: str) -> str:
    """The rest of a message about a name that is unknown: which one was probably meant, or which there are."""
    close = difflib.get_close_matches(name.lower(), list(known), n=1)
    return f', did you mean "{close[0]}"?' if close else f"; {otherwise} {', '.join(known)}"
