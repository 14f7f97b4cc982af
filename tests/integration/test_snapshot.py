"""Snapshots of lanes from real servers: every number, what is bounded, and what a lane at rest spares."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
import redis.asyncio as aioredis
from redis.exceptions import ResponseError

from cancelq.contract import Lane
from cancelq_worker import operate
from cancelq_worker.egress import Egress
from cancelq_worker.flow import Flows
from cancelq_worker.snapshot import (
    COUNT_PAGE,
    Refusals,
    Snapshots,
    address_status,
    find_addresses,
    server_status,
)
from cancelq_worker.trips import command, connect
from cancelq_worker.venues.port import Bucket

LANE = Lane("bitget", "main")
OTHER = Lane("bybit", "desk")


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[aioredis.Redis]:
    client = connect(redis_url)
    yield client
    await client.aclose()


async def fill(redis: aioredis.Redis, lane: Lane, entries: int, cursor: int = 0, first: int = 1) -> None:
    """Entries with the ids `first`-0 and on, of which those up to `cursor` are admitted."""
    async with redis.pipeline(transaction=False) as pipe:
        for n in range(first, first + entries):
            pipe.xadd(lane.inbox, {"symbol": "BTCUSDT", "order_id": str(n)}, id=f"{n}-0")
        if cursor:
            pipe.set(lane.key("cursor"), f"{cursor}-0")
        await pipe.execute()


async def set_clock(redis: aioredis.Redis, lane: Lane, ago_us: int = 0, behind_us: int = 0) -> int:
    """A lane's clock as a worker left it so long ago, the steady one behind the wall; the steady time now."""
    now_us = time.time_ns() // 1000
    await redis.set(lane.key("clock"), f"{now_us - ago_us} {now_us - ago_us - behind_us} x 0")
    return now_us - behind_us


async def evalsha_usec(redis: aioredis.Redis) -> int:
    stats = await redis.info("commandstats")
    return int(stats["cmdstat_evalsha_ro"]["usec"])


