"""Seeds that found something, each with what it found. They are played as they were; a test of each defect itself
stands where the defect was."""

from dataclasses import replace

import pytest

from tests.simulation.run import run
from tests.simulation.world import Plan


def _plan(seed: int) -> Plan:
    """As a seed's plan was when it was found."""
    return replace(Plan.of(seed), mud=0.0)


FOUND = {
    "the server's clock set ahead by seconds freed permits that were out": Plan.of_rate(3, 15),
    "a look that passed cleared the strikes of a cancel: one intent ended five workers": _plan(1124),
    "a sweep waited twenty seconds to know the venue's time well enough": Plan.of(784, 0.5),
    "after a refusal one call went alone; its worker left, and the others waited twenty seconds for it": Plan.of(25),
    "whoever might not take an intent that had ended two workers put it off, so that nobody met it": Plan.of(480),
    "a thousand orders of which nobody knew were looked for one by one": Plan.of(40001, 3.0, 4.0),
    "the server's clock set ahead was seen where nothing was granted, and forgotten": Plan.of(327414682074, 3.0, 10.0),
    "hundreds that a page had not shown yet were looked for one by one": Plan.of(75000148, 3.0, 10.0),
    "what the key may do was asked twice in a second, as the server's clock was set": Plan.of(996980607802, 3.0, 10.0),
    "the server's clock went ahead while nobody was there to notice it": Plan.of_rate(691801071041),
    "a page that was read before the server lost its tail passed by what stood before it": Plan.of(
        511110595338, 3.0, 10.0
    ),
    "the hold after a restart began only when a permit had become free": Plan.of(511110595293, 3.0, 10.0),
    "scripts were flushed twice within one round": Plan.of(988830221505, 3.0, 10.0),
    "of the simulation: a way to the venue that grows shorter at once": Plan.of(381108769440, 3.0, 10.0),
    "of the simulation: a way that the fleet had known slow only": Plan.of(80000072, 3.0, 10.0),
    "of the simulation: an id whose first entry was lost with the tail means what its repeat means": _plan(5),
    "of the simulation: a bulk call of an intent that was lost with the tail": _plan(169),
    "of the simulation: how old orders are while the server's clock is set": _plan(1102),
}


@pytest.mark.parametrize("what", FOUND)
def test_it_is_mended(what: str) -> None:
    outcome = run(FOUND[what])
    assert not outcome.broken, outcome
