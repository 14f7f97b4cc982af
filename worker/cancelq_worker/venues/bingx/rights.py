"""What BingX says a key may do.

Sources: BingX API documentation, "Query user API Key permissions": twice a second and UID, IP group 2, permission
"Read"; `permissions` is a list of numbers, `ipAddresses` the addresses. Another edition of it describes flags instead
(`enableWithdrawals` and its kin, `ipRestrict`), and captures show the first form without the usual envelope. What is
in neither form is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cancelq_worker.venues.port import KeyRights, Request
from cancelq_worker.venues.reading import plain

REQUEST: Final = Request("GET", "/openApi/v1/account/apiPermissions")
#: Number → what it allows.
RIGHTS: Final = {
    "1": "spot trading",
    "2": "reading",
    "3": "perpetual futures",
    "4": "universal transfer",
    "5": "withdrawal",
    "7": "transfer between sub-accounts",
}
TRADE, WITHDRAW = "1", "5"
#: Flag → what it allows.
FLAGS: Final = {
    "enableSpotAndMarginTrading": "spot trading",
    "enableReading": "reading",
    "enableFutures": "perpetual futures",
    "enableWithdrawals": "withdrawal",
    "enableInternalTransfer": "internal transfer",
    "permitsUniversalTransfer": "universal transfer",
}


def is_bare(body: Mapping[str, Any] | None) -> bool:
    """Whether a body is the rights themselves, without the envelope of all other answers."""
    return body is not None and "code" not in body and isinstance(body.get("permissions"), list)


def read(told: Mapping[str, Any]) -> KeyRights:
    """The rights in an answer's `data`, or in one without an envelope."""
    if isinstance(told.get("permissions"), list):
        return _of_numbers(told)
    return _of_flags(told)


def _of_numbers(told: Mapping[str, Any]) -> KeyRights:
    numbers = [plain(one, 8) for one in told["permissions"]]
    all_known = all(number in RIGHTS for number in numbers)
    addresses = told.get("ipAddresses")
    return KeyRights(
        trade=TRADE in numbers or (False if all_known else None),
        withdraw=WITHDRAW in numbers or (False if all_known else None),
        addresses=tuple(plain(one, 64) for one in addresses if one) if isinstance(addresses, list) else None,
        names=tuple(RIGHTS.get(number, f"number {number}") for number in numbers),
    )


def _of_flags(told: Mapping[str, Any]) -> KeyRights:
    trade, withdraw = told.get("enableSpotAndMarginTrading"), told.get("enableWithdrawals")
    return KeyRights(
        trade=trade if isinstance(trade, bool) else None,
        withdraw=withdraw if isinstance(withdraw, bool) else None,
        # That it is bound to addresses is told, to which is not.
        addresses=() if told.get("ipRestrict") is False else None,
        names=tuple(name for flag, name in FLAGS.items() if told.get(flag) is True),
    )
