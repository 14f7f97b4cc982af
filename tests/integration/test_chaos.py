"""A short, seeded run of chaos: real processes, a real server, and every promise judged from the streams alone.

The long version is `make chaos`; both are `ops/chaos/`, and what judges them is `ops/checks/`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ops import chaos

pytestmark = [pytest.mark.one_server, pytest.mark.timeout(180)]


#: So few at BingX that equal errors close none of its endpoints, which would be waited for.
@pytest.mark.parametrize(
    ("venues", "seed", "seconds", "per_s", "kills", "least"),
    [(("bitget", "bybit"), 3, 10.0, 15, 1, 100), (("bingx",), 2, 6.0, 3, 0, 5)],
)
async def test_what_was_accepted_ends_once_and_truly_whatever_fails(
    tmp_path: Path, venues: tuple[str, ...], seed: int, seconds: float, per_s: float, kills: int, least: int
) -> None:
    """An odd seed has the order streams on."""
    world = await chaos.run(seed, seconds, tmp_path, venues=venues, workers=3, per_s=per_s, kills=kills)
    told = chaos.in_words(chaos.figures(world, seed, seconds))
    assert not world.broken, told
    assert sum(len(desk.acknowledged) for desk in world.desks) > least, told