class TestOneLane:
    async def test_every_number(self, redis: aioredis.Redis) -> None:
        key = LANE.key
        steady_us = await set_clock(redis, LANE, behind_us=5_000_000)
        await fill(redis, LANE, 7, cursor=4)
        await redis.sadd(key("ahead"), "5-0")
        for stage, priority, class_, ages_ms in (
            ("c", "n", "id:a", (900, 20)),
            ("c", "u", "id:b", (4000,)),
            ("c", "n", "id:c", (30,)),
            ("l", "n", "page", (9000, 1, 2)),
        ):
            queue = {f"{class_}-{age}": steady_us - 1000 * age for age in ages_ms}
            await redis.zadd(key(f"queue:{stage}:{priority}:{class_}"), queue)
            # An index entry that is older than its head, as it is left until a take looks.
            await redis.zadd(key(f"classes:{stage}:{priority}"), {class_: min(queue.values()) - 7_000_000})
        await redis.zadd(key("leases"), {"x": 1, "y": 2})
        await redis.zadd(key("timed"), {"z": 1})
        await redis.hset(key("limits"), mapping={"a": 10, "b": 20})
        await redis.zadd(key("permits:a"), {"1": steady_us + 60_000_000, "2": steady_us + 60_000_001, "3": 5})
        refused_ms = time.time_ns() // 1_000_000 - 5000
        await redis.hset(key("rtt:b"), mapping={"refusals": 3, "refused_ms": refused_ms, "fast": 0})
        await redis.hset(
            key("hold"),
            mapping={
                "*|paused": "-1 paused by anna",
                "a|rate": f"{steady_us + 90_000_000} refused",
                "b|rate": f"{steady_us - 1} over",
            },
        )
        (status,) = await operate.status(redis, [LANE])
        assert (status.queued, status.confirming, status.in_flight, status.timed) == (4, 3, 2, 1)
        assert status.oldest_age_ms is not None
        assert 4000 <= status.oldest_age_ms < 14_000
        assert (status.not_admitted, status.not_admitted_more) == (2, False)
        assert status.inbox_age_ms is not None
        assert abs(status.inbox_age_ms - time.time() * 1000) < 20_000  # the entry 6-0 is from 1970
        assert (status.inbox_length, status.results_length) == (7, 0)
        assert status.budget == {"a": (2, 10), "b": (0, 20)}
        assert list(status.refusals) == ["b"]
        assert status.refusals["b"].count == 3
        assert 5000 <= status.refusals["b"].age_ms < 25_000
        assert [(scope, reason) for scope, reason, _ in status.holds] == [("*", "paused"), ("a", "rate")]
        assert status.holds[0][2] == "until resumed: paused by anna"
        assert status.workers == []

    async def test_a_lane_nobody_has_served(self, redis: aioredis.Redis) -> None:
        await fill(redis, LANE, 3)
        (status,) = await operate.status(redis, [LANE])
        assert (status.not_admitted, status.queued, status.untouched_ms) == (3, 0, None)
        assert status.unattended

    async def test_a_lane_that_is_served_is_not_unattended(self, redis: aioredis.Redis) -> None:
        await set_clock(redis, LANE)
        await fill(redis, LANE, 3)
        (status,) = await operate.status(redis, [LANE])
        assert not status.unattended

    async def test_what_is_refused_to_this_user_is_no_fault_of_a_lane(
        self, redis: aioredis.Redis, redis_url: str
    ) -> None:
        await fill(redis, LANE, 3)
        await redis.acl_setuser(
            "halfway", enabled=True, nopass=True, commands=["+@all", "-xlen"], keys=["*"], channels=["*"]
        )
        halfway = connect(redis_url.replace("redis://", "redis://halfway:any@"))
        try:
            with pytest.raises(ResponseError, match="script"):
                await operate.whole_status(halfway, [LANE])
        finally:
            await halfway.aclose()
            await redis.acl_deluser("halfway")

    async def test_what_waits_for_an_endpoint_that_is_locked_waits_since_it_was_asked_for(
        self, redis: aioredis.Redis, redis_url: str
    ) -> None:
        """It stands in its queue as of when it may go."""
        await fill(redis, LANE, 1)
        seconds, micros = await redis.time()
        now = seconds * 1_000_000 + micros
        await redis.set(LANE.key("clock"), f"{now} {now} - 0")
        line = f"3 0 c 0 1 0 0 n {now - 9_000_000} 0 seen:BTC-USDT any:BTC-USDT 5c24f979 i:19 - - 0 0 {{}}"
        await command(redis, "HSET", LANE.key("state"), "a", line)
        for key, member in (("queue:c:n:seen:BTC-USDT", "a"), ("classes:c:n", "seen:BTC-USDT")):
            await redis.zadd(LANE.key(key), {member: now + 20_000_000})
        (status,) = await operate.status(redis, [LANE])
        assert status.oldest_age_ms is not None
        assert 9_000 <= status.oldest_age_ms < 60_000
        # Who may not read the state of intents, as the user of a monitor before, is told the rest.
        keys = [f"{LANE.key('')}[^s]*", "cancelq:*workers*"]
        await redis.acl_setuser("older", enabled=True, nopass=True, commands=["+@all"], keys=keys, channels=["*"])
        older = connect(redis_url.replace("redis://", "redis://older:any@"))
        try:
            (status,) = await operate.status(older, [LANE])
            assert (status.queued, status.oldest_age_ms) == (1, 0)
        finally:
            await older.aclose()
            await redis.acl_deluser("older")

    async def test_of_many_pairs_the_one_whose_look_is_due_last_was_sent_first(self, redis: aioredis.Redis) -> None:
        """Pauses between looks grow: the others are looked for and end, and it stays."""
        await fill(redis, LANE, 1)
        seconds, micros = await redis.time()
        now = seconds * 1_000_000 + micros
        await redis.set(LANE.key("clock"), f"{now} {now} - 0")
        for n, (due_ms, sent_s) in enumerate([(0, 1), (1, 1), (2, 1), (3, 1), (3_000, 300)]):
            class_, sent_us = f"any:P{n}-USDT", now - sent_s * 1_000_000
            line = f"3 0 l 1 1 0 0 n {now} 0 seen:P{n}-USDT {class_} 5c24f979 i:19 cancel b 1 {sent_us} {{}}"
            await command(redis, "HSET", LANE.key("state"), f"i{n}", line)
            for key, member in ((f"queue:l:n:{class_}", f"i{n}"), ("classes:l:n", class_)):
                await redis.zadd(LANE.key(key), {member: now + 1000 * due_ms})
        (status,) = await operate.status(redis, [LANE])
        assert status.confirming == 5
        assert status.unconfirmed_ms is not None
        assert status.unconfirmed_ms >= 300_000

    async def test_a_lane_without_an_inbox_is_unknown(self, redis: aioredis.Redis) -> None:
        with pytest.raises(operate.UnknownLane):
            await operate.status(redis, [LANE])
        assert await Snapshots(redis).lanes([LANE], []) == {}

    async def test_every_entry_that_overtook_is_left_out(self, redis: aioredis.Redis) -> None:
        await fill(redis, LANE, 3, cursor=1)
        await redis.sadd(LANE.key("ahead"), "2-0", "3-0")
        (status,) = await operate.status(redis, [LANE])
        assert (status.not_admitted, status.inbox_age_ms) == (0, None)


