"""What a judge is given, and what it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from cancelq.contract import Lane
from ops.checks.told import Entry, Told, key_of

Row = Mapping[str, Any]


class Broken(NamedTuple):
    """A promise that did not hold: its number (or a word for what has none) and the case."""

    promise: str
    what: str

    def __str__(self) -> str:
        return f"[{self.promise}] {self.what}"


@dataclass
class Ask:
    """What a producer meant by one intent: the orders it may end, those it must leave alone, whom it revokes, and
    whether it names an order that never was."""

    orders: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()
    target: str = ""
    unknown: bool = False


@dataclass(frozen=True)
class VenueSaid:
    """The venue's own books, in the words of the simulated venues' `/sim/truth`, `/sim/calls` and `/sim/rates`.

    `orders`: every order with `order_id`, `parent_id`, `symbol`, `kind`, `state`, `open`, `filled`, `created_us`,
    `closed_us` and `cancels`, the calls that named it. `calls`: every call with `venue`, `endpoint`, `symbol`,
    `ids`, `code`, the answer's, `executed` and `steady_us`, when it arrived by a clock that never jumps. `rates`:
    per bucket (`venue/endpoint` where it is one endpoint's) `limit`, `window_ms`, `refused` and the most units that
    arrived in any window (`worst_arrived`). `bulk`: the endpoints of calls that cancel all of a pair or account.
    """

    orders: Sequence[Row]
    calls: Sequence[Row] = ()
    rates: Sequence[Row] = ()
    bulk: frozenset[str] = frozenset()

    @cached_property
    def by_id(self) -> dict[str, Row]:
        return {row["order_id"]: row for row in self.orders}

    def of(self, order_ids: Iterable[str]) -> list[Row]:
        """Those of the orders that the venue knows."""
        return [self.by_id[order_id] for order_id in order_ids if order_id in self.by_id]


@dataclass(frozen=True)
class Bounds:
    """What was promised in numbers. `settle_s`: after healing; `clocks_us`: by how much the clocks of the venue and
    of Redis may differ in this run; `send_by_us`: for how long a permit may be used; None: that is not judged."""

    attempts: int = 5
    lookups: int = 160
    settle_s: float = 18.0
    clocks_us: int = 2_000
    send_by_us: int | None = None


@dataclass(frozen=True)
class Case:
    """One lane's run, when it is over.

    `asks`: by `key_of` of the intent's first entry. `acknowledged`: the ids of entries that a producer was told of.
    `healed_us`: when the last fault ended; None: lateness is not judged. `waiting`: ids that are in the lane's books
    when the run gives up waiting for them; what is in none is lost.
    """

    lane: Lane
    told: Told
    asks: Mapping[str, Ask]
    acknowledged: Sequence[str]
    venue: VenueSaid
    bounds: Bounds = field(default_factory=Bounds)
    healed_us: int | None = None
    waiting: frozenset[str] = frozenset()

    def ask_of(self, id_: str) -> Ask | None:
        entries = self.told.intents.get(id_)
        return self.asks.get(key_of(entries[0])) if entries else None

    @cached_property
    def attempts(self) -> Counter[str]:
        """By order: the attempts on record of all intents that may end it."""
        attempts: Counter[str] = Counter()
        for id_, events in self.told.finals.items():
            ask = self.ask_of(id_)
            for order in ask.orders if ask else ():
                attempts[order] += events[-1].attempt or 0
        return attempts

    def first(self, id_: str) -> Entry:
        return self.told.intents[id_][0]
