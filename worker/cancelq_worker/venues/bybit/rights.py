"""What Bybit says a key may do.

Source: Bybit API documentation v5, "Get API Key Information": ten times a second and UID, any key; `readOnly` 1 for a
key that changes nothing, `permissions` by product, `ips` with `*` alone for a key bound to no address, `expiredAt` for
such a one, and `userID` for the account. Demo trading has no such page.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from cancelq_worker.venues.port import KeyRights, Request
from cancelq_worker.venues.reading import epoch_ms, word

REQUEST: Final = Request("GET", "/v5/user/query-api")
ANY_ADDRESS: Final = "*"


def read(result: Mapping[str, Any]) -> KeyRights:
    """The rights in an answer's `result`."""
    addresses = _addresses(result)
    # "Only for those API keys with no IP bound"; what stands there for others means nothing.
    expires_ms = None if addresses else _expires_ms(word(result, "expiredAt"))
    told, read_only = result.get("permissions"), word(result, "readOnly")
    account = "" if word(result, "userID") == "0" else word(result, "userID")[:40]
    if not isinstance(told, dict) or not _is_list_of_words(told.get("Wallet")):
        return KeyRights(None, None, addresses, expires_ms, account=account)
    names = tuple(f"{product}.{right}"[:60] for product, rights in told.items() for right in _words(rights))
    if read_only not in ("0", "1"):
        return KeyRights(None, "Wallet.Withdraw" in names, addresses, expires_ms, names, account)
    changes = read_only == "0"
    return KeyRights(
        trade=changes and "Spot.SpotTrade" in names,
        withdraw=changes and "Wallet.Withdraw" in names,
        addresses=addresses,
        expires_ms=expires_ms,
        names=names if changes else ("read only", *names),
        account=account,
    )


def _is_list_of_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _words(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _addresses(result: Mapping[str, Any]) -> tuple[str, ...] | None:
    told = result.get("ips")
    if not _is_list_of_words(told):
        return None
    return tuple(one[:64] for one in _words(told) if one and one != ANY_ADDRESS)


def _expires_ms(text: str) -> int | None:
    """None for a key without an end, and for what is no time of our days."""
    try:
        at_ms = int(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
    return epoch_ms(str(at_ms))
