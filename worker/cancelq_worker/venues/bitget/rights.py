"""What Bitget says a key may do.

Source: Bitget API documentation, "Get Account Information": once a second and UID, any key that may read spot orders;
`authorities` lists words of four letters, of which the last is `r` (read only) or `w` (read and write), `ips` the
addresses between commas, and `userId` the account. Its example shows the words `trade` and `readonly` instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cancelq_worker.venues.port import KeyRights, Request
from cancelq_worker.venues.reading import plain, word

REQUEST: Final = Request("GET", "/api/v2/spot/account/info")
TRADE: Final = frozenset({"stow", "trade"})
WITHDRAW: Final = frozenset({"wwow", "withdraw"})
_OTHERS: Final = (
    "readonly coor cpor stor smor ttor wtor taxr chor p2pr pllr coow cpow smow ttow wtow taxw chow p2p p2pw pllw"
)
KNOWN: Final = TRADE | WITHDRAW | frozenset(_OTHERS.split())


def read(data: Mapping[str, Any]) -> KeyRights:
    """The rights in an answer's `data`. A word that is in no list may mean anything, to withdraw among it."""
    told, account = data.get("authorities"), word(data, "userId")[:40]
    if not isinstance(told, list):
        return KeyRights(None, None, _addresses(data), account=account)
    names = tuple(plain(name, 40) for name in told)
    may_withdraw = not WITHDRAW.isdisjoint(names)
    all_known = KNOWN.issuperset(names)
    return KeyRights(
        trade=not TRADE.isdisjoint(names) or (False if all_known else None),
        withdraw=may_withdraw or (False if all_known else None),
        addresses=_addresses(data),
        names=names,
        account=account,
    )


def _addresses(data: Mapping[str, Any]) -> tuple[str, ...] | None:
    told = data.get("ips")
    if not isinstance(told, str):
        return None
    return tuple(one.strip()[:64] for one in told.split(",") if one.strip())
