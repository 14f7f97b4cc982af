"""The venues this build serves, by name: a folder here and a line below for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cancelq_worker.venues.bingx.kind import KIND as BINGX
from cancelq_worker.venues.bitget.kind import KIND as BITGET
from cancelq_worker.venues.bybit.kind import KIND as BYBIT
from cancelq_worker.venues.kind import AccountView, VenueKind
from cancelq_worker.venues.port import Venue

KINDS: Final[Mapping[str, VenueKind]] = {
    "bitget": BITGET,
    "bybit": BYBIT,
    "bingx": BINGX,
}


def open_venue(name: str, account: AccountView) -> Venue:
    """The venue's adapter for one account. Raises KeyError for a name that no settings would let through."""
    return KINDS[name].open(account)
