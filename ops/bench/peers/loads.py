"""What is asked for when, and the best any desk could do with it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from peers.desk.plan import Step

LOADS = ("burst", "steady", "trickle", "mixed", "recovery")

LIMIT = 10  # calls a second of either endpoint
MOST = 50  # orders of a batch call
CEILING = LIMIT * MOST + LIMIT  # orders a second, both endpoints used
WINDOW_S = 1.0

BURST, MIXED, RECOVERY, RECOVERY_SINGLE = 5_000, 2_000, 1_000, 100
REPEATED = 0.1  # of the mixed burst
URGENT = 20
STEADY_A_SECOND, STEADY_S = 200, 30
TRICKLE_A_SECOND, TRICKLE_S = 5, 10
CAP_S = 60.0  # when a run is ended, done or not
KILL_AT = 0.2  # of the orders done, when a worker is killed


@dataclass(frozen=True, slots=True)
class Load:
    """One load made from a seed. `asks` counts repeats, `orders` does not."""

    name: str
    steps: list[Step]
    orders: list[str]
    best_s: float

    @property
    def asks(self) -> int:
        return sum(len(step.order_ids) for step in self.steps)


def orders_needed(name: str, single: bool, scale: float) -> int:
    """How many live orders a load takes. The recovery of a row that cancels one by one is shorter: with a call each
    it could not finish a longer one in its minute even if nobody died."""
    match name:
        case "burst":
            wanted = BURST
        case "steady":
            wanted = STEADY_A_SECOND * STEADY_S
        case "trickle":
            wanted = TRICKLE_A_SECOND * TRICKLE_S
        case "mixed":
            wanted = round(MIXED * (1 - REPEATED)) + URGENT
        case _:
            wanted = RECOVERY_SINGLE if single else RECOVERY
    return max(20 + URGENT, round(wanted * scale))


def load(name: str, orders: list[str], rng: Random) -> Load:
    """The load of that name over these orders."""
    match name:
        case "steady":
            steps = _evenly(orders, STEADY_A_SECOND)
        case "trickle":
            steps = _evenly(orders, TRICKLE_A_SECOND)
        case "mixed":
            steps = _mixed(orders, rng)
        case _:
            steps = [Step(0, orders, False)]
    return Load(name, steps, orders, best_s(steps))


def best_s(steps: list[Step]) -> float:
    """The least time from the first ask to the last order at the venue's door, by the limits alone: no network, no
    program, both endpoints always full, in every window as early as it allows."""
    by_time: dict[int, int] = {}
    seen: set[str] = set()
    for step in steps:
        fresh = set(step.order_ids) - seen
        seen |= fresh
        by_time[step.at_us] = by_time.get(step.at_us, 0) + len(fresh)
    if len(by_time) == 1:
        return (-(-len(seen) // CEILING) - 1) * WINDOW_S
    # Spread loads stay below the ceiling: the last order can be there when it is asked for.
    return max(by_time) / 1e6


def _evenly(orders: list[str], a_second: int) -> list[Step]:
    return [Step(number * 1_000_000 // a_second, [order_id], False) for number, order_id in enumerate(orders)]


def _mixed(orders: list[str], rng: Random) -> list[Step]:
    bulk, urgent = orders[:-URGENT], orders[-URGENT:]
    asked = list(bulk)
    for order_id in rng.sample(bulk, round(len(bulk) * REPEATED / (1 - REPEATED))):
        asked.insert(rng.randrange(asked.index(order_id) + 1, len(asked) + 1), order_id)
    return [Step(0, asked, False), Step(0, urgent, True)]
