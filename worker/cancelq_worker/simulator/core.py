"""The world behind all venues: clock, accounts, orders and what happens to them, limits, faults, and the
truth.

Nothing here runs by itself. What is due (a cancel that was acknowledged and executes later, a fill on the
way) is done at the next look, dated to when it was due; so a whole run works on a clock that stands still in
between.
"""

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from heapq import heappop, heappush
from typing import Any, NamedTuple, Protocol

from cancelq_worker.simulator.clock import Clock
from cancelq_worker.simulator.faults import FaultBox, Reply
from cancelq_worker.simulator.happenings import WHAT_OF_STATE, Happening, Observer, What
from cancelq_worker.simulator.limits import Limiter, Rule
from cancelq_worker.simulator.orders import (
    NEVER_US,
    Account,
    Book,
    Change,
    Ids,
    Kind,
    Naming,
    Order,
    State,
    Trade,
    View,
)
from cancelq_worker.simulator.settings import Settings

DAY_US = 86_400_000_000
# What an order without a price of its own trades at.
MARKET_PRICE = "100"


class Verdict(StrEnum):
    """What became of one order in one cancel call."""

    accepted = "accepted"
    closed = "closed"
    too_soon = "too_soon"
    pending = "pending"
    stuck = "stuck"
    not_here = "not_here"
    unmet = "unmet"


@dataclass(slots=True, frozen=True)
class Request:
    """A call as it came in. `path` and `query` are the received bytes, header names are lower case."""

    method: str
    path: bytes
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes
    ip: str = "127.0.0.1"


@dataclass(slots=True)
class Call:
    """One entry of the call log; `by` is how an order's history names it.

    `at_us` is the machine's wall clock at arrival, `steady_us` the clock of the limits. `refused` says that the call
    was over a limit, `executed` that it reached the orders, whatever the answer said or whether one was sent.
    """

    seq: int
    at_us: int
    steady_us: int
    venue: str
    endpoint: str
    method: str
    ip: str
    uid: str = ""
    ids: Sequence[str] = ()
    symbol: str = ""
    code: str = ""
    http_status: int = 0
    refused: bool = False
    executed: bool = False
    fault: str = ""
    failed_items: int = 0
    by: str = ""


class Venue(Protocol):
    """What a venue adds to the core: its buckets, and answers to the calls on its paths."""

    name: str
    paths: frozenset[tuple[str, bytes]]
    prefix: bytes

    def rules(self) -> dict[str, Rule]:
        """Bucket (`venue/endpoint`) to the limit the venue documents."""
        ...

    def spell(self, base: str, quote: str) -> str:
        """The pair as the venue writes it."""
        ...

    def answer(self, request: Request, call: Call) -> Reply:
        """Executes one call that arrives now, and logs its outcome in `call`."""
        ...

    def lost(self, request: Request) -> Reply:
        """The answer to a path under the venue's prefix that it does not have."""
        ...


@dataclass(slots=True)
class Entry:
    """An order to be entered. `order_id` and `created_ms` left out: made now, with the next id.

    Numbers are plain decimal text, all other texts match `orders.PLAIN`: answers are written without escaping.
    """

    symbol: str
    kind: Kind = Kind.order
    side: str = "buy"
    order_type: str = "limit"
    price: str = "100"
    size: str = "1"
    client_id: str = ""
    trigger_price: str = ""
    order_id: str = ""
    created_ms: int | None = None
    parent_id: str = ""
    by: str = "control"


class _Due(NamedTuple):
    at_us: int
    number: int
    act: Callable[[int], None]


class DuplicateOrderError(Exception):
    """An order with that id is in the book already."""


class ImpossibleMoveError(Exception):
    """The order cannot go from its state to the wanted one."""


