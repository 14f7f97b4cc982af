"""`make durability`: all four kinds of harm, on both servers; a table, and `ops/durability.json`."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from structlog.testing import capture_logs

from ops.durability import full, power, torn
from ops.durability.server import KINDS, Missing

PARTS = ("torn", "power", "disk", "memory")
OUT = Path(__file__).parent.parent / "durability.json"
Told = torn.Torn | power.Power | full.Full
Part = tuple[str, Callable[[], Coroutine[Any, Any, Told]]]


def main() -> int:
    options = _options()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    done: list[tuple[str, Told]] = []
    skipped: list[str] = []
    with tempfile.TemporaryDirectory(prefix="cancelq-durability-") as folder:
        for name, part in _parts(options, seed, Path(folder)):
            began_s = time.monotonic()
            try:
                with capture_logs():  # what the workers say to each fault is not what is looked for
                    told = asyncio.run(part())
            except Missing as missing:
                skipped.append(f"{name}: {missing}")
                continue
            done.append((name, told))
            print(*_report(told), f"    {time.monotonic() - began_s:.0f} s", *told.broken[:20], sep="\n", flush=True)
    print(*(f"not run: {why}" for why in skipped), sep="\n")
    rows = [{"part": name, **asdict(told)} for name, told in done]
    if options.keep:
        kept = {"seed": seed, "skipped": skipped, "parts": rows}
        OUT.write_bytes(orjson.dumps(kept, option=orjson.OPT_INDENT_2) + b"\n")
    return 1 if any(told.broken for _, told in done) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="durability", description=__doc__)
    parser.add_argument("--parts", type=_words(PARTS), default=PARTS, help=f"comma list of {', '.join(PARTS)}")
    parser.add_argument("--servers", type=_words(KINDS), default=KINDS, help=f"comma list of {', '.join(KINDS)}")
    parser.add_argument("--seed", type=int, help="default: a new one, which is told")
    parser.add_argument("--cuts", type=int, default=1000, help="torn: cuts of each server's file")
    parser.add_argument("--resumed", type=int, default=10, help="torn: how many of them are served to their end")
    parser.add_argument("--intents", type=int, default=120, help="torn: intents a lane")
    parser.add_argument("--seconds", type=float, default=10.0, help="power: how long is queued and served")
    parser.add_argument("--moments", type=int, default=40, help="power: cuts that are loaded")
    parser.add_argument("--waiting", type=int, default=500, help="memory: intents that wait when it is full")
    parser.add_argument("--keep", action="store_true", help=f"also write {OUT.name}")
    return parser.parse_args()


def _words(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        words = tuple(text.split(","))
        if not set(words) <= set(known):
            raise argparse.ArgumentTypeError(f"{text}: there are {', '.join(known)}")
        return words

    return parse


def _parts(options: argparse.Namespace, seed: int, folder: Path) -> list[Part]:
    """What is to be run, in order; each makes its own servers and ends them."""
    parts: list[Part] = []
    torn_of = {"cuts": options.cuts, "resumed": options.resumed, "intents": options.intents}
    power_of = {"seconds": options.seconds, "moments": options.moments}
    for kind in options.servers:
        place = folder / kind
        place.mkdir()
        parts.append((f"torn {kind}", partial(torn.run, kind, place, seed=seed, **torn_of)))
        for fsync in ("always", "everysec"):
            parts.append((f"power {kind} {fsync}", partial(power.run, kind, place, fsync, seed=seed, **power_of)))
            parts.append((f"disk {kind} {fsync}", partial(full.disk, kind, place, fsync, seed=seed)))
        parts.append((f"memory {kind}", partial(full.memory, kind, place, seed=seed, waiting=options.waiting)))
    return [(name, part) for name, part in parts if name.split()[0] in options.parts]


def _report(told: Told) -> list[str]:
    match told:
        case torn.Torn():
            return torn.report([told])
        case power.Power():
            return power.report([told])
        case full.Full():
            return full.report([told])


if __name__ == "__main__":
    sys.exit(main())
