"""A backlog under the venues' limits on virtual time: never over one, and hardly under it. `make soak-rate`
does the same for a minute each, many times."""

from dataclasses import replace

import pytest

from tests.simulation.run import run
from tests.simulation.world import Plan

SECONDS = 5.0


@pytest.mark.parametrize("seed", range(3))
def test_no_window_sees_more_than_its_limit(seed: int) -> None:
    outcome = run(Plan.of_rate(seed, SECONDS))
    assert not outcome.broken, outcome


@pytest.mark.parametrize("venue", ["bitget", "bybit", "bingx"])
def test_a_backlog_uses_what_it_may(venue: str) -> None:
    seed = next(seed for seed in range(100) if Plan.of_rate(seed, SECONDS).venues == (venue,))
    outcome = run(replace(Plan.of_rate(seed, SECONDS), faults_per_s=0.0, workers=2))
    assert not outcome.broken, outcome
    # Of a minute it is more: the first and the last window weigh less.
    assert outcome.used > 0.8, f"{outcome.used:.1%} of the limit less its reserve"
