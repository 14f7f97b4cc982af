"""An account that was switched to Bitget's unified mode: recognised, told plainly, and nothing of it lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cancelq.contract import Status
from cancelq_worker import operate
from cancelq_worker.venues.bitget.codes import REMEDIES
from tests.integration.floor import floor

pytestmark = pytest.mark.one_server


async def test_a_unified_account_is_told_plainly_and_its_intents_wait(redis_url: str) -> None:
    async with floor(redis_url, "bitget:main", "bitget:other", streams=True) as desk:
        unified, classic = desk.lanes
        account = desk.simulator.core.accounts["bitget", "key-bitget-main"]
        desk.simulator.add_account(replace(account, uta=True))
        waiting = await desk.send(unified, symbol="BTCUSDT", order_id=desk.order(unified))
        await desk.until(lambda: desk.held(unified, "auth"))
        (status,) = await operate.status(desk.client, [unified])
        (told,) = [text for scope, reason, text in status.holds if (scope, reason) == ("*", "auth")]
        assert "40085" in told
        assert REMEDIES["40085"] in told
        assert "cancelq resume bitget:main" in told
        fine = await desk.final(classic, await desk.send(classic, symbol="BTCUSDT", order_id=desk.order(classic)))
        assert fine.status == Status.cancelled
        assert await desk.admitted(unified, waiting)
        desk.simulator.add_account(account)
        await desk.resume(unified)
        assert (await desk.final(unified, waiting)).status == Status.cancelled
