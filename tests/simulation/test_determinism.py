"""A seed is a run: the same callbacks, the same calls at the same microsecond, the same entries."""

import os
import subprocess
import sys

import pytest

from tests.simulation.run import run
from tests.simulation.world import Plan

SEEDS = (3, 12)


def test_a_seed_gives_the_same_run_twice() -> None:
    for seed in SEEDS:
        first, second = run(Plan.of(seed, 0.5)), run(Plan.of(seed, 0.5))
        assert (first.fingerprint, first.steps, first.notes) == (second.fingerprint, second.steps, second.notes)


@pytest.mark.parametrize("hashes", ["0", "12345"])
def test_a_seed_gives_the_same_run_in_another_process(hashes: str) -> None:
    """Also one that hashes texts otherwise, and has run nothing before."""
    code = (
        "from tests.simulation.run import run\nfrom tests.simulation.world import Plan\n"
        f"for seed in {SEEDS}: print(run(Plan.of(seed, 0.5)).fingerprint)"
    )
    env = {**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=100
    )
    assert told.stdout.split() == [run(Plan.of(seed, 0.5)).fingerprint for seed in SEEDS]


def test_another_seed_is_another_run() -> None:
    assert len({run(Plan.of(seed, 0.5)).fingerprint for seed in SEEDS}) == len(SEEDS)