class TestCounting:
    async def test_a_backlog_is_counted_up_to_ten_thousand(self, redis: aioredis.Redis) -> None:
        await fill(redis, LANE, 10_001, cursor=1)
        (status,) = await operate.status(redis, [LANE])
        assert status.not_admitted == 10_000
        await fill(redis, LANE, 50, first=10_002)
        (status,) = await operate.status(redis, [LANE])
        assert (status.not_admitted, status.not_admitted_more) == (10_000, True)

    async def test_what_no_worker_has_begun_with_need_not_be_counted(self, redis: aioredis.Redis) -> None:
        await fill(redis, LANE, 12_000)
        (status,) = await operate.status(redis, [LANE])
        assert (status.not_admitted, status.not_admitted_more) == (12_000, False)

    async def test_one_look_counts_so_much_and_the_next_goes_on(self, redis: aioredis.Redis) -> None:
        await fill(redis, LANE, 2000, cursor=1)
        await fill(redis, OTHER, 30, cursor=10)
        snapshots = Snapshots(redis, count_most=2 * COUNT_PAGE)
        seen = [await snapshots.lanes([LANE, OTHER], []) for _ in range(5)]
        counts = [(look[LANE].not_admitted, look[LANE].not_admitted_more) for look in seen]
        assert counts[0] == (COUNT_PAGE, True)
        assert counts[-1] == (1999, False)
        assert {(look[OTHER].not_admitted, look[OTHER].not_admitted_more) for look in seen} == {(20, False)}
        await fill(redis, LANE, 1, first=2001)
        assert (await snapshots.lanes([LANE], []))[LANE].not_admitted == 2000
        await redis.set(LANE.key("cursor"), "1990-0")
        await set_clock(redis, LANE)
        assert (await snapshots.lanes([LANE], []))[LANE].not_admitted == 11

    async def test_a_server_that_lost_its_scripts_is_asked_again(self, redis: aioredis.Redis) -> None:
        await fill(redis, LANE, 1)
        snapshots = Snapshots(redis)
        await snapshots.lanes([LANE], [])
        await redis.script_flush()
        assert (await snapshots.lanes([LANE], []))[LANE].not_admitted == 1


