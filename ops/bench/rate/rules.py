"""What each venue counts, and how the windows of a run compare with it.

Limits: the venues' documentation (Bitget spot trade pages and rate limit page; Bybit v5 rate limit page; BingX spot
trade pages, of whose editions the lower figures are taken, and its support page on limits per address).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

SECOND_US = 1_000_000

#: Units in a sliding second, per account and endpoint. Bybit's batch counts one unit for each order in it.
ENDPOINTS: Mapping[str, Mapping[str, int]] = {
    "bitget": {
        "cancel-order": 10,
        "batch-cancel-order": 10,
        "cancel-symbol-order": 5,
        "orderInfo": 20,
        "unfilled-orders": 20,
        "history-orders": 20,
        "current-plan-order": 20,
        "history-plan-order": 20,
    },
    "bybit": {"cancel": 20, "cancel-batch": 20, "cancel-all": 20, "realtime": 50, "history": 50},
    "bingx": {
        "cancel": 5,
        "cancelOrders": 2,
        "cancelOpenOrders": 2,
        "query": 10,
        "openOrders": 10,
        "historyOrders": 10,
    },
}
#: The calls that make orders end; the rest are looks.
CANCELS = ("cancel-order", "batch-cancel-order", "cancel", "cancel-batch", "cancelOrders")

_BINGX_CANCELS = ("cancel", "cancelOrders", "cancelOpenOrders")
_BINGX_LOOKS = ("query", "openOrders", "historyOrders")


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit. `endpoints` None: every call of the venue; `per_account` False: all accounts of the address."""

    name: str
    venue: str
    endpoints: tuple[str, ...] | None
    units: int
    window_us: int
    per_account: bool
    per_order: bool = False

    def covers(self, venue: str, endpoint: str) -> bool:
        return venue == self.venue and (self.endpoints is None or endpoint in self.endpoints)

    def cost(self, orders: int) -> int:
        return orders if self.per_order else 1


def rules(sizes: Mapping[str, Mapping[str, int]]) -> list[Rule]:
    """Every limit of the three venues. `sizes`: venue → endpoint or rule name → units, where a run has others."""
    found = []
    for venue, limits in ENDPOINTS.items():
        own = sizes.get(venue, {})
        for name, units in limits.items():
            per_order = name == "cancel-batch"
            found.append(Rule(name, venue, (name,), own.get(name, units), SECOND_US, True, per_order))
        for rule in _address_rules(venue):
            units = own.get(rule.name, rule.units)
            found.append(Rule(rule.name, venue, rule.endpoints, units, rule.window_us, False))
    return found


def _address_rules(venue: str) -> list[Rule]:
    if venue == "bitget":
        return [
            Rule("ip", venue, None, 6000, 60 * SECOND_US, False),
            Rule("ip-time", venue, ("time",), 20, SECOND_US, False),
        ]
    if venue == "bybit":
        return [Rule("ip", venue, None, 600, 5 * SECOND_US, False)]
    groups = {"ip-group-2": _BINGX_LOOKS, "ip-group-3": _BINGX_CANCELS}
    shared = [Rule(name, venue, ends, 2000, 10 * SECOND_US, False) for name, ends in groups.items()]
    each = [Rule(f"ip-{end}", venue, (end,), 300, 10 * SECOND_US, False) for end in ENDPOINTS[venue]]
    return [*shared, *each]


@dataclass(frozen=True, slots=True)
class Arrival:
    """One call as the venue saw it. `read_us`, `at_us`, `back_us`: this machine's steady clock when the request was
    read, when it stood at the door, and when its answer was written (0: never); `venue_us`: at the door by the
    venue's clock. `word`: `ok`, `over`, `part` (some orders of a batch were over), `refused` or `banned` (for a
    reason of the run's own)."""

    number: int
    door: int
    read_us: int
    at_us: int
    venue_us: int
    back_us: int
    venue: str
    endpoint: str
    account: str
    word: str
    ids: tuple[str, ...]

    @property
    def is_cancel(self) -> bool:
        return self.endpoint in CANCELS


@dataclass(frozen=True, slots=True)
class Over:
    """A call that came too early by `early_us`: the oldest one it may not share a window with is `behind`."""

    arrival: Arrival
    behind: Arrival
    early_us: int


@dataclass(slots=True)
class Window:
    """What became of one limit. `worst`: the most units in any window; `used`: what was called after the first window,
    of what the limit allows in that time (None for a run no longer than a window). `waits_ms`: for each call, how long
    after the answer of the one that made room for it it was sent, less the window: below zero by what a shortest round
    trip allows, above by what was lost; sorted."""

    rule: Rule
    account: str
    calls: int
    units: int
    worst: int
    used: float | None
    waits_ms: list[float]
    over: list[Over] = field(default_factory=list)


def windows(arrivals: Iterable[Arrival], limits: Sequence[Rule]) -> list[Window]:
    """Each limit that something was counted in, over every sliding window; refused calls count as well."""
    found: dict[tuple[int, str], list[Arrival]] = {}
    for arrival in arrivals:
        for index, rule in enumerate(limits):
            if rule.covers(arrival.venue, arrival.endpoint):
                account = arrival.account if rule.per_account else "*"
                found.setdefault((index, account), []).append(arrival)
    return [_window(limits[index], account, rows) for (index, account), rows in sorted(found.items())]


def _window(rule: Rule, account: str, rows: list[Arrival]) -> Window:
    rows = sorted(rows, key=lambda row: row.venue_us)
    times: list[int] = []  # one entry a unit
    owners: list[Arrival] = []
    worst, over, waits_ms = 0, [], []
    for row in rows:
        cost = rule.cost(len(row.ids))
        times += [row.venue_us] * cost
        owners += [row] * cost
        first = bisect_left(times, row.venue_us - rule.window_us + 1)
        worst = max(worst, len(times) - first)
        if len(times) - first > rule.units:
            behind = len(times) - rule.units - 1
            over.append(Over(row, owners[behind], rule.window_us - (row.venue_us - times[behind])))
        before = len(times) - rule.units - 1
        if before >= 0 and owners[before].back_us:
            waits_ms.append((row.read_us - owners[before].back_us - rule.window_us) / 1000)
    span_us = rows[-1].venue_us - rows[0].venue_us
    used = None
    if span_us > rule.window_us:
        used = (len(times) - rule.units) * rule.window_us / (rule.units * span_us)
    return Window(rule, account, len(rows), len(times), worst, used, sorted(waits_ms), over)
