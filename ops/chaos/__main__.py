"""`python -m ops.chaos`: one run, told and kept."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
from pathlib import Path

from ops import chaos
from ops.chaos.places import PLACES
from ops.chaos.world import World


def main() -> int:
    options = _options()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    venues = sorted(PLACES) if options.venue == "all" else [options.venue]
    folder = Path(tempfile.mkdtemp(prefix="cancelq-chaos-"))
    print(f"seed {seed}; logs in {folder}", flush=True)
    world = asyncio.run(_run(options, seed, venues, folder))
    found = chaos.figures(world, seed, options.seconds)
    print(chaos.in_words(found))
    if options.result:
        options.result.parent.mkdir(parents=True, exist_ok=True)
        options.result.write_text(json.dumps(found, indent=1) + "\n")
        print(f"figures in {options.result}")
    return 1 if world.broken else 0


async def _run(options: argparse.Namespace, seed: int, venues: list[str], folder: Path) -> World:
    """One run; TERM ends it with everything it started."""
    task = asyncio.current_task()
    assert task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await chaos.run(
        seed, options.seconds, folder, venues=venues, workers=options.workers, per_s=options.rate, kills=options.kills
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ops.chaos", description=(chaos.__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="how long things go wrong")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is told")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--rate", type=float, default=None, help="intents a second (default: what the venue can take)")
    parser.add_argument("--venue", choices=[*sorted(PLACES), "all"], default="all")
    parser.add_argument("--kills", type=int, default=3, help="after it healed: workers killed to see who takes over")
    parser.add_argument("--result", type=Path, help="a JSON file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
