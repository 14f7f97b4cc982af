"""The oracles by venue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cancelq_worker.venues.port import Answer
from tests.fuzz import oracle_bingx, oracle_bitget, oracle_bybit
from tests.fuzz.oracle import Listed, Stated
from tests.fuzz.question import Question


@dataclass(frozen=True, slots=True)
class Oracle:
    """What a venue's answers, lists and pushes state. `refused`: codes by which it says that it knows no such order."""

    stated: Callable[[Question, Answer], list[Stated]]
    listed: Callable[[Question, Answer], Listed]
    pushed: Callable[[dict[str, Any]], dict[str, Stated]]
    refused: frozenset[str] = frozenset()


ORACLES = {
    "bitget": Oracle(oracle_bitget.stated, oracle_bitget.listed, oracle_bitget.pushed),
    "bybit": Oracle(oracle_bybit.stated, oracle_bybit.listed, oracle_bybit.pushed, oracle_bybit.UNKNOWN),
    "bingx": Oracle(oracle_bingx.stated, oracle_bingx.listed, oracle_bingx.pushed),
}
