"""Orders whose end is known: the intents that name them are ended, whatever else is in a call just then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from cancelq_worker.order_ends import ORDERS, OrderEnds
from cancelq_worker.state import Work
from cancelq_worker.venues.port import Push, Reply, Word


class Claims:
    """A lane of which one intent is in a call without an answer, as its ledger tells it."""

    def __init__(self, in_a_call: str, wanted: set[str]) -> None:
        self._in_a_call = in_a_call
        self._wanted = wanted
        self.all_claimed = asyncio.Event()

    async def claim(self, orders: Sequence[str]) -> tuple[list[Work], int]:
        self._wanted -= set(orders)
        if not self._wanted:
            self.all_claimed.set()
        return [], int(self._in_a_call in orders)


async def test_a_call_without_an_answer_keeps_no_other_order_waiting() -> None:
    keys = [f"order:i:{n}" for n in range(3 * ORDERS)]
    ledger, carrier, tasks = Claims(keys[0], set(keys)), SimpleNamespace(draining=False), list[asyncio.Future[None]]()
    ends = OrderEnds(
        cast("Any", ledger), cast("Any", carrier), lambda job: tasks.append(asyncio.ensure_future(job)), lambda _: None
    )
    ends.pushed([Push((key,), Reply(Word.CANCELLED)) for key in keys])
    async with asyncio.timeout(2):
        await ledger.all_claimed.wait()
    carrier.draining = True
    await asyncio.gather(*tasks)
