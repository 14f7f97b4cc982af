"""The venues this build knows, by name. A new venue is one line here and a folder beside it."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import SecretStr

from cancelq_worker.settings import Account
from cancelq_worker.venues.bitget.adapter import Bitget
from cancelq_worker.venues.bitget.signing import Credentials
from cancelq_worker.venues.port import Venue


def _bitget(account: Account) -> Venue:
    passphrase = account.passphrase or SecretStr("")
    credentials = Credentials(account.api_key, account.api_secret, passphrase, account.demo)
    return Bitget(credentials, account.limits, account.batch_size)


VENUES: dict[str, Callable[[Account], Venue]] = {"bitget": _bitget}


def open_venue(name: str, account: Account) -> Venue:
    """The venue's adapter for one account. Raises LookupError for a venue this build does not serve."""
    if name not in VENUES:
        raise LookupError(f"venue {name!r} is not served by this version; it serves: {', '.join(VENUES)}")
    return VENUES[name](account)
