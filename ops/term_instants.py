"""TERM at many random instants, over all venues: 0 lost, 0 sent again, every exit in time.

    make term-instants INSTANTS=200 SEED=7

How one instant is played is told in `ops/crash/term.py`. The exit status is 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ops.crash import term
from ops.crash.cells import VENUES
from ops.crash_points import floor

DESKS = 6  # at once, two for each venue


async def run(instants: int, seed: str, folder: Path, *, venues: Sequence[str] = VENUES) -> list[term.Ended]:
    """The instants, shared by a desk for each of the venues named."""
    async with floor(len(venues)) as shared:
        jobs = []
        for n, venue in enumerate(venues):
            place = folder / str(n)
            place.mkdir(parents=True)
            share = (instants + n) // len(venues)
            jobs.append(term.play(venue, shared, n + 1, place, instants=share, seed=f"{seed} {n}"))
        return await asyncio.gather(*jobs)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--instants", type=int, default=200)
    parser.add_argument("--seed", default="", help="default: a new one, which is told")
    asked = parser.parse_args()
    seed = asked.seed or str(random.SystemRandom().randrange(10**6))
    folder = Path(tempfile.mkdtemp(prefix="cancelq-term-"))
    print(f"seed {seed}", flush=True)
    begun_s = time.monotonic()
    ended = asyncio.run(run(asked.instants, seed, folder, venues=[VENUES[n % len(VENUES)] for n in range(DESKS)]))
    broken = [line for one in ended for line in one.broken]
    asked_for = sum(len(one.desk.acknowledged) for one in ended)
    print(
        f"{sum(one.instants for one in ended)} instants, {asked_for} intents in {time.monotonic() - begun_s:.0f} s: "
        f"{len(broken)} broken promises; the slowest exit took {max(one.slowest_s for one in ended):.1f} s"
    )
    print("\n".join([*broken[:60], f"seed {seed}, logs in {folder}"]))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
