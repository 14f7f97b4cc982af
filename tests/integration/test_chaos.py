"""A short, seeded run of chaos: real processes, a real server, and every promise judged from the streams alone.

The long version is `make chaos`; both are `ops/chaos/`, and what judges them is `ops/checks/`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ops import chaos

pytestmark = [pytest.mark.one_server, pytest.mark.timeout(180)]


@pytest.mark.parametrize(
    ("venues", "seed", "seconds", "kills", "least"),
    [(("bitget",), 2, 6.0, 0, 60), (("bitget", "bybit", "bingx"), 3, 10.0, 1, 150)],
)
async def test_what_was_accepted_ends_once_and_truly_whatever_fails(
    tmp_path: Path, venues: tuple[str, ...], seed: int, seconds: float, kills: int, least: int
) -> None:
    """An odd seed has the order streams on."""
    world = await chaos.run(seed, seconds, tmp_path, venues=venues, workers=3, per_s=15, kills=kills)
    told = chaos.in_words(chaos.figures(world, seed, seconds))
    assert not world.broken, told
    assert sum(len(desk.acknowledged) for desk in world.desks) > least, told
