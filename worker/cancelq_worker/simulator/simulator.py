"""The simulated venues in one object: calls go in, replies come out, and the truth can be asked at any
time.
"""

import random
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

from cancelq_worker.simulator.bingx.venue import Bingx
from cancelq_worker.simulator.bitget.venue import Bitget
from cancelq_worker.simulator.bybit.venue import Bybit
from cancelq_worker.simulator.clock import Clock, SystemClock
from cancelq_worker.simulator.core import (
    Call,
    Core,
    Entry,
    ImpossibleMoveError,
    Request,
    Venue,
    order_truth,
)
from cancelq_worker.simulator.faults import Fault, Reply
from cancelq_worker.simulator.orders import Account, Book, Kind, Order, State
from cancelq_worker.simulator.settings import Settings
from cancelq_worker.simulator.streams.hub import Hub

DEMO_KEY = "sim-key"
DEMO_SECRET = "sim-secret"
DEMO_PASSPHRASE = "sim-pass"
DEMO_UID = "1000"

NOT_FOUND = b'{"error":"no venue has such a path"}'


class UnknownVenueError(Exception):
    """No such venue is simulated; the message lists the ones that are."""


class UnknownOrderError(Exception):
    """No such order is in the account."""


class UnknownPairError(Exception):
    """The venue does not trade the pair; the message names it."""


class Page(NamedTuple):
    """A part of a growing list. Ask again with `after=next`; `dropped` entries are gone for good."""

    entries: list[dict[str, Any]]
    next: int
    dropped: int


