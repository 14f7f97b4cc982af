"""What a venue keeps: accounts, and for each of them the orders and trades, findable the ways its clients
ask.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import merge
from typing import NamedTuple

# The venue's ids carry their creation time: milliseconds since this epoch, shifted by 22 bits, as in captured
# pairs of orderId and cTime (1111461743123927040 was created at 1700719050198).
ID_EPOCH_MS = 1_435_725_920_677
ID_SHIFT = 22
SMALLEST_ID = 10**18

# So that a first cancel is never "too soon" after none.
NEVER_US = -(10**18)


# What ids and other free texts of an order may hold: visible ASCII that JSON writes as it is.
PLAIN = r"^[!#-\[\]-~]*$"


class Kind(StrEnum):
    """Which book of the venue an order lives in."""

    order = "order"
    tpsl = "tpsl"
    plan = "plan"


class State(StrEnum):
    live = "live"
    partially_filled = "partially_filled"
    filled = "filled"
    cancelled = "cancelled"
    triggered = "triggered"
    failed = "failed"


# State, filled quantity, and when it came about (venue time, us).
View = tuple[State, str, int]


class Change(NamedTuple):
    """One entry of an order's history: the machine's wall time, the new state, and who or what made it."""

    at_us: int
    state: State
    filled: str
    by: str


class Naming(NamedTuple):
    """One cancel call that named the order, and what came of it for this order."""

    call: int
    at_us: int
    verdict: str


class Right(StrEnum):
    """What a key may do besides reading."""

    trade = "trade"
    transfer = "transfer"
    withdraw = "withdraw"


@dataclass(frozen=True, slots=True)
class Account:
    """One API key. Several keys may share a UID, and with it the orders and the limits.

    `addresses`: those it is bound to, as the venue tells them; calls from others are let through all the same.
    `expires_ms`: when the venue says it ends (epoch ms), None: in a time far off. It works on.
    """

    venue: str
    key: str
    secret: str = field(repr=False)
    passphrase: str = field(repr=False)
    uid: str
    demo: bool = False
    uta: bool = False
    rights: frozenset[Right] = frozenset({Right.trade})
    addresses: tuple[str, ...] = ()
    expires_ms: int | None = None


class SortedNumbers:
    """A sorted set of integers in short runs: adding, removing and paging stay cheap with millions in it."""

    __slots__ = ("_runs", "_tops")

    RUN = 512

    def __init__(self) -> None:
        self._runs: list[list[int]] = []
        self._tops: list[int] = []

    def add(self, number: int) -> None:
        """The number must not be in the set yet."""
        runs, tops = self._runs, self._tops
        if not runs:
            runs.append([number])
            tops.append(number)
            return
        if number > tops[-1]:
            at = len(runs) - 1
            runs[at].append(number)
            tops[at] = number
        else:
            at = bisect_left(tops, number)
            insort(runs[at], number)
        run = runs[at]
        if len(run) > 2 * self.RUN:
            runs[at : at + 1] = [run[: self.RUN], run[self.RUN :]]
            tops[at : at + 1] = [run[self.RUN - 1], run[-1]]

    def discard(self, number: int) -> None:
        at = bisect_left(self._tops, number)
        if at == len(self._runs):
            return
        run = self._runs[at]
        place = bisect_left(run, number)
        if run[place] != number:
            return
        del run[place]
        if not run:
            del self._runs[at], self._tops[at]
        elif place == len(run):
            self._tops[at] = run[-1]

    def descending(self, below: int | None = None) -> Iterator[int]:
        """From the largest down, or from the largest that is smaller than `below`."""
        last = len(self._runs) - 1
        if below is not None:
            last = min(last, bisect_left(self._tops, below))
        for at in range(last, -1, -1):
            run = self._runs[at]
            if below is None or run[-1] < below:
                yield from reversed(run)
            else:
                yield from reversed(run[: bisect_left(run, below)])


class Shelf:
    """The orders of one kind and pair, open and closed, by number."""

    __slots__ = ("closed", "open")

    def __init__(self) -> None:
        self.open = SortedNumbers()
        self.closed = SortedNumbers()


# Where an order is that no book has taken in yet.
NO_SHELF = Shelf()


@dataclass(slots=True, eq=False)
class Order:
    """One order of any kind. Quantities and prices are decimal text.

    `created_us` and `updated_us` are the venue's wall clock, `entered_us`, `settled_us`, `named_us` and `ending_us`
    the steady one. `ending_us` is when a cancel that was acknowledged will be executed, `ended_as` the order's place
    in the book's `ended`, -1 while it is open.
    """

    number: int
    order_id: str
    client_id: str
    symbol: str
    kind: Kind
    side: str
    order_type: str
    price: str
    size: str
    trigger_price: str
    created_us: int
    updated_us: int
    entered_us: int
    state: State = State.live
    is_open: bool = True
    filled: str = "0"
    cancel_reason: str = ""
    settled_us: int = NEVER_US
    named_us: int = NEVER_US
    ending_us: int = NEVER_US
    ended_as: int = -1
    before: View = (State.live, "0", 0)
    child_id: str = ""
    parent_id: str = ""
    history: tuple[Change, ...] = ()
    namings: tuple[Naming, ...] = ()
    shelf: Shelf = field(default=NO_SHELF, repr=False)


class Trade(NamedTuple):
    number: int
    order: Order
    size: str
    at_us: int


class Book:
    """All orders of one UID at one venue."""

    def __init__(self, venue: str, uid: str) -> None:
        self.venue = venue
        self.uid = uid
        self.orders: list[Order] = []
        self.by_id: dict[str, Order] = {}
        self.by_number: dict[int, Order] = {}
        # TP/SL orders share it with normal ones, where the venue lets them have a client id.
        self.by_client: dict[str, Order] = {}
        self.plan_by_client: dict[str, Order] = {}
        self.trades: list[Trade] = []
        # In the order in which they ended.
        self.ended: list[Order] = []
        self._shelves: dict[Kind, dict[str, Shelf]] = {kind: {} for kind in Kind}
        # Closed a short while ago, for an open list that lags: (steady time of the end, order).
        self._lingering: deque[tuple[int, Order]] = deque()

    def add(self, order: Order) -> None:
        """Takes in an open order whose number is not in the book."""
        self.orders.append(order)
        self.by_id[order.order_id] = order
        self.by_number[order.number] = order
        if order.client_id:
            clients = self.plan_by_client if order.kind is Kind.plan else self.by_client
            clients[order.client_id] = order
        shelves = self._shelves[order.kind]
        if order.symbol not in shelves:
            shelves[order.symbol] = Shelf()
        order.shelf = shelves[order.symbol]
        order.shelf.open.add(order.number)

    def close(self, order: Order, *, linger: bool) -> None:
        """Moves an order from the open list to the history. `linger` keeps it for `shown_open` as well."""
        order.shelf.open.discard(order.number)
        order.shelf.closed.add(order.number)
        order.ended_as = len(self.ended)
        self.ended.append(order)
        if linger:
            self._lingering.append((order.settled_us, order))

    def open_orders(self, kind: Kind, symbol: str | None = None, below: int | None = None) -> Iterator[Order]:
        """Newest id first."""
        return self._orders([shelf.open.descending(below) for shelf in self._shelves_of(kind, symbol)])

    def closed_orders(self, kind: Kind, symbol: str | None = None, below: int | None = None) -> Iterator[Order]:
        """Newest id first."""
        return self._orders([shelf.closed.descending(below) for shelf in self._shelves_of(kind, symbol)])

    def shown_open(self, kind: Kind, symbol: str | None, below: int | None, seen_us: int) -> Iterator[Order]:
        """The open list as it was at that steady time, as far as entering and closing go. Newest id first."""
        while self._lingering and self._lingering[0][0] <= seen_us:
            self._lingering.popleft()
        late = [
            order
            for _, order in self._lingering
            if order.kind is kind
            and (symbol is None or order.symbol == symbol)
            and (below is None or order.number < below)
        ]
        late.sort(key=_number, reverse=True)
        for order in merge(self.open_orders(kind, symbol, below), late, key=_number, reverse=True):
            if order.entered_us <= seen_us:
                yield order

    def _shelves_of(self, kind: Kind, symbol: str | None) -> list[Shelf]:
        shelves = self._shelves[kind]
        if symbol is None:
            return list(shelves.values())
        return [shelves[symbol]] if symbol in shelves else []

    def _orders(self, walks: list[Iterator[int]]) -> Iterator[Order]:
        numbers = walks[0] if len(walks) == 1 else merge(*walks, reverse=True)
        return map(self.by_number.__getitem__, numbers)


def _number(order: Order) -> int:
    return order.number


class Ids:
    """Hands out ids of 19 digits that grow with the time an order was created, and never one twice."""

    def __init__(self) -> None:
        self._newest = SMALLEST_ID
        self._last_of_past: dict[int, int] = {}

    def next(self, created_ms: int, now_ms: int) -> int:
        """An id for an order created at `created_ms`. For one created now it is larger than all before it."""
        base = max(SMALLEST_ID, (created_ms - ID_EPOCH_MS) << ID_SHIFT)
        if created_ms >= now_ms:
            self._newest = max(self._newest + 1, base)
            return self._newest
        # The upper half of a millisecond's ids is for orders that are said to be from then, the lower half was
        # for those that were really made then.
        last = self._last_of_past.get(base, base + (1 << (ID_SHIFT - 1)))
        self._last_of_past[base] = last + 1
        return last + 1
