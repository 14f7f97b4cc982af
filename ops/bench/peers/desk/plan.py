"""A load as the bench wrote it down: what is asked for when."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from peers.desk.noting import note_asked

PLAN, START = "plan.json", "start"
POLL_S = 0.005

Submit = Callable[[list[str], bool], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Step:
    """Cancels asked for at once, so many µs after the start."""

    at_us: int
    order_ids: list[str]
    urgent: bool


def read_plan() -> list[Step]:
    rows = json.loads((_folder() / PLAN).read_text())
    return [Step(int(row["at_us"]), list(row["order_ids"]), bool(row["urgent"])) for row in rows]


async def starting() -> int:
    """Waits for the bench's sign; when the plan starts, in epoch µs."""
    return await asyncio.to_thread(_start_us, _folder() / START)


async def play(steps: Iterable[Step], submit: Submit, start_us: int) -> None:
    """Submits each step when it is due. It counts as asked for when it was due, also where the producer is late."""
    for step in steps:
        due_us = start_us + step.at_us
        if (left_us := due_us - time.time_ns() // 1000) > 0:
            await asyncio.sleep(left_us / 1e6)
        if step.order_ids:
            note_asked(step.order_ids, due_us, step.urgent)
            await submit(step.order_ids, step.urgent)


def _start_us(sign: Path) -> int:
    while not sign.exists():
        time.sleep(POLL_S)
    return int(sign.read_text())


def _folder() -> Path:
    return Path(os.environ["DESK_FOLDER"])
