"""The gauges of lanes: shown while they are known, and absent otherwise, never stale."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from cancelq.contract import Lane
from cancelq_worker.egress import Egress
from cancelq_worker.guard_ledger import GuardStanding
from cancelq_worker.lane_gauges import EVERY_S, FRESH_PASSES, SHARE, LaneGauges, Watch
from cancelq_worker.records import Settlement
from cancelq_worker.snapshot import address_status
from cancelq_worker.state import State
from cancelq_worker.trips import command, connect
from cancelq_worker.venues.port import Bucket, Stage
from tests.integration.lone_ledger import lone_desk
from tests.integration.script_bench import Bench, ended, looked_for, works_of

pytestmark = pytest.mark.one_server

MAIN, DESK = Lane("bitget", "main"), Lane("bybit", "desk")


class Watched:
    """Gauges of lanes that a test names, on a clock that it moves."""

    def __init__(self, redis_url: str) -> None:
        self.client = connect(redis_url)
        self.lanes: list[Lane] = []
        self.ns = 1_000_000_000
        self.closed: dict[Lane, int] = {}
        self.addresses: list[tuple[str, str]] = []
        self.guards: dict[Lane, GuardStanding] = {}
        watch = Watch(lambda: self.lanes, lambda: self.closed, lambda: self.addresses, lambda: self.guards)
        self.gauges = LaneGauges(self.client, watch, lambda: self.ns)
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


async def test_guards_are_shown_while_there_is_something_to_tell(watched: Watched) -> None:
    await watched.entries(MAIN, 1)
    await watched.entries(DESK, 1)
    watched.lanes = [MAIN, DESK]
    watched.guards = {MAIN: GuardStanding("given-up", 1_763_690_000_500), DESK: GuardStanding("", None)}
    await watched.gauges.look()

    def guard(lane: Lane) -> tuple[float | None, float | None]:
        at = {"venue": lane.venue, "account": lane.account}
        state = watched.registry.get_sample_value("cancelq_lane_guard", {**at, "state": "given-up"})
        return state, watched.registry.get_sample_value("cancelq_lane_guard_fired_timestamp_seconds", at)

    assert (guard(MAIN), guard(DESK)) == ((1, 1_763_690_000.5), (None, None))
    watched.guards = {DESK: GuardStanding("given-up", 1)}
    await watched.gauges.look()
    assert guard(MAIN) == (None, None)


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


async def test_a_lane_with_a_key_of_another_type_hides_no_other(watched: Watched) -> None:
    await watched.entries(MAIN, 3)
    await command(watched.client, "LPUSH", DESK.inbox, "BTCUSDT 1")
    watched.lanes = [DESK, MAIN]
    await watched.gauges.look()
    assert (watched.shown(MAIN), watched.shown(DESK)) == (3, None)


async def test_a_lane_with_a_value_that_nobody_can_read_hides_no_other(watched: Watched) -> None:
    await watched.entries(MAIN, 3)
    await watched.entries(DESK, 1)
    await command(watched.client, "HSET", DESK.key("hold"), "*|paused", "by anna")
    watched.lanes = [DESK, MAIN]
    await watched.gauges.look()
    assert (watched.shown(MAIN), watched.shown(DESK)) == (3, None)


async def test_why_a_lane_has_no_gauges_is_logged_as_it_begins(watched: Watched) -> None:
    await command(watched.client, "LPUSH", DESK.inbox, "BTCUSDT 1")
    watched.lanes = [DESK]
    with capture_logs() as logged:
        for _ in range(3):
            await watched.gauges.look()
    assert [line["lane"] for line in logged if "no gauges" in line["event"]] == [str(DESK)]


async def test_a_moment_in_which_redis_stood_still_makes_nobody_blind(watched: Watched, redis_url: str) -> None:
    gauges = LaneGauges(watched.client, Watch(lambda: [MAIN]))
    await watched.entries(MAIN, 1)
    assert await gauges.look() == EVERY_S
    other = connect(redis_url)
    await command(other, "CLIENT", "PAUSE", 500, "ALL")
    await other.aclose()
    assert await gauges.look() == EVERY_S


async def test_passes_that_are_long_each_time_are_rare(watched: Watched) -> None:
    def slow() -> list[tuple[str, str]]:
        watched.ns += 250_000_000
        return []

    gauges = LaneGauges(watched.client, Watch(list, addresses=slow), lambda: watched.ns)
    await gauges.look()
    assert await gauges.look() == SHARE * 0.25


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


class Sent:
    """A lane that is taken and settled by hand, and its gauges."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.client = bench.desk.client
        self.gauges = LaneGauges(self.client, Watch(lambda: [MAIN]))
        self.registry = CollectorRegistry()
        self.registry.register(self.gauges)

    async def age_s(self, name: str = "cancelq_lane_unconfirmed_age_seconds") -> float:
        await self.gauges.look()
        age_s = self.registry.get_sample_value(name, {"venue": MAIN.venue, "account": MAIN.account})
        assert age_s is not None
        return age_s

    async def earlier(self, id_: str, by_s: int) -> None:
        """As if its last cancel call had been made so long before."""
        state = State.parse(await command(self.client, "HGET", MAIN.key("state"), id_))
        state.taken_us -= by_s * 1_000_000
        await command(self.client, "HSET", MAIN.key("state"), id_, state.pack())


