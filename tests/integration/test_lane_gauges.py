"""The gauges of lanes: shown while they are known, and absent otherwise, never stale."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from cancelq.contract import Lane
from cancelq_worker.lane_gauges import EVERY_S, FRESH_PASSES, LaneGauges
from cancelq_worker.trips import command, connect

pytestmark = pytest.mark.one_server

MAIN, DESK = Lane("bitget", "main"), Lane("bybit", "desk")


class Watched:
    """Gauges of lanes that a test names, on a clock that it moves."""

    def __init__(self, redis_url: str) -> None:
        self.client = connect(redis_url)
        self.lanes: list[Lane] = []
        self.ns = 1_000_000_000
        self.closed: dict[Lane, int] = {}
        self.gauges = LaneGauges(self.client, lambda: self.lanes, lambda: self.ns, lambda: self.closed)
        self.registry = CollectorRegistry()
        self.registry.register(self.gauges)

    def shown(self, lane: Lane, name: str = "cancelq_lane_not_admitted") -> float | None:
        return self.registry.get_sample_value(name, {"venue": lane.venue, "account": lane.account})

    async def entries(self, lane: Lane, count: int) -> None:
        for _ in range(count):
            await command(self.client, "XADD", lane.inbox, "*", "symbol", "BTCUSDT", "order_id", "1")


@pytest.fixture
async def watched(redis_url: str) -> AsyncIterator[Watched]:
    watched = Watched(redis_url)
    yield watched
    await watched.client.aclose()


async def test_only_lanes_that_are_watched_first_are_shown(watched: Watched) -> None:
    await watched.entries(MAIN, 3)
    await watched.entries(DESK, 1)
    watched.lanes = [MAIN, DESK]
    await watched.gauges.look()
    assert (watched.shown(MAIN), watched.shown(DESK)) == (3, 1)
    # Another worker has become the first: from this moment on, before the next pass.
    watched.lanes = [MAIN]
    assert (watched.shown(MAIN), watched.shown(DESK)) == (3, None)
    await watched.gauges.look()
    assert (watched.shown(MAIN), watched.shown(DESK)) == (3, None)


async def test_every_lane_behind_a_closed_address_is_shown_as_held(watched: Watched) -> None:
    await watched.entries(MAIN, 1)
    await watched.entries(DESK, 1)
    watched.lanes, watched.closed = [MAIN, DESK], {DESK: 597_000}
    await watched.gauges.look()

    def held(lane: Lane, name: str) -> float | None:
        where = {"venue": lane.venue, "account": lane.account, "bucket": "all", "reason": "address"}
        return watched.registry.get_sample_value(name, where)

    assert (held(MAIN, "cancelq_lane_hold"), held(DESK, "cancelq_lane_hold")) == (None, 1)
    assert held(DESK, "cancelq_lane_hold_seconds") == 597


async def test_what_was_not_read_lately_is_absent(watched: Watched) -> None:
    await watched.entries(MAIN, 1)
    watched.lanes = [MAIN]
    assert await watched.gauges.look() == EVERY_S
    watched.ns += int(EVERY_S * FRESH_PASSES * 1e9)
    assert watched.shown(MAIN) == 1
    watched.ns += 1
    assert watched.shown(MAIN) is None
    await watched.gauges.look()
    assert watched.shown(MAIN) == 1


async def test_a_lane_nobody_has_served_yet_and_no_lane_at_all(watched: Watched) -> None:
    assert await watched.gauges.look() == EVERY_S
    watched.lanes = [MAIN]
    await watched.gauges.look()
    assert watched.shown(MAIN) is None


async def test_what_waits_unread_is_as_old_as_its_entry(watched: Watched) -> None:
    seconds, _ = await watched.client.time()
    await command(
        watched.client, "XADD", MAIN.inbox, f"{(seconds - 100) * 1000}-0", "symbol", "BTCUSDT", "order_id", "1"
    )
    watched.lanes = [MAIN]
    await watched.gauges.look()
    age_s = watched.shown(MAIN, "cancelq_lane_oldest_age_seconds")
    assert age_s is not None
    assert 99 <= age_s < 160


async def test_a_server_that_is_away_is_no_error(watched: Watched) -> None:
    nowhere = LaneGauges(connect("redis://127.0.0.1:1/0"), lambda: [MAIN], lambda: watched.ns)
    assert await nowhere.look() == EVERY_S
    assert all(not family.samples for family in nowhere.collect())
