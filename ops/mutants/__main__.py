"""`make mutants`: breaks the product on purpose, one way after the other, and shows that the suite notices.

    python -m ops.mutants                  all of them
    python -m ops.mutants no-fence …       some
    python -m ops.mutants --list

Each breakage is made in a copy of the tree, where its tests are run. First all of those tests run unbroken: a test that
fails by itself would prove nothing. Exit status 1 if a mutant survives.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ops.mutants import ALL
from ops.mutants.mutant import Mutant
from ops.mutants.trial import LONGEST_S, ROOT, TEST_S, Copy, Verdict


def main() -> int:
    options = _options()
    unknown = set(options.names) - {mutant.name for mutant in ALL}
    if unknown:
        print(f"no such mutant: {', '.join(sorted(unknown))}; see --list", file=sys.stderr)
        return 2
    chosen = [mutant for mutant in ALL if not options.names or mutant.name in options.names]
    if options.list:
        print(*(f"{mutant.name:34} {mutant.harm}" for mutant in chosen), sep="\n")
        return 0
    if flaws := _flaws(chosen):
        print(*flaws, sep="\n", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="cancelq-mutants-") as folder:
        copies = [Copy(Path(folder) / str(number)) for number in range(options.jobs)]
        if not options.unproven and not _sound(copies[0], chosen):
            return 1
        verdicts = _tried(copies, chosen)
    if options.result:
        _keep(options.result, chosen, verdicts)
    print(_table(chosen, verdicts))
    return 0 if all(verdict.caught for verdict in verdicts) else 1


def _flaws(chosen: Sequence[Mutant]) -> list[str]:
    """Mutants that do not fit the product as it is."""
    flaws = []
    for mutant in chosen:
        try:
            mutant.applied((ROOT / mutant.file).read_text())
        except (ValueError, OSError) as flaw:
            flaws.append(str(flaw))
    return flaws


def _sound(copy: Copy, chosen: Sequence[Mutant]) -> bool:
    """Whether the tests pass where nothing is broken; if one fails, all have a second chance."""
    tests = sorted({test for mutant in chosen for test in mutant.tests})
    print(f"unbroken: {len(tests)} selections of tests", flush=True)
    within_s = LONGEST_S + TEST_S * len(tests)  # each has a time-out of its own
    for _ in range(2):
        status, said = copy.tests(tests, stop=False, within_s=within_s)
        if status == 0:
            return True
    print(said[-4000:])
    print("these tests fail without any mutant: nothing can be shown with them")
    return False


def _tried(copies: Sequence[Copy], chosen: Sequence[Mutant]) -> list[Verdict]:
    free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for copy in copies:
        free.put(copy)

    def one(mutant: Mutant) -> Verdict:
        copy = free.get()
        try:
            verdict = copy.tried(mutant)
        finally:
            free.put(copy)
        print(f"{_word(verdict):9} {mutant.name:34} {verdict.took_s:5.1f} s", flush=True)
        if not verdict.caught:
            print(verdict.said)
        return verdict

    with ThreadPoolExecutor(len(copies)) as pool:
        return list(pool.map(one, chosen))


def _word(verdict: Verdict) -> str:
    if not verdict.ran:
        return "NOT RUN"
    return "caught" if verdict.caught else "SURVIVED"


def _table(chosen: Sequence[Mutant], verdicts: Sequence[Verdict]) -> str:
    lines = ["", "| mutant | what it would do | caught by |", "|---|---|---|"]
    for mutant, verdict in zip(chosen, verdicts, strict=True):
        by = f"`{verdict.by.rpartition('/')[2]}`" if verdict.caught else f"**{_word(verdict).lower()}**"
        lines.append(f"| {mutant.name} | {mutant.harm} | {by} |")
    caught = sum(verdict.caught for verdict in verdicts)
    lines += ["", f"{caught} of {len(verdicts)} mutants were caught"]
    return "\n".join(lines)


def _keep(result: Path, chosen: Sequence[Mutant], verdicts: Sequence[Verdict]) -> None:
    rows = [
        {"name": m.name, "file": m.file, "harm": m.harm, "caught": v.caught, "by": v.by, "seconds": round(v.took_s, 1)}
        for m, v in zip(chosen, verdicts, strict=True)
    ]
    found = {"mutants": len(rows), "caught": sum(v.caught for v in verdicts), "rows": rows}
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps(found, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ops.mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="mutants to try (default: all)")
    parser.add_argument("--list", action="store_true", help="the names, and what each would do")
    parser.add_argument("--jobs", type=int, default=2, help="copies of the tree that are used at once")
    parser.add_argument("--unproven", action="store_true", help="leaves out the run without a mutant")
    parser.add_argument("--result", type=Path, help="a JSON file for the verdicts")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
