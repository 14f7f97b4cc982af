"""Bitget, as the registry knows it. Its demo is the same host, with demo keys and a header."""

from __future__ import annotations

from typing import Final

from pydantic import SecretStr

from cancelq_worker.venues.bitget.adapter import ADDRESS_BUCKETS, BUCKETS, Bitget
from cancelq_worker.venues.bitget.codes import CODES, OK
from cancelq_worker.venues.bitget.signing import Credentials
from cancelq_worker.venues.kind import AccountView, Place, VenueKind
from cancelq_worker.venues.port import Venue


def _open(account: AccountView) -> Venue:
    passphrase = account.passphrase or SecretStr("")
    credentials = Credentials(account.api_key, account.api_secret, passphrase, account.demo)
    return Bitget(credentials, account.limits, account.batch_size)


KIND: Final = VenueKind(
    Place(
        base_url="https://api.bitget.com",
        ws_url="wss://ws.bitget.com/v2/ws/private",
        batch_most=50,
        demo_base_url="https://api.bitget.com",
        demo_ws_url="wss://wspap.bitget.com/v2/ws/private",
        needs_passphrase=True,
    ),
    _open,
    BUCKETS,
    ADDRESS_BUCKETS,
    codes=frozenset({OK, *CODES}),
)
