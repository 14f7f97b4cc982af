"""A thousand runs from their seeds, in portions; what broke is told with its seed.

`make sim SEEDS=…` runs more of them, or one again. A seed that found something stays in `test_found.py`.
"""

import pytest

from tests.simulation.run import run
from tests.simulation.world import Plan

PORTIONS, A_PORTION = 40, 25
SHORT = 0.5  # of the time in which things go wrong in a soak's runs


@pytest.mark.timeout(300)
@pytest.mark.parametrize("portion", range(PORTIONS))
def test_no_promise_is_broken(portion: int) -> None:
    outcomes = [run(Plan.of(seed, SHORT)) for seed in range(portion * A_PORTION, (portion + 1) * A_PORTION)]
    told = [f"{outcome}\nagain: {outcome.plan.again()}" for outcome in outcomes if outcome.broken]
    assert not told, "\n".join(told)
    assert all(outcome.intents and outcome.calls for outcome in outcomes), "a run in which nothing happened"
