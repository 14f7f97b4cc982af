"""cancelq's own producer, in cancelq's own environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache

from cancelq import AsyncClient

LANE = "bitget:desk"


@cache
def _client() -> AsyncClient:
    return AsyncClient.from_url(os.environ["DESK_REDIS"])


async def submit(order_ids: Sequence[str], urgent: bool) -> None:
    priority = "urgent" if urgent else "normal"
    intents = [{"symbol": "BTCUSDT", "order_id": order_id, "priority": priority} for order_id in order_ids]
    await _client().submit_many(LANE, intents)