class Simulator:
    """The venues, from the outside.

    `call` answers one call that arrives now; everything else is for whoever prepares, disturbs and checks a
    rehearsal. Not thread-safe; all of it belongs in one thread.

    There is always one account at each, key `sim-key`, secret `sim-secret`, UID `1000`, at Bitget with the passphrase
    `sim-pass`.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._initial = settings or Settings()
        self.core = Core(clock or SystemClock(), rng or random.Random(), self._initial)
        self.venues: dict[str, Venue] = {}
        self._routes: dict[tuple[str, bytes], Venue] = {}
        self._add_venue(Bitget(self.core))
        self._add_venue(Bybit(self.core))
        self._add_venue(Bingx(self.core))
        self.streams = Hub(self.core, self.venues)
        for bucket, rule in self.streams.rules().items():
            self.core.limiter.declare(bucket, rule)
        self.core.limiter.override(self._initial.limits)
        for venue in self.venues:
            self.add_account(Account(venue, DEMO_KEY, DEMO_SECRET, DEMO_PASSPHRASE, DEMO_UID))

    def _add_venue(self, venue: Venue) -> None:
        self.venues[venue.name] = venue
        self._routes.update(dict.fromkeys(venue.paths, venue))
        for bucket, rule in venue.rules().items():
            self.core.limiter.declare(bucket, rule)

    # ---- as a client sees it

    def call(self, request: Request) -> Reply:
        """Executes a call that arrives now. Whoever delivers the reply obeys its delivery, delay and
        `resume`.
        """
        self.core.tick()
        venue = self._routes.get((request.method, request.path))
        if venue is not None:
            return venue.answer(
                request, self.core.log(venue.name, request.path.decode("latin-1"), request.method, request.ip)
            )
        for venue in self.venues.values():
            if request.path.startswith(venue.prefix):
                return venue.lost(request)
        return Reply(404, NOT_FOUND)

    def way_in_s(self) -> float:
        """Draws how long a call is on its way to the venue."""
        return self._drawn_s(*self.core.settings.latency_before_ms)

    def way_out_s(self) -> float:
        """Draws how long an answer is on its way back."""
        return self._drawn_s(*self.core.settings.latency_after_ms)

    def _drawn_s(self, lowest_ms: float, highest_ms: float) -> float:
        return self.core.rng.uniform(lowest_ms, highest_ms) / 1000 if highest_ms else 0.0

    # ---- preparing

    def add_account(self, account: Account) -> None:
        """Adds a key, or replaces it. Raises `UnknownVenueError`."""
        self._venue(account.venue)
        self.core.accounts[account.venue, account.key] = account

    def configure(self, changes: Mapping[str, Any]) -> Settings:
        """Changes some settings and returns all. Raises pydantic's `ValidationError` or
        `UnknownBucketError`.
        """
        settings = Settings.model_validate({**self.core.settings.model_dump(), **changes})
        self.core.limiter.override(settings.limits)
        self.core.configure(settings)
        return settings

    def add_order(
        self,
        entry: Entry,
        *,
        venue: str = "bitget",
        uid: str = DEMO_UID,
        state: State = State.live,
        filled: str | None = None,
        closed_ms: int | None = None,
    ) -> Order:
        """Enters an order in the state wanted.

        `filled` is what had filled before its end (for a partially filled one by default a half), `closed_ms`
        when that end was (venue time; by default right at its creation). Raises `UnknownPairError`,
        `DuplicateOrderError`, `ImpossibleMoveError`.
        """
        self.core.tick()
        self._check_pair(venue, entry.symbol)
        book = self.core.book(venue, uid)
        order = self.core.enter(book, entry)
        if state is not State.live:
            ended_us = order.created_us if closed_ms is None else closed_ms * 1000
            self._move(book, order, state, filled, self.core.steady_at(ended_us))
        elif filled is not None:
            raise ImpossibleMoveError("filled: a live order has none; use partially_filled")
        return order

    def move_order(
        self,
        order_id: str,
        state: State,
        *,
        venue: str = "bitget",
        uid: str = DEMO_UID,
        filled: str | None = None,
    ) -> Order:
        """Lets the market have its way with an open order. Raises `UnknownOrderError`,
        `ImpossibleMoveError`.
        """
        self.core.tick()
        book = self.core.book(venue, uid)
        order = book.by_id.get(order_id)
        if order is None:
            raise UnknownOrderError(f"order_id: the account has no order {order_id}")
        self._move(book, order, state, filled, self.core.now_us)
        return order

    def _move(self, book: Book, order: Order, state: State, filled: str | None, at_us: int) -> None:
        if not order.is_open:
            raise ImpossibleMoveError(f"state: order {order.order_id} has ended as {order.state}")
        normal = order.kind is Kind.order
        match state:
            case State.triggered if not normal:
                self.core.trigger(book, order, at_us, "control")
            case State.filled if normal:
                self.core.fill(book, order, order.size, at_us, "control")
            case State.partially_filled if normal:
                self.core.fill(book, order, filled or self.core.half_of(order), at_us, "control")
            case State.cancelled | State.failed:
                if filled is not None and normal:
                    self.core.fill(book, order, filled, at_us, "control")
                if order.is_open:
                    self.core.close(book, order, state, at_us, "control")
            case _:
                raise ImpossibleMoveError(f"state: an order of kind {order.kind} cannot become {state}")

    def add_fault(self, fault: Fault) -> int:
        """Orders a misbehaviour; returns its number."""
        return self.core.faults.add(fault)

    def reset(self) -> None:
        """Drops orders, calls, faults and counts, and puts the settings back. Accounts stay, and so do the
        connections of order streams.
        """
        self.core.forget()
        self.core.configure(self._initial)
        self.core.limiter.override(self._initial.limits)
        self.streams.forget()

    def drop_streams(self, venue: str | None = None) -> int:
        """Breaks all connections of private order streams, or those of one venue; returns how many there were. Raises
        `UnknownVenueError`.
        """
        return self.streams.drop(None if venue is None else self._venue(venue).name)

    def tick(self) -> None:
        """Does what is due by the clock; only needed where nothing else looks at it: a clock that was moved."""
        self.core.tick()

    # ---- checking

    def truth(
        self, *, venue: str | None = None, uid: str | None = None, after: int = 0, limit: int | None = None
    ) -> Page:
        """Orders in the order they were entered, account by account, with state, history and the cancel calls
        that named them. `after` is the `next` of the page before.
        """
        self.core.tick()
        entries: list[dict[str, Any]] = []
        passed = 0
        for (of_venue, of_uid), book in sorted(self.core.books.items()):
            if venue not in (None, of_venue) or uid not in (None, of_uid):
                continue
            first = max(0, after - passed)
            last = None if limit is None else first + limit - len(entries)
            entries += [order_truth(order, book) for order in book.orders[first:last]]
            passed += len(book.orders)
        return Page(entries, after + len(entries), 0)

    def truth_of(self, order_ids: Iterable[str], *, venue: str = "bitget", uid: str = DEMO_UID) -> Page:
        """The same for some orders; those that are not known are left out."""
        self.core.tick()
        book = self.core.book(venue, uid)
        orders = [book.by_id[order_id] for order_id in order_ids if order_id in book.by_id]
        return Page([order_truth(order, book) for order in orders], len(orders), 0)

    def calls(self, *, after: int = 0, limit: int | None = None) -> Page:
        """The call log, refused calls included, from the first one behind number `after`."""
        log = self.core.calls
        first = log[0].seq if log else self.core.calls_seen + 1
        skip = max(0, after + 1 - first)
        part = [_call_entry(call) for call in islice(log, skip, None if limit is None else skip + limit)]
        following = part[-1]["seq"] if part else max(after, first - 1)
        return Page(part, following, max(0, first - 1 - after))

    def rates(self) -> list[dict[str, Any]]:
        """Per bucket and owner: the limit, and the most units admitted and arrived within any one window."""
        return [
            {
                "bucket": bucket,
                "owner": owner,
                "limit": window.rule.limit,
                "window_ms": window.rule.span_us // 1000,
                "admitted": window.admitted,
                "refused": window.refused,
                "worst_admitted": window.worst,
                "worst_arrived": window.arrived_worst,
            }
            for bucket, owner, window in self.core.limiter.windows()
        ]

    def _venue(self, name: str) -> Venue:
        venue = self.venues.get(name)
        if venue is None:
            raise UnknownVenueError(f"venue: no {name!r}; there are {', '.join(self.venues)}")
        return venue

    def _check_pair(self, venue: str, symbol: str) -> None:
        spell = self._venue(venue).spell
        split = (pair.split("-") for pair in self.core.settings.pairs)
        if not any(spell(base, quote) == symbol for base, quote in split):
            raise UnknownPairError(f"symbol: {venue} does not trade {symbol}; see the setting `pairs`")


def _call_entry(call: Call) -> dict[str, Any]:
    return {
        "seq": call.seq,
        "at_us": call.at_us,
        "steady_us": call.steady_us,
        "venue": call.venue,
        "endpoint": call.endpoint,
        "method": call.method,
        "ip": call.ip,
        "uid": call.uid,
        "symbol": call.symbol,
        "ids": list(call.ids),
        "code": call.code,
        "http_status": call.http_status,
        "refused": call.refused,
        "executed": call.executed,
        "failed_items": call.failed_items,
        "fault": call.fault,
    }