class TestAtRest:
    async def test_a_lane_at_rest_is_told_as_it_is_once_something_happens(self, redis: aioredis.Redis) -> None:
        await fill(redis, LANE, 3, cursor=3)
        await set_clock(redis, LANE)
        snapshots = Snapshots(redis)
        quiet = (await snapshots.lanes([LANE], []))[LANE]
        assert (await snapshots.lanes([LANE], ["w1"]))[LANE].workers == ["w1"]
        await operate.pause(redis, LANE, "anna")
        assert (await snapshots.lanes([LANE], []))[LANE].paused
        await operate.resume(redis, LANE, "anna")
        assert not (await snapshots.lanes([LANE], []))[LANE].paused
        await fill(redis, LANE, 1, first=4)
        assert (await snapshots.lanes([LANE], []))[LANE].not_admitted == 1
        await redis.set(LANE.key("cursor"), "4-0")
        await redis.zadd(LANE.key("leases"), {"x": 1})
        await set_clock(redis, LANE)
        assert (await snapshots.lanes([LANE], []))[LANE].in_flight == 1
        assert quiet.in_flight == 0

    async def test_it_costs_the_server_a_fraction(self, redis: aioredis.Redis) -> None:
        lanes = [Lane("bybit", f"a{n}") for n in range(200)]
        for lane in lanes:
            await fill(redis, lane, 1, cursor=1)
            await set_clock(redis, lane)
            await redis.hset(lane.key("limits"), mapping={f"bucket-{n}": 10 for n in range(9)})
        snapshots = Snapshots(redis)
        first = await snapshots.lanes(lanes, [])
        usec = []
        for _ in range(3):
            await redis.config_resetstat()
            assert await snapshots.lanes(lanes, []) == first
            usec.append(await evalsha_usec(redis))
        await redis.config_resetstat()
        await Snapshots(redis).lanes(lanes, [])
        assert 2 * min(usec) < await evalsha_usec(redis)


async def test_more_lanes_at_work_than_are_looked_at_take_turns(redis: aioredis.Redis) -> None:
    lanes = [Lane("bybit", f"a{n}") for n in range(10)]
    for lane in lanes:
        await fill(redis, lane, 1, cursor=1)
        await redis.zadd(lane.key("leases"), {"x": 1})
    snapshots = Snapshots(redis, look_most=4)
    assert {s.in_flight for s in (await snapshots.lanes(lanes, [])).values()} == {1}
    for lane in lanes:
        await redis.zadd(lane.key("leases"), {"y": 2})
    seen = [sum(s.in_flight == 2 for s in (await snapshots.lanes(lanes, [])).values()) for _ in range(4)]
    assert seen == [4, 8, 10, 10]
    # One that is new, or at rest, is looked at besides.
    await fill(redis, OTHER, 1, cursor=1)
    assert list(await snapshots.lanes([*lanes[:2], OTHER], [])) == [*lanes[:2], OTHER]
    await redis.delete(lanes[0].inbox)
    assert list(await snapshots.lanes(lanes[:2], [])) == [lanes[1]]


async def test_refusals_are_lately_for_an_hour() -> None:
    assert Refusals(1, 3_599_999).lately
    assert not Refusals(1, 3_600_001).lately


