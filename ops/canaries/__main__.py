"""`python -m ops.canaries`: one run, and what was found."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
from pathlib import Path

from ops import canaries
from ops.canaries.scene import Outcome, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.canaries", description=(canaries.__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long things go wrong")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is told")
    parser.add_argument("--result", type=Path, help="a JSON file for the figures")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="cancelq-canaries-"))
    print(f"seed {seed}; what is left lies in {folder}", flush=True)
    outcome = asyncio.run(_ended_by_term(seed, options.seconds, folder))
    figures = _figures(outcome, seed, options.seconds)
    print(json.dumps(figures, indent=1))
    for find in outcome.finds[:100]:
        print(f"FOUND {find}")
    print(f"seed {seed}: {len(outcome.finds)} finds")
    if options.result:
        options.result.parent.mkdir(parents=True, exist_ok=True)
        options.result.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if outcome.finds else 0


async def _ended_by_term(seed: int, seconds: float, folder: Path) -> Outcome:
    """TERM ends the run like Ctrl-C: what it started is ended, too."""
    running = asyncio.ensure_future(run(seed, seconds, folder))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    return await running


def _figures(outcome: Outcome, seed: int, seconds: float) -> dict[str, object]:
    return {
        "seed": seed,
        "seconds": seconds,
        "intents": outcome.intents,
        "settled": outcome.settled,
        "secrets": len(outcome.canaries),
        "signatures and listen keys": len(outcome.signatures),
        "artefacts and bytes": outcome.sizes(),
        "done": dict(sorted(outcome.done.items())),
        "finds": len(outcome.finds),
    }


if __name__ == "__main__":
    sys.exit(main())
