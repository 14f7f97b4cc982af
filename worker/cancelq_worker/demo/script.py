"""The form of what the demo sends: orders the simulated venues start with, entries, and who sends them.

Orders are named by their position in their lane's part, as their ids are the venue's to give.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from itertools import count

from cancelq.contract import Lane, Status
from cancelq_worker.demo.markets import Market

# How far the order of cancels strays from the order in which the orders were made, as a share of all of them.
DISORDER = 0.01


class Producer(StrEnum):
    """Who sends. All begin together; `hedge` takes its time, the others send at once what they have."""

    grid = "grid"
    maker = "maker"
    desk = "desk"  # plain XADD without the client package, as from any language
    hedge = "hedge"


SHARES = {Producer.grid: 3, Producer.maker: 3, Producer.desk: 2, Producer.hedge: 2}


@dataclass(frozen=True, slots=True)
class VenueOrder:
    """An order the venue starts with, in the words of `POST /sim/orders`."""

    symbol: str
    kind: str = "order"
    state: str = "live"
    client_id: str = ""
    # How long ago it was made.
    age_ms: int = 0
    # It fills while its cancel is on the way.
    fills_first: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """One entry to be sent, and what has to come of it. Times count from when it is sent.

    `names`: the order whose id goes into `order_id`; `orders`: what it may close; `spared`: what it must leave.
    `says`: what the final event's detail has to hold. `repeats`: its id was used before, and `differs` if with
    another content. `after`: it is sent once that id has its outcome.
    """

    kind: str
    expected: Status
    fields: dict[str, str]
    names: int | None = None
    orders: tuple[int, ...] = ()
    spared: tuple[int, ...] = ()
    says: str = ""
    not_before_in_ms: int | None = None
    expires_in_ms: int | None = None
    older_than_age_ms: int | None = None
    repeats: bool = False
    differs: bool = False
    after: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """All that will be sent on one lane, by producer and in their order. `made`: positions of the orders, oldest
    first."""

    market: Market
    orders: list[VenueOrder]
    made: list[int]
    asks: dict[Producer, list[Ask]]

    @property
    def lane(self) -> Lane:
        return self.market.lane

    @property
    def size(self) -> int:
        return sum(map(len, self.asks.values()))


@dataclass(frozen=True, slots=True)
class Trouble:
    """So many calls of an endpoint (`venue/name`) that the venue answers badly, in the words of `POST /sim/faults`."""

    kind: str
    endpoint: str
    count: int


@dataclass(frozen=True, slots=True)
class Script:
    """The parts of all lanes, and how the venues will misbehave meanwhile."""

    parts: tuple[Part, ...]
    troubles: tuple[Trouble, ...]

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def lanes(self) -> tuple[Lane, ...]:
        return tuple(part.lane for part in self.parts)


class Writer:
    """Takes the orders and asks of one lane in, and deals the asks out to the producers."""

    def __init__(self, market: Market, rng: random.Random, entries: int) -> None:
        self.market = market
        self.rng = rng
        self.entries = entries
        self.written = 0
        self._orders: list[VenueOrder] = []
        self._made: list[float] = []
        self._groups: dict[Producer, list[tuple[float, tuple[Ask, ...]]]] = {who: [] for who in Producer}
        self._numbers = count(1)

    def number(self) -> int:
        """One that was not given out before."""
        return next(self._numbers)

    def order(self, order: VenueOrder) -> int:
        """Puts an order into the venue's book; returns its position."""
        self._orders.append(order)
        self._made.append(0.0)
        return len(self._orders) - 1

    def send(self, *asks: Ask, by: Producer | None = None, place: float | None = None) -> None:
        """Gives asks to one producer (any, if none is named), to be sent in this order.

        `place`: when, from 0 (among its first) to 1 (at its end); any time, if left out.
        """
        producer = by or self.rng.choices(tuple(SHARES), tuple(SHARES.values()))[0]
        at = self.rng.random() if place is None else place
        self._groups[producer].append((at, asks))
        self.written += len(asks)
        # A desk cancels what it placed first, more or less; who keeps trading has the youngest orders.
        made = at + self.rng.gauss(0, DISORDER) + (producer is Producer.hedge)
        for position in {p for ask in asks for p in (*ask.orders, *ask.spared)}:
            self._made[position] = made

    def part(self) -> Part:
        """What was written, each producer's in the order of its places."""
        asks = {
            producer: [ask for _, group in sorted(groups, key=lambda placed: placed[0]) for ask in group]
            for producer, groups in self._groups.items()
        }
        made = sorted(range(len(self._orders)), key=self._made.__getitem__)
        return Part(self.market, self._orders, made, asks)