async def test_the_server_tells_of_itself(redis: aioredis.Redis) -> None:
    await redis.zadd("cancelq:workers", {"w1": time.time_ns() // 1_000_000})
    server = await server_status(redis)
    assert server.name in ("Redis", "Valkey")
    assert server.version[0].isdigit()
    assert server.memory > 100_000
    assert server.memory_most is None
    assert 0 < server.round_trip_ms < 5_000
    assert abs(server.now_us - time.time_ns() // 1000) < 10_000_000
    assert server.workers == ["w1"]


class TestAddresses:
    async def test_units_in_use_their_limit_and_a_hold(self, redis: aioredis.Redis) -> None:
        egress = Egress(redis, "tokyo-1", [Bucket("bitget-ip", 6000, 60_000_000), Bucket("bybit-ip", 64, 5_000_000)])
        await egress.fill()
        now_us = (await server_status(redis)).now_us
        addresses = await find_addresses(redis, now_us)
        assert addresses == [("tokyo-1", "bitget-ip"), ("tokyo-1", "bybit-ip")]
        told = await address_status(redis, addresses, now_us)
        assert [(a.egress, a.venue, a.used, a.limit, a.held_ms) for a in told] == [
            ("tokyo-1", "bitget", 4, 6000, 0),
            ("tokyo-1", "bybit", 4, 64, 0),
        ]
        await egress.hold(5000, "403 access too frequent")
        told = await address_status(redis, addresses, now_us)
        assert {a.held_why for a in told} == {"403 access too frequent"}
        assert all(4000 < a.held_ms < 65_000 for a in told)

    async def test_what_nobody_asked_for_since_yesterday_is_not_found(self, redis: aioredis.Redis) -> None:
        now_us = (await server_status(redis)).now_us
        for egress, days in (("moved-away", 1.1), ("asleep", 0.9)):
            await redis.hset(f"cancelq:{{egress:{egress}}}:bitget-ip:note", "at", str(now_us - int(days * 86_400e6)))
        assert await find_addresses(redis, now_us) == [("asleep", "bitget-ip")]

    async def test_a_limit_that_no_worker_has_told_is_unknown(self, redis: aioredis.Redis) -> None:
        await redis.hset("cancelq:{egress:old}:bitget-ip:note", "last", "7")
        (address,) = await address_status(redis, await find_addresses(redis, 1), 1)
        assert (address.used, address.limit, address.share) == (0, None, 0.0)


class TestResults:
    async def test_the_newest_are_read_and_the_rest_is_passed_over(self, redis: aioredis.Redis) -> None:
        flows = Flows(redis, most=300)
        now_us = (await server_status(redis)).now_us
        await flows.read([LANE, OTHER], now_us)
        async with redis.pipeline(transaction=False) as pipe:
            for n in range(1000):
                pipe.xadd(LANE.results, {"id": f"i{n}", "status": "cancelled", "final": "1"})
            pipe.xadd(OTHER.results, {"id": "o", "status": "unresolved", "final": "1"})
            await pipe.execute()
        now_us = (await server_status(redis)).now_us
        await flows.read([LANE, OTHER], now_us)
        main, other = flows.of[LANE].numbers(), flows.of[OTHER].numbers()
        assert 150 <= main.statuses["cancelled"] <= 300
        assert main.sampled
        assert (other.statuses, other.sampled, other.unresolved) == ({"unresolved": 1}, False, ("o",))
        await flows.read([LANE, OTHER], now_us + 1000)
        assert flows.of[LANE].numbers().statuses == main.statuses

    async def test_a_first_look_goes_back_half_a_minute(self, redis: aioredis.Redis) -> None:
        now_us = (await server_status(redis)).now_us
        now_ms = now_us // 1000
        for ago_ms in (40_000, 20_000, 5_000):
            await redis.xadd(
                LANE.results, {"id": f"{ago_ms}", "status": "cancelled", "final": "1"}, id=f"{now_ms - ago_ms}-0"
            )
        flows = Flows(redis, most=100)
        await flows.read([LANE], now_us)
        numbers = flows.of[LANE].numbers()
        assert numbers.statuses == {"cancelled": 2}
        assert numbers.per_s["cancelled"] == 0.1

    async def test_a_server_whose_clock_went_back_is_read_anew(self, redis: aioredis.Redis) -> None:
        now_us = (await server_status(redis)).now_us
        flows = Flows(redis, most=100)
        await flows.read([LANE], now_us + 3_600_000_000)
        await redis.xadd(LANE.results, {"id": "a", "status": "cancelled", "final": "1"})
        await flows.read([LANE], (await server_status(redis)).now_us)
        assert flows.of[LANE].numbers().statuses == {"cancelled": 1}


async def test_a_look_writes_nothing(redis: aioredis.Redis) -> None:
    await fill(redis, LANE, 3, cursor=1)
    await set_clock(redis, LANE)
    keys = sorted(await redis.keys())
    dumps = [await redis.dump(name) for name in keys]
    await operate.status(redis, [LANE])
    await Flows(redis, 10).read([LANE], (await server_status(redis)).now_us)
    await address_status(redis, await find_addresses(redis, 1), 1)
    assert sorted(await redis.keys()) == keys
    assert [await redis.dump(name) for name in keys] == dumps
