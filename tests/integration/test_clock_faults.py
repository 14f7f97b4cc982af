"""A clock that jumped is corrected and the call tried again, however long the venue's time takes to read."""

from __future__ import annotations

import asyncio

import pytest

from cancelq.contract import VENUES, Status
from cancelq_worker.trips import command
from tests.integration.floor import floor, spelled
from tests.integration.rig import desk

pytestmark = pytest.mark.one_server


@pytest.mark.parametrize("way_ms", [0, 500])
@pytest.mark.parametrize("jump_ms", [-3_600_000, -40_000, 2_000, 3_600_000])
@pytest.mark.parametrize("venue", VENUES)
async def test_a_jump_of_the_venues_clock_costs_no_attempt(
    redis_url: str, venue: str, jump_ms: int, way_ms: int
) -> None:
    async with floor(redis_url, f"{venue}:main") as desk:
        (lane,) = desk.lanes
        symbol = spelled(venue)
        first = await desk.final(lane, await desk.send(lane, symbol=symbol, order_id=desk.order(lane)))
        assert first.status == Status.cancelled
        desk.simulator.configure({"clock_offset_ms": jump_ms, "latency_before_ms": [way_ms, way_ms]})
        id_ = await desk.send(lane, symbol=symbol, order_id=desk.order(lane))
        event = await desk.final(lane, id_, 20)
        assert (event.status, event.attempt) == (Status.cancelled, 1)
        assert not await desk.held(lane, "auth")


async def test_a_time_stamp_that_is_refused_however_the_clock_is_corrected_holds_the_lane(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        for endpoint in ("cancel-order", "batch-cancel-order"):
            rig.fault("code:40008", endpoint=endpoint, count=None)
        order = rig.order()
        id_ = await rig.send(symbol="BTCUSDT", order_id=order)
        async with asyncio.timeout(10):
            while not (why := await command(rig.client, "HGET", rig.lane.key("hold"), "*|auth")):
                await command(rig.client, "XREAD", "BLOCK", 50, "STREAMS", rig.lane.results, "$")
        assert b"the clock was corrected, and the time stamp refused again" in why
        assert b"cancelq resume bitget:main" in why
        assert not [event for event in await rig.events() if event.id == id_ and event.final]
        assert rig.truth(order)["state"] == "live"
