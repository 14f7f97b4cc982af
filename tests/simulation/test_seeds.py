"""A thousand runs from their seeds, in portions; what broke is told with its seed.

`make sim SEEDS=…` runs more of them, or one again. A seed that found something stays in `test_found.py`.
"""

import pytest

from tests.simulation.run import run
from tests.simulation.world import Plan

PORTIONS, A_PORTION = 40, 25


@pytest.mark.timeout(300)
@pytest.mark.parametrize("portion", range(PORTIONS))
def test_no_promise_is_broken(portion: int) -> None:
    for seed in range(portion * A_PORTION, (portion + 1) * A_PORTION):
        outcome = run(Plan.of(seed, SHORT))
        assert not outcome.broken, f"{outcome}\nagain: {outcome.plan.again()}"
        assert outcome.intents, f"seed {seed} asked for nothing"


#: How long things go wrong, in shares of what a soak's runs take.
SHORT = 0.5
