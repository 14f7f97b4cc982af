"""The venues this build serves: those of the public contract, each a folder here.

The one line of a venue outside its folder is its name in `cancelq.contract.VENUES`: it lets lanes of that name through
on both sides, and names the folder whose `kind.py` opens its accounts.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Final

from cancelq.contract import VENUES
from cancelq_worker.venues.kind import AccountView, VenueKind
from cancelq_worker.venues.port import Venue


def kind_of(name: str) -> VenueKind:
    """What a venue's folder says it is. Raises ImportError without such a folder, TypeError if it says nothing."""
    found = importlib.import_module(f"cancelq_worker.venues.{name}.kind").KIND
    if not isinstance(found, VenueKind):
        raise TypeError(f"cancelq_worker.venues.{name}.kind.KIND is no VenueKind")
    return found


KINDS: Final[Mapping[str, VenueKind]] = {name: kind_of(name) for name in VENUES}


def open_venue(name: str, account: AccountView) -> Venue:
    """The venue's adapter for one account. Raises KeyError for a name that no settings would let through."""
    return KINDS[name].open(account)
