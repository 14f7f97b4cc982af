"""BingX, as the registry knows it. It has no spot demo that its papers describe, and documents no largest batch: 10
orders are named in a call unless the account says otherwise."""

from __future__ import annotations

from typing import Final

from cancelq_worker.venues.bingx.adapter import ADDRESS_BUCKETS, BUCKETS, Bingx
from cancelq_worker.venues.bingx.codes import OK, ROWS
from cancelq_worker.venues.bingx.signing import Credentials
from cancelq_worker.venues.bingx.timer import BingxTimer
from cancelq_worker.venues.kind import AccountView, Place, VenueKind
from cancelq_worker.venues.port import Venue


def _open(account: AccountView) -> Venue:
    return Bingx(Credentials(account.api_key, account.api_secret), account.limits, account.batch_size)


KIND: Final = VenueKind(
    Place(
        base_url="https://open-api.bingx.com",
        ws_url="wss://open-api-ws.bingx.com/market",
        batch_most=50,
    ),
    _open,
    BUCKETS,
    ADDRESS_BUCKETS,
    codes=frozenset({OK, *(code for row in ROWS for code in row.codes.split())}),
    flatten=("order,tpsl,stop",),  # its one bulk call takes all of them
    timer=BingxTimer(),
)
