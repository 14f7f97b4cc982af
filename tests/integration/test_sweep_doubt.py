"""Sweeps of orders that were placed at the very moment the sweep was asked for: no clock tells which came first."""

from __future__ import annotations

import time

import pytest

from cancelq.contract import VENUES, Event, Status
from cancelq_worker.trips import command
from tests.integration.rig import desk

pytestmark = pytest.mark.one_server


@pytest.mark.parametrize("venue", VENUES)
async def test_what_cannot_be_told_is_told_early_and_the_next_intent_cancels_it(redis_url: str, venue: str) -> None:
    async with desk(redis_url, venue=venue) as rig:
        await rig.ready()
        at_ms = time.time_ns() // 1_000_000
        sure, close = rig.order(client_id="mm-sure"), rig.order(client_id="mm-close", created_ms=at_ms)
        asked = {"scope": "symbol", "symbol": rig.spelt("BTC", "USDT"), "client_prefix": "mm-"}
        entry = [word for pair in asked.items() for word in pair]
        await command(rig.client, "XADD", rig.lane.inbox, f"{at_ms}-0", *entry)
        first = await rig.final(f"{at_ms}-0")
        assert (first.status, first.open_orders) == (Status.unresolved, 1)
        assert first.detail
        assert "1 were created within" in first.detail
        assert took_s(first) < 10, "nothing is gained by looking for longer"
        assert [rig.truth(order)["state"] for order in (sure, close)] == ["cancelled", "live"]
        second = await rig.final(await rig.send(**asked))
        assert (second.status, second.open_orders) == (Status.cancelled, 0)
        assert rig.truth(close)["state"] == "cancelled"


def took_s(event: Event) -> float:
    assert event.settled_us
    assert event.queued_us
    return (event.settled_us - event.queued_us) / 1e6