@pytest.fixture
async def sent(redis_url: str) -> AsyncIterator[Sent]:
    async with lone_desk(redis_url) as desk:
        yield Sent(Bench(desk))


async def test_what_is_in_a_call_is_as_old_as_the_call_until_it_ends(sent: Sent) -> None:
    await sent.bench.orders("11", "12")
    assert await sent.age_s() == 0, "nothing was sent"
    works = works_of(await sent.bench.take())
    assert await sent.age_s() < 60
    await sent.earlier("i-12", 75)
    assert 75 <= await sent.age_s() < 135
    assert await sent.age_s("cancelq_lane_oldest_age_seconds") == 0, "nothing waits unsent"
    await sent.bench.settle(Settlement(None, [ended(work) for work in works]))
    assert await sent.age_s() == 0


async def test_what_waits_for_a_look_and_is_looked_for_is_as_old_as_its_call(sent: Sent) -> None:
    await sent.bench.orders("11", "12")
    taken = await sent.bench.take()
    moves = [looked_for(work, sent_us=taken.wall_us) for work in works_of(taken)]
    await sent.bench.settle(Settlement(None, [*moves]))
    await sent.earlier("i-11", 75)
    assert 75 <= await sent.age_s() < 135
    works = works_of(await sent.bench.take("l"))
    assert 75 <= await sent.age_s() < 135, "a look is no cancel call"
    await sent.bench.settle(Settlement(None, [ended(work) for work in works]))
    assert await sent.age_s() == 0


async def test_what_waits_to_be_sent_again_is_as_old_as_its_last_call(sent: Sent) -> None:
    """As while the endpoint is locked that would take its cancel."""
    await sent.bench.orders("11")
    taken = await sent.bench.take()
    moves = [looked_for(work, 60_000_000, taken.wall_us) for work in works_of(taken)]
    for move in moves:
        move.state.stage = Stage.CANCEL
    await sent.bench.settle(Settlement(None, [*moves]))
    await sent.earlier("i-11", 75)
    assert 75 <= await sent.age_s() < 135
    assert await sent.age_s("cancelq_lane_oldest_age_seconds") == 0, "it was sent"


@pytest.mark.parametrize("oldest", [0, 39], ids=["due first", "due last"])
async def test_of_many_that_wait_for_a_look_those_at_both_ends_are_looked_at(sent: Sent, oldest: int) -> None:
    ids = [str(100 + n) for n in range(40)]
    await sent.bench.orders(*ids)
    taken = await sent.bench.take()
    works = works_of(taken)
    assert len(works) == len(ids), "one call carries them all"
    moves = [looked_for(work, n * 1_000, taken.wall_us) for n, work in enumerate(works)]
    await sent.bench.settle(Settlement(None, [*moves]))
    await sent.earlier(works[oldest].id, 75)
    assert 75 <= await sent.age_s() < 135


@pytest.mark.parametrize("others", [1, 20])
async def test_what_steps_back_for_a_call_that_has_its_order_waits_since_it_was_asked_for(
    sent: Sent, others: int
) -> None:
    await sent.bench.orders("11")
    assert works_of(await sent.bench.take())
    await sent.bench.admit({"id": "again", "symbol": "BTCUSDT", "order_id": "11"})
    assert (await sent.bench.take()).batch is None, "its order is in a call"
    await sent.bench.forward(9_000_000)
    await sent.bench.orders(*(str(100 + n) for n in range(others)))
    assert 9 <= await sent.age_s("cancelq_lane_oldest_age_seconds") < 60


async def test_limits_per_address_are_shown_as_they_are_used(watched: Watched) -> None:
    egress = Egress(watched.client, "tokyo-1", [Bucket("bitget-ip", 6000, 60_000_000)])

    def shown(name: str, bucket: str = "bitget-ip") -> float | None:
        return watched.registry.get_sample_value(name, {"egress": "tokyo-1", "venue": "bitget", "bucket": bucket})

    await egress.fill()
    await watched.gauges.look()
    assert shown("cancelq_address_used") is None, "no lane behind it is watched"
    watched.addresses = [*egress.limits, ("tokyo-1", "bitget-unused")]
    await watched.gauges.look()
    (used,) = await address_status(watched.client, egress.limits, (await watched.client.time())[0] * 1_000_000)
    assert (shown("cancelq_address_used"), shown("cancelq_address_limit")) == (used.used, 6000)
    assert used.used > 0
    assert (shown("cancelq_address_used", "bitget-unused"), shown("cancelq_address_limit", "bitget-unused")) == (
        0,
        None,
    )
    watched.ns += int(EVERY_S * FRESH_PASSES * 1e9) + 1
    assert shown("cancelq_address_used") is None


async def test_a_server_that_is_away_is_no_error(watched: Watched) -> None:
    nowhere = LaneGauges(connect("redis://127.0.0.1:1/0"), Watch(lambda: [MAIN]), lambda: watched.ns)
    assert await nowhere.look() == EVERY_S
    assert all(not family.samples for family in nowhere.collect())
