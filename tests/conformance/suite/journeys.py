"""One intent, carried by the judge and the adapter through a venue's simulation, on a clock of its own."""

from __future__ import annotations

from collections.abc import Callable

from cancelq.contract import Status
from cancelq_worker.rulings import Finish
from cancelq_worker.venues.port import Answer, Reply, Request, Route, Target
from tests.conformance.suite.dossier import Dossier, Fields, World
from tests.unit.journey import UTC_US, Journey

ASKED_MS = UTC_US // 1000
OLD_MS, NEW_MS = ASKED_MS - 60_000, ASKED_MS + 60_000
MOST_CALLS = 3_000

#: What an order's true state makes of an intent that names it; one that is open still was never cancelled.
TRUE_END = {
    "cancelled": Status.cancelled,
    "filled": Status.filled,
    "triggered": Status.triggered,
    "live": Status.unresolved,
    "partially_filled": Status.unresolved,
}

#: Changes an answer on its way back.
Spoil = Callable[[Request, Answer], Answer]


def travel(dossier: Dossier, world: World, fields: Fields, spoil: Spoil | None = None) -> tuple[Finish, Journey]:
    """How the intent ends."""
    venue = dossier.venue
    journey = Journey(dossier.target(fields), venue=venue)

    def say(route: Route, one: Target) -> Reply:
        world.move_to(UTC_US + journey.now_us)
        request = venue.encode(route, [one])
        said = world.send(venue.sign(request, world.now_ms()))
        (reply,) = venue.decode(route, [one], spoil(request, said) if spoil else said)
        return reply

    return journey.run(say, most=MOST_CALLS), journey
