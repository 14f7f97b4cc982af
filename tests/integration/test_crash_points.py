"""Faults at chosen steps of a cancel's way, poison, and TERM at chosen instants: a sample of what `ops/crash` plays.

The whole matrix is `make crash-points`, two hundred instants of TERM are `make term-instants`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ops import crash_points, term_instants
from ops.crash import poisoned
from ops.crash.cells import Cell, all_cells

pytestmark = [pytest.mark.one_server, pytest.mark.timeout(240)]

SAMPLE = [
    Cell("bitget", "admit.sent", "kill", 50),
    Cell("bitget", "cancel.take-sent", "kill", 50),
    Cell("bitget", "cancel.take-sent", "lost", 1),
    Cell("bitget", "cancel.connect", "stop", 50),
    Cell("bitget", "cancel.send", "stop", 1),
    Cell("bitget", "cancel.written", "kill", 50),
    Cell("bitget", "cancel.judge", "raise", 50),
    Cell("bitget", "cancel.settle-sent", "lost", 50),
    Cell("bitget", "look.answer", "kill", 50),
    Cell("bitget", "look.settle-sent", "raise", 1),
    Cell("bitget", "push.claim-sent", "kill", 50),
    Cell("bitget", "give-back.settle", "kill", 1),
    Cell("bybit", "sweep-cancel.written", "kill", 50),
    Cell("bybit", "cancel.settle", "stop", 1),
    Cell("bingx", "bulk.settle-sent", "lost", 50),
    Cell("bingx", "cancel.written", "kill", 1),
]


async def test_a_fault_at_a_step_loses_doubles_and_invents_nothing(tmp_path: Path) -> None:
    """All of them side by side: most of a cell's time is a lease that has to end."""
    verdicts = await crash_points.run(SAMPLE, tmp_path, at_once=8)
    assert {str(v.cell): v.broken for v in verdicts if v.broken} == {}
    assert [str(v.cell) for v in verdicts if not v.reached] == [], "the fault did not happen"


async def test_intents_that_no_worker_survives_are_parked_and_harm_nobody_else(tmp_path: Path) -> None:
    """One that raises, one that ends the process, one that recurses and one that takes all memory, among fifty."""
    async with crash_points.floor(1) as shared:
        played = await poisoned.play("bitget", shared, 1, tmp_path, batch=50)
    assert not played.broken
    assert played.deaths == poisoned.STRIKES


async def test_term_at_ten_instants_loses_nothing_and_sends_nothing_again(tmp_path: Path) -> None:
    ended = await term_instants.run(10, "of the suite", tmp_path, venues=("bitget", "bybit"))
    assert not [line for one in ended for line in one.broken]
    assert sum(one.instants for one in ended) == 10


def test_the_matrix_is_whole() -> None:
    """Each step with each fault that it can have, alone and in a batch, at each venue."""
    cells = all_cells()
    assert len(cells) == len(set(cells)) == 3 * 2 * (60 * 3 + 19)
    assert set(SAMPLE) <= set(cells)
