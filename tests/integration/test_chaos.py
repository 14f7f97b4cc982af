"""A short, seeded run of chaos: real processes, a real server, and every promise judged from the streams alone.

The long version is `make chaos`; both are `ops/chaos.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ops import chaos

pytestmark = [pytest.mark.one_server, pytest.mark.timeout(180)]


@pytest.mark.parametrize(
    ("venue", "seed", "per_s", "least"), [("bitget", 2, 25, 100), ("bybit", 3, 10, 40), ("bingx", 5, 5, 20)]
)
async def test_what_was_accepted_ends_once_and_truly_whatever_fails(
    tmp_path: Path, venue: str, seed: int, per_s: float, least: int
) -> None:
    """An odd seed has the order streams on."""
    world = await chaos.run(seed, 10.0, tmp_path, venue=venue, workers=3, per_s=per_s)
    told = chaos.report(world, seed, world.notes)
    assert not world.broken, told
    assert len(world.acknowledged) > least, told
