"""The venue's orders. An order is live from the moment its account is given it, until it is cancelled."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

FIRST_ID = 1_200_000_000_000_000_000  # nineteen digits, beyond what a float holds exactly
ACCOUNT_STEP = 10**12
SYMBOLS = {"bitget": "BTCUSDT", "bybit": "BTCUSDT", "bingx": "BTC-USDT"}


@dataclass(slots=True)
class Account:
    """Orders `first` to `first + count - 1`, all of one pair; `ended`: cancelled ones → when, venue ms."""

    venue: str
    first: int
    count: int = 0
    ended: dict[int, int] = field(default_factory=dict)
    ended_sorted: list[int] = field(default_factory=list)

    @property
    def symbol(self) -> str:
        return SYMBOLS[self.venue]

    def knows(self, order: int) -> bool:
        return self.first <= order < self.first + self.count

    def is_live(self, order: int) -> bool:
        return self.knows(order) and order not in self.ended

    def cancel(self, order: int, now_ms: int) -> bool:
        """Whether this call ended it."""
        if not self.is_live(order):
            return False
        self.ended[order] = now_ms
        insort(self.ended_sorted, order)
        return True

    def ended_below(self, below: int | None, most: int) -> list[int]:
        """Ended orders with ids under `below`, the largest first."""
        end = len(self.ended_sorted) if below is None else bisect_left(self.ended_sorted, below)
        return self.ended_sorted[max(0, end - most) : end][::-1]

    def ended_from(self, lowest: int, most: int) -> list[int]:
        """Ended orders with ids of `lowest` and up, the smallest first."""
        begin = bisect_left(self.ended_sorted, lowest)
        return self.ended_sorted[begin : begin + most]

    def live_below(self, below: int | None, most: int) -> list[int]:
        """Live orders with ids under `below`, the largest first."""
        found: list[int] = []
        order = self.first + self.count if below is None else min(below, self.first + self.count)
        while len(found) < most and (order := order - 1) >= self.first:
            if order not in self.ended:
                found.append(order)
        return found


class Book:
    """All accounts of all venues. An account opens with its first call or its first orders."""

    def __init__(self) -> None:
        self._accounts: dict[tuple[str, str], Account] = {}

    def account(self, venue: str, name: str) -> Account:
        found = self._accounts.get((venue, name))
        if found is None:
            found = Account(venue, FIRST_ID + len(self._accounts) * ACCOUNT_STEP)
            self._accounts[venue, name] = found
        return found

    def give(self, venue: str, name: str, count: int) -> int:
        """More live orders for an account; the first of their ids, which follow each other."""
        account = self.account(venue, name)
        first = account.first + account.count
        account.count += count
        return first
