"""What a lane is made of, and what its calls leave behind."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field

from websockets.asyncio.client import connect

from cancelq_worker.clocks import Pace, RemoteClock
from cancelq_worker.egress import Egress, Ticket
from cancelq_worker.egress_stock import LONGEST_CALL_US
from cancelq_worker.http import Door
from cancelq_worker.ledger import Ledger
from cancelq_worker.metrics import LaneMetrics
from cancelq_worker.records import Batch, LanePlan, Settlement
from cancelq_worker.rounds import Rounds
from cancelq_worker.rulings import Finish
from cancelq_worker.state import Work
from cancelq_worker.streaming import OpenSocket
from cancelq_worker.suspects import Suspects
from cancelq_worker.venues.port import Route, Venue
from cancelq_worker.verdict import Judge

SEND_BY_MS = 500  # a call that has not left by then gives its permit back
MARGIN_MS = 2_000  # between the longest call and the end of its lease
# Connections to a host that are open before anybody needs them: a lane's burst is a few calls at once, and many lanes
# may have to cancel at the same moment. Looks may wait.
CANCELS_A_LANE, CANCELS_MOST, LOOKS_MOST = 4, 16, 4


@dataclass(frozen=True, slots=True)
class LaneParts:
    """What a lane is made of."""

    plan: LanePlan
    ledger: Ledger
    venue: Venue
    judge: Judge
    cancel_door: Door
    look_door: Door
    venue_clock: RemoteClock
    redis_clock: RemoteClock
    egress: Egress
    worker: str
    tag: str  # short and unique to this process: batch ids begin with it
    time_pace: Pace  # how often the lanes of one host may ask for its time
    time_lock: asyncio.Lock
    metrics: LaneMetrics
    suspects: Suspects
    rounds: Rounds
    new_key: bool = False  # another key than before: a lane that was held for that one is to be tried
    allow_withdraw_key: bool = False
    ws_url: str | None = None
    tls: ssl.SSLContext | None = None
    open_socket: OpenSocket = connect  # for the order stream

    @property
    def total_s(self) -> float:
        """The longest a call may take, so that its lease outlives it, and its unit of our address' limits."""
        return min(self.plan.lease_us // 1000 - SEND_BY_MS - MARGIN_MS, LONGEST_CALL_US // 1000) / 1000

    def kept_open(self, lanes: int) -> tuple[tuple[Door, int], ...]:
        """How many connections of each door are open before they are needed, for so many lanes of its host."""
        return (
            (self.cancel_door, min(CANCELS_MOST, CANCELS_A_LANE * lanes)),
            (self.look_door, min(LOOKS_MOST, lanes)),
        )


@dataclass(slots=True)
class Outcome:
    """A call's settlement, waiting for its round. `answered_ns`: when the venue answered or was given up."""

    settlement: Settlement
    answered_ns: int
    ended: dict[str, Finish] = field(default_factory=dict)
    tries: int = 0

    @property
    def unsent(self) -> bool:
        """Whether its call never left, or not all of it: without an answer, and surely not executed."""
        permit = self.settlement.permit
        return permit is not None and permit.how in ("u", "n") and not self.settlement.sent

    @property
    def urgent(self) -> bool:
        """Whether something urgent goes on with it."""
        return any(w.work.before.urgent for w in self.settlement.works)


@dataclass(frozen=True, slots=True)
class Call:
    """A batch on its way: its intents by order, when it was asked for and when it was granted."""

    batch: Batch
    route: Route
    groups: list[list[Work]]
    ticket: Ticket
    asked_ns: int
    back_ns: int

    @classmethod
    def of(cls, batch: Batch, route: Route, ticket: Ticket, asked_ns: int, back_ns: int) -> Call:
        """The call that carries a batch. Intents that name one order travel as one item."""
        return cls(batch, route, _by_order(batch.works), ticket, asked_ns, back_ns)


def _by_order(works: list[Work]) -> list[list[Work]]:
    """Intents that name one order travel as one item."""
    groups: list[list[Work]] = []
    at: dict[str, list[Work]] = {}
    for work in works:
        orders = work.before.orders
        group: list[Work] | None = None
        for key in orders:
            group = group or at.get(key)
        if group is None:
            group = []
            groups.append(group)
        group.append(work)
        for key in orders:
            at[key] = group
    return groups