class Core:
    """Shared by all venues of one simulator.

    The clock is read once per call (`tick`); all that happens in the call happens at that time.
    """

    def __init__(self, clock: Clock, rng: random.Random, settings: Settings) -> None:
        self.rng = rng
        self.limiter = Limiter()
        self.faults = FaultBox(rng)
        self.accounts: dict[tuple[str, str], Account] = {}
        self.books: dict[tuple[str, str], Book] = {}
        self.calls: deque[Call] = deque()
        self.calls_seen = 0
        # Told of every change of an order, in the order of the changes.
        self.observers: list[Observer] = []
        # What venues keep of their own and `forget` drops as well.
        self.forgetful: list[Callable[[], None]] = []
        # Told when something is due earlier than all before it: who runs a loop ticks then. Nothing here needs it.
        self.alarm: Callable[[], None] | None = None
        self._clock = clock
        self._ids = Ids()
        self._due: list[_Due] = []
        self._numbered = 0
        self.configure(settings)
        self.tick()

    def configure(self, settings: Settings) -> None:
        self.settings = settings
        self._gap_us = settings.recancel_gap_ms * 1000
        self._offset_us = settings.clock_offset_ms * 1000
        self._lingers = settings.open_lag_ms > 0
        self._races = bool(settings.race_fill or settings.race_partial or settings.race_fill_ids)

    # ---- time

    def tick(self) -> None:
        """Reads the clock, and does what is due by now in the order of its time."""
        self.now_us = self._clock.steady_us()
        self.wall_us = self._clock.wall_us()
        while self._due and self._due[0].at_us <= self.now_us:
            due = heappop(self._due)
            due.act(due.at_us)

    def venue_us(self) -> int:
        """The venue's wall clock at the last tick."""
        return self.wall_us + self._offset_us

    def steady_at(self, venue_us: int) -> int:
        """The steady time of a moment on the venue's wall clock; now, if that is still to come."""
        return self.now_us - max(0, self.venue_us() - venue_us)

    def later(self, at_us: int, act: Callable[[int], None]) -> None:
        """Does something at that steady time, or at the first tick after it; it is called with that time."""
        self._numbered += 1
        heappush(self._due, _Due(at_us, self._numbered, act))
        if self.alarm is not None and self._due[0].number == self._numbered:
            self.alarm()

    def until_due_us(self) -> int | None:
        """How long until a tick has something to do, 0 if it is overdue; None if nothing is scheduled."""
        return max(0, self._due[0].at_us - self._clock.steady_us()) if self._due else None

    # ---- calls

    def log(self, venue: str, endpoint: str, method: str, ip: str) -> Call:
        """Opens the log entry of a call that arrives now."""
        self.calls_seen += 1
        number = self.calls_seen
        call = Call(number, self.wall_us, self.now_us, venue, endpoint, method, ip, by=f"call:{number}")
        self.calls.append(call)
        while len(self.calls) > self.settings.calls_kept:
            self.calls.popleft()
        return call

    def book(self, venue: str, uid: str) -> Book:
        book = self.books.get((venue, uid))
        if book is None:
            book = self.books[venue, uid] = Book(venue, uid)
        return book

    # ---- orders

    def enter(self, book: Book, entry: Entry) -> Order:
        """Puts a live order into the book. Raises `DuplicateOrderError`."""
        order = self._put(book, entry)
        self._tell(What.entered, book, order, order.entered_us)
        return order

    def _put(self, book: Book, entry: Entry) -> Order:
        now_us = self.venue_us()
        created_us = now_us if entry.created_ms is None else entry.created_ms * 1000
        if entry.order_id:
            number = int(entry.order_id)
            if number in book.by_number:
                raise DuplicateOrderError(f"order_id: {entry.order_id} is in the book already")
        else:
            number = self._ids.next(created_us // 1000, now_us // 1000)
            while number in book.by_number:
                number += 1
        order = Order(
            number=number,
            order_id=str(number),
            client_id=entry.client_id,
            symbol=entry.symbol,
            kind=entry.kind,
            side=entry.side,
            order_type=entry.order_type,
            price=entry.price,
            size=entry.size,
            trigger_price=entry.trigger_price,
            created_us=created_us,
            updated_us=created_us,
            entered_us=self.steady_at(created_us),
            parent_id=entry.parent_id,
        )
        book.add(order)
        order.history = (Change(created_us - self._offset_us, State.live, "0", entry.by),)
        return order

    def cancel(self, book: Book, order: Order, call: Call, *, paced: bool = True) -> Verdict:
        """Cancels one order that a call names, or says why not; the call is noted on the order.

        `paced` is whether the venue wants a gap between two cancels of one order; one that does not, is told of a
        cancel that was acknowledged and is not executed yet (`pending`).
        """
        settings = self.settings
        if paced and self.now_us - order.named_us < self._gap_us:
            verdict = Verdict.too_soon
        elif not paced and order.is_open and order.ending_us > self.now_us:
            verdict = Verdict.pending
        else:
            order.named_us = self.now_us
            if not order.is_open:
                verdict = Verdict.closed
            elif settings.stuck_ids and _listed(order, settings.stuck_ids):
                verdict = Verdict.stuck
            elif settings.deaf_ids and _listed(order, settings.deaf_ids):
                verdict = Verdict.accepted
            elif delay_ms := settings.cancel_delay_of_ms.get(book.venue, settings.cancel_delay_ms):
                self._cancel_later(book, order, delay_ms * 1000, call)
                verdict = Verdict.accepted
            else:
                verdict = self._cancel_now(book, order, self.now_us, call)
        self.note(order, call, verdict)
        return verdict

    def cancel_symbol(self, book: Book, kind: Kind, symbol: str, call: Call) -> None:
        """Cancels, after the delay set for it, what is then open of a pair."""

        def act(at_us: int) -> None:
            settings = self.settings
            for order in list(book.open_orders(kind, symbol)):
                spared = _listed(order, settings.stuck_ids | settings.deaf_ids)
                if not (spared or self._drawn(settings.symbol_cancel_miss)):
                    self._cancel_now(book, order, at_us, call)

        delay_us = self.settings.symbol_cancel_delay_ms * 1000
        if delay_us:
            self.later(self.now_us + delay_us, act)
        else:
            act(self.now_us)

    def note(self, order: Order, call: Call, verdict: Verdict) -> None:
        order.namings += (Naming(call.seq, self.wall_us, verdict),)
        if verdict is not Verdict.accepted:
            call.failed_items += 1

    def _cancel_now(self, book: Book, order: Order, at_us: int, call: Call) -> Verdict:
        """Ends an open order by a cancel at that steady time, unless a fill comes first."""
        if self._races:
            if self._wins_race(order):
                self._win_race(book, order, at_us)
                return Verdict.closed
            self._part_race(book, order, at_us)
        self.close(book, order, State.cancelled, at_us, call.by)
        return Verdict.accepted

    def _cancel_later(self, book: Book, order: Order, delay_us: int, call: Call) -> None:
        order.ending_us = self.now_us + delay_us
        if self._wins_race(order):
            self.later(
                self.now_us + self.rng.randrange(delay_us),
                lambda at_us: self._win_race(book, order, at_us) if order.is_open else None,
            )

        def act(at_us: int) -> None:
            if order.is_open:
                self._part_race(book, order, at_us)
                self.close(book, order, State.cancelled, at_us, call.by)
            elif order.state is State.filled:
                self._tell(What.cancel_too_late, book, order, at_us)

        self.later(self.now_us + delay_us, act)

    # ---- what the market does

    def fill(self, book: Book, order: Order, filled: str, at_us: int, by: str) -> None:
        """Raises an open order's filled quantity to `filled`, at that steady time; a full one closes it. Raises
        `ImpossibleMoveError` unless it is more than has filled and no more than the order.
        """
        total, added = Decimal(filled), Decimal(filled) - Decimal(order.filled)
        if added <= 0 or total > Decimal(order.size):
            raise ImpossibleMoveError(f"filled: {filled} is not between {order.filled} and the size {order.size}")
        number = self._ids.next(self.venue_us() // 1000, 0)
        at_venue_us = self.wall_us - self.now_us + at_us + self._offset_us
        trade = Trade(number, order, _plain(added), at_venue_us)
        book.trades.append(trade)
        if total == Decimal(order.size):
            self.close(book, order, State.filled, at_us, by, order.size, trade)
        else:
            self._change(order, State.partially_filled, filled, at_us, by)
            self._tell(What.partially_filled, book, order, at_us, trade)

    @staticmethod
    def half_of(order: Order) -> str:
        """Half of what is left, on top of what has filled."""
        return _plain((Decimal(order.filled) + Decimal(order.size)) / 2)

    def trigger(self, book: Book, order: Order, at_us: int, by: str) -> Order:
        """Fires an open TP/SL or plan order; returns the normal order it placed, which is live."""
        child = self._put(
            book,
            Entry(
                symbol=order.symbol,
                side=order.side,
                order_type=order.order_type,
                price=order.price,
                size=order.size,
                parent_id=order.order_id,
                by=f"trigger:{order.order_id}",
            ),
        )
        order.child_id = child.order_id
        self.close(book, order, State.triggered, at_us, by)
        self._tell(What.entered, book, child, at_us)
        return child

    def close(
        self,
        book: Book,
        order: Order,
        state: State,
        at_us: int,
        by: str,
        filled: str | None = None,
        trade: Trade | None = None,
    ) -> None:
        """Ends an open order at that steady time; `trade` is the fill that ended it."""
        self._change(order, state, order.filled if filled is None else filled, at_us, by)
        order.is_open = False
        order.settled_us = at_us
        if state is State.cancelled:
            order.cancel_reason = "normal_cancel"
        book.close(order, linger=self._lingers)
        self._tell(WHAT_OF_STATE[state], book, order, at_us, trade)

    def _tell(self, what: What, book: Book, order: Order, at_us: int, trade: Trade | None = None) -> None:
        for observer in self.observers:
            observer(Happening(what, book, order, at_us, trade))

    def _change(self, order: Order, state: State, filled: str, at_us: int, by: str) -> None:
        order.before = (order.state, order.filled, order.updated_us)
        wall_us = self.wall_us - self.now_us + at_us
        order.updated_us = wall_us + self._offset_us
        order.state = state
        order.filled = filled
        order.history += (Change(wall_us, state, filled, by),)

    def _wins_race(self, order: Order) -> bool:
        settings = self.settings
        if settings.race_fill_ids and _listed(order, settings.race_fill_ids):
            return True
        return self._drawn(settings.race_fill)

    def _win_race(self, book: Book, order: Order, at_us: int) -> None:
        """An order fills, a TP/SL or plan order fires, before its cancel takes hold."""
        if order.kind is Kind.order:
            self.fill(book, order, order.size, at_us, "race")
        else:
            self.trigger(book, order, at_us, "race")

    def _part_race(self, book: Book, order: Order, at_us: int) -> None:
        if order.kind is Kind.order and self._drawn(self.settings.race_partial):
            self.fill(book, order, self.half_of(order), at_us, "race")

    def _drawn(self, share: float) -> bool:
        return share > 0.0 and self.rng.random() < share

    # ---- what the venue shows

    def shown_open(self, book: Book, kind: Kind, symbol: str | None, below: int | None) -> Iterator[Order]:
        """The open list as the venue shows it; `seen` tells each one's state there. Newest id first."""
        lag_us = self.settings.open_lag_ms * 1000
        if not lag_us:
            return book.open_orders(kind, symbol, below)
        return book.shown_open(kind, symbol, below, self.now_us - lag_us)

    def shown_closed(self, book: Book, kind: Kind, symbol: str | None, below: int | None) -> Iterator[Order]:
        """The history as the venue shows it. Newest id first."""
        settled_us = self.now_us - self.settings.history_lag_ms * 1000
        created_us = self.venue_us() - self.settings.history_days * DAY_US
        return (
            order
            for order in book.closed_orders(kind, symbol, below)
            if order.settled_us <= settled_us and order.created_us >= created_us
        )

    def seen(self, order: Order, lag_us: int) -> View:
        """An order as of `lag_us` ago, as far as its end goes."""
        if lag_us and not order.is_open and order.settled_us > self.now_us - lag_us:
            return order.before
        return order.state, order.filled, order.updated_us

    def forget(self) -> None:
        """Drops orders, calls, faults and counts; accounts stay."""
        self.books.clear()
        self.calls.clear()
        self.calls_seen = 0
        self._due.clear()
        self.faults.clear()
        self.limiter.forget()
        for forget in self.forgetful:
            forget()


def _listed(order: Order, ids: frozenset[str]) -> bool:
    return order.order_id in ids or order.client_id in ids


def _plain(value: Decimal) -> str:
    return format(value.normalize(), "f")


def order_truth(order: Order, book: Book) -> dict[str, Any]:
    """Everything that is known of one order, as `GET /sim/truth` tells it."""
    return {
        "venue": book.venue,
        "uid": book.uid,
        "kind": order.kind,
        "symbol": order.symbol,
        "order_id": order.order_id,
        "client_id": order.client_id,
        "parent_id": order.parent_id,
        "child_id": order.child_id,
        "state": order.state,
        "open": order.is_open,
        "size": order.size,
        "filled": order.filled,
        "created_us": order.history[0].at_us,
        "closed_us": None if order.settled_us == NEVER_US else order.history[-1].at_us,
        "history": [change._asdict() for change in order.history],
        "cancels": [naming._asdict() for naming in order.namings],
    }
