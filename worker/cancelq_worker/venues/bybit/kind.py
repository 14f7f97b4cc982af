"""Bybit, as the registry knows it. Demo and testnet are hosts of their own, and a key belongs to one of them."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from cancelq_worker.venues.bybit.adapter import ADDRESS_BUCKETS, BUCKETS, DEMO_HOST, Bybit
from cancelq_worker.venues.bybit.codes import CODES, OK
from cancelq_worker.venues.bybit.signing import Credentials
from cancelq_worker.venues.kind import AccountView, Place, VenueKind
from cancelq_worker.venues.port import Venue


def _open(account: AccountView) -> Venue:
    credentials = Credentials(account.api_key, account.api_secret)
    singly = account.demo or urlsplit(account.base_url).hostname == DEMO_HOST
    return Bybit(credentials, account.limits, account.batch_size, singly=singly)


KIND: Final = VenueKind(
    Place(
        base_url="https://api.bybit.com",
        ws_url="wss://stream.bybit.com/v5/private",
        batch_most=10,
        demo_base_url="https://api-demo.bybit.com",
        demo_ws_url="wss://stream-demo.bybit.com/v5/private",
        testnet_base_url="https://api-testnet.bybit.com",
        testnet_ws_url="wss://stream-testnet.bybit.com/v5/private",
    ),
    _open,
    BUCKETS,
    ADDRESS_BUCKETS,
    codes=frozenset({OK, *CODES}),
)
