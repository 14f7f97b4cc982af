"""`make fuzz`: hostile entries, answers and pushes for as long as asked, each from a number of its own.

    make fuzz ARGS="--inputs 1000000" SEED=7
    make fuzz ARGS="--again answers-bybit-123456" SEED=7      (one input once more)

Ends with 1 if one was read as it must not be; each is printed with the name it is repeated by.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random, SystemRandom

import orjson

from cancelq_worker.embedded import EmbeddedServer
from cancelq_worker.trips import connect
from tests.fuzz import answers, entries
from tests.fuzz.admission import Admission

OUT = Path(__file__).parents[2] / "ops" / "fuzz.json"
SHOWN = 40  # faults that are printed whole
BATCH = 128  # entries of one admission on the server
GROWTH_MOST_MB = 200.0
WEIGHTS = {"answers": 6, "pushes": 1, "asides": 1, "entries": 2}


def main() -> int:
    options = _options()
    seed = SystemRandom().randrange(10**6) if options.seed is None else options.seed
    if options.again:
        part, venue, number = options.again.split("-")
        print(PARTS[part](Random(f"{seed}-{part}-{venue}-{number}"), venue))
        return 0
    print(f"seed {seed}", flush=True)
    soak = Soak(seed)
    soak.run(options.inputs, options.seconds)
    asyncio.run(soak.admit(options.batches))
    print(soak.report())
    if options.keep:
        OUT.write_bytes(orjson.dumps(soak.figures(), option=orjson.OPT_INDENT_2) + b"\n")
    return 1 if soak.faults else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=3_600.0, help="at most")
    parser.add_argument("--batches", type=int, default=100, help=f"admissions of {BATCH} entries on a real server")
    parser.add_argument("--seed", type=int, help="default: a new one, which is told")
    parser.add_argument("--keep", action="store_true", help="also write ops/fuzz.json")
    parser.add_argument("--again", help="an input's name: reads this one alone")
    return parser.parse_args()


def _answer(rng: Random, venue: str) -> Counter[str]:
    return Counter(word.value for word in answers.check(answers.case(rng, answers.VENUES[venue])))


def _push(rng: Random, venue: str) -> Counter[str]:
    dossier = answers.VENUES[venue]
    return Counter({"pushed ends": answers.check_frame(dossier, answers.frame(rng, dossier))})


def _aside(rng: Random, venue: str) -> Counter[str]:
    dossier = answers.VENUES[venue]
    answers.check_aside(dossier, answers.aside(rng, dossier))
    return Counter(["aside"])


def _entry(rng: Random, venue: str) -> Counter[str]:
    return Counter([entries.check(venue, entries.entry(rng))])


PARTS: dict[str, Callable[[Random, str], Counter[str]]] = {
    "answers": _answer,
    "pushes": _push,
    "asides": _aside,
    "entries": _entry,
}


class Soak:
    """What was read so far, and what was read wrongly."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.inputs = 0
        self.faults = 0
        self.of_part: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.slowest: tuple[float, str] = (0.0, "")
        self.took_s = 0.0
        self.grown_mb = 0.0

    def run(self, inputs: int, seconds: float) -> None:
        """Parts and venues in turn, until there were so many inputs, or the time is over."""
        turns = [(part, venue) for part, n in WEIGHTS.items() for venue in answers.VENUES for _ in range(n)]
        began_s, settled_mb = time.monotonic(), 0.0
        while self.inputs < inputs and time.monotonic() - began_s < seconds:
            for part, venue in turns:
                self._one(part, venue)
            if self.inputs == 50 * len(turns):
                settled_mb = _memory_mb()
        self.took_s = time.monotonic() - began_s
        self.grown_mb = _memory_mb() - settled_mb if settled_mb else 0.0
        if self.grown_mb > GROWTH_MOST_MB:
            self._fault("memory", f"it grew by {self.grown_mb:.0f} MB")

    def _one(self, part: str, venue: str) -> None:
        name = f"{part}-{venue}-{self.inputs}"
        began_s = time.perf_counter()
        try:
            self.seen.update(PARTS[part](Random(f"{self.seed}-{name}"), venue))
        except Exception as error:
            said = str(error) if isinstance(error, answers.Broken) else traceback.format_exc()
            self._fault(name, said)
        self.slowest = max(self.slowest, (time.perf_counter() - began_s, name))
        self.inputs += 1
        self.of_part[part] += 1

    async def admit(self, batches: int) -> None:
        """Whole admissions on a server of its own."""
        with EmbeddedServer() as server:
            client = connect(server.url)
            client.response_callbacks.pop("XRANGE", None)
            for venue in answers.VENUES:
                admission, rng = Admission(client, venue), Random(f"{self.seed}-admission-{venue}")
                await admission.open()
                for number in range(batches):
                    try:
                        became = await admission.batch(rng, BATCH)
                        self.seen.update({f"server: {kind}": count for kind, count in became.items()})
                    except Exception:
                        self._fault(f"admission-{venue}-{number}", traceback.format_exc())
                        break
                    await client.xtrim(admission.lane.results, maxlen=0)
                    self.inputs += BATCH
                    self.of_part["entries_on_a_server"] += BATCH
            await client.aclose()

    def _fault(self, name: str, said: str) -> None:
        self.faults += 1
        if self.faults <= SHOWN:
            print(f"FAULT {name}: {said[:3000]}", flush=True)

    def figures(self) -> dict[str, int | float | str]:
        """What a page tells of the run."""
        return {
            "seed": self.seed,
            "inputs": self.inputs,
            **self.of_part,
            "faults": self.faults,
            "seconds": round(self.took_s),
            "slowest_ms": round(self.slowest[0] * 1000),
            "memory_grown_mb": round(self.grown_mb),
        }

    def report(self) -> str:
        """Lines for a person."""
        words = ", ".join(f"{word} {count}" for word, count in sorted(self.seen.items()))
        rate = self.inputs / self.took_s if self.took_s else 0.0
        return (
            f"{self.inputs} inputs in {self.took_s:.0f} s ({rate:.0f} a second), {self.faults} faults; the slowest "
            f"took {self.slowest[0] * 1000:.0f} ms ({self.slowest[1]}); memory grew by {self.grown_mb:.0f} MB\n{words}"
        )


def _memory_mb() -> float:
    """The most this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
