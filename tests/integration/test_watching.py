"""Which lanes a worker looks at, how often, and what wakes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import redis.asyncio as aioredis
from pydantic import SecretStr

from cancelq.contract import Lane, Status
from cancelq_worker import engine, operate, wiring
from cancelq_worker.engine import Watcher
from cancelq_worker.lane_lists import LaneLists
from cancelq_worker.ledger import RedisLedger
from cancelq_worker.records import LanePlan, RoundRequest, Taken, TakeRequest
from cancelq_worker.roster import ROSTER, rank
from cancelq_worker.settings import Settings
from cancelq_worker.trips import RawEntry, command, connect
from cancelq_worker.venues.bitget.adapter import Bitget
from cancelq_worker.venues.bitget.signing import Credentials
from tests.integration.rig import LANE, desk
from tests.servers import RedisServer, quiet_port

SECRET = SecretStr("test")
REST_US, POLL_US = 10_000_000, 2_000_000


class Resting:
    """A lane that is done with what it is given at once, and rests again when it is told to."""

    def __init__(self, name: str) -> None:
        self.lane = Lane("bitget", name)
        self.cursor = "0-0"
        self.idle = True
        self.more = False
        self.given: asyncio.Queue[tuple[str, list[str]]] = asyncio.Queue()

    def reopen(self) -> None:
        pass

    def deliver(self, after: str, entries: list[RawEntry], more: bool) -> None:
        self.more = more
        self.given.put_nowait((after, [entry_id for entry_id, _ in entries]))
        self.cursor = entries[-1][0]

    async def next(self) -> tuple[str, list[str]]:
        return await asyncio.wait_for(self.given.get(), 5)


@asynccontextmanager
async def watching(redis_url: str, *lanes: Resting, of: int = 1) -> AsyncIterator[tuple[aioredis.Redis, Watcher]]:
    """A watcher that reads the inboxes of these, all resting; the process has so many lanes."""
    client, blocking = connect(redis_url), connect(redis_url, max_connections=1, timeout_s=6.0)
    watcher = Watcher(blocking, client, lambda: of)
    for lane in lanes:
        watcher.adopt(lane)
        watcher.arm(lane)
    task = asyncio.ensure_future(watcher.run())
    try:
        await blocked(client)
        yield client, watcher
    finally:
        task.cancel()
        for one in (client, blocking):
            await one.aclose()


async def blocked(client: aioredis.Redis) -> None:
    """Until a read waits at the server."""
    async with asyncio.timeout(5):
        while not (await client.info("clients"))["blocked_clients"]:
            await command(client, "XREAD", "BLOCK", 2, "STREAMS", "nobody-writes-here", "$")  # Redis keeps the time


async def add(client: aioredis.Redis, lane: Resting, entry_id: str) -> None:
    await command(client, "XADD", lane.lane.inbox, entry_id, "symbol", "BTCUSDT")


async def test_a_lane_that_is_woken_and_rests_again_needs_no_new_read(redis_url: str) -> None:
    one, other = Resting("one"), Resting("other")
    async with watching(redis_url, one, other) as (client, watcher):
        before = await unblocked(client)
        for n in range(1, 6):
            await add(client, one, f"{n}-1")
            assert await one.next() == ("0-0" if n == 1 else f"{n - 1}-1", [f"{n}-1"])
            await blocked(client)
            watcher.arm(one)
        assert await unblocked(client) == before


async def unblocked(client: aioredis.Redis) -> int:
    stats: Any = await client.info("commandstats")
    return int(stats.get("cmdstat_client|unblock", {"calls": 0})["calls"])


async def test_a_lane_that_moved_while_it_was_read_for_is_woken_from_where_it_stands(redis_url: str) -> None:
    lane = Resting("one")
    async with watching(redis_url, lane) as (client, _):
        lane.cursor = "5-1"  # another worker admitted that far
        await add(client, lane, "5-1")
        await add(client, lane, "5-2")
        assert await lane.next() == ("5-1", ["5-2"])


async def test_a_lane_that_is_busy_is_told_once_and_again_when_it_rests(redis_url: str) -> None:
    busy, other = Resting("busy"), Resting("other")
    async with watching(redis_url, busy, other) as (client, watcher):
        await add(client, busy, "1-1")
        assert await busy.next() == ("0-0", ["1-1"])
        for n in range(2, 5):
            await add(client, busy, f"{n}-1")
            await add(client, other, f"{n}-1")
            await other.next()
            watcher.arm(other)
        assert busy.given.empty()
        watcher.arm(busy)
        assert await busy.next() == ("1-1", ["2-1", "3-1", "4-1"])


async def test_a_watcher_whose_connection_was_lost_while_it_had_nothing_to_read_hears_again_of_who_rests(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the server starts again while all lanes are busy. The connection after it is another one to the server,
    and its reads are ended by its own number: it is asked for once a read was not ended."""
    one, other = Resting("one"), Resting("other")
    async with watching(redis_url, one, other) as (client, watcher):
        for n in (1, 2):
            for lane in (one, other):
                await add(client, lane, f"{n}-1")
        await one.next()
        await other.next()
        async with asyncio.timeout(5):
            while (await client.info("clients"))["blocked_clients"]:
                await command(client, "PING")
        await command(client, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        watcher.arm(one)
        await one.next()
        watcher.arm(one)
        await blocked(client)
        watcher.arm(other)
        await other.next()
        monkeypatch.setattr(engine, "BLOCK_MS", 5_700)  # longer than anybody waits here
        for _ in range(2):  # the first read may be one of before
            await blocked(client)
            other.cursor = "1-1"
            watcher.arm(other)
            assert await other.next() == ("1-1", ["2-1"])


async def test_a_watcher_whose_number_is_somebody_else_s_by_now_asks_for_it_anew(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that was started again counts its connections from the beginning."""
    lane, stranger = Resting("one"), connect(redis_url, max_connections=1, timeout_s=6.0)
    async with watching(redis_url, lane) as (client, watcher):
        await add(client, lane, "1-1")
        await lane.next()
        await blocked(client)
        watcher._client_id = await stranger.client_id()
        for _ in range(2):  # the first read is one of before
            never = ("XREAD", "BLOCK", 5_000, "STREAMS", "nobody-writes-here", "$")
            waits = asyncio.ensure_future(command(stranger, *never))
            async with asyncio.timeout(5):
                while (await client.info("clients"))["blocked_clients"] < 2:
                    await command(client, "PING")
            monkeypatch.setattr(engine, "BLOCK_MS", 5_700)  # longer than anybody waits here
            lane.cursor = "0-0"
            watcher.arm(lane)
            assert await lane.next() == ("0-0", ["1-1"])
            waits.cancel()
            await asyncio.wait([waits])
    await stranger.aclose()


async def test_of_a_thousand_lanes_each_is_given_no_more_than_a_page_of_looks(redis_url: str) -> None:
    """A burst may wake them all: what they are given stays in memory until it is their turn."""
    few, many = Resting("few"), Resting("many")
    async with watching(redis_url, few, many, of=1_000) as (client, _):
        async with client.pipeline() as pipe:
            for n in range(130):
                pipe.xadd(many.lane.inbox, {"symbol": "BTCUSDT"}, f"{n + 1}-1")
            await pipe.execute()
        after, given = await many.next()
        assert (after, len(given), many.more) == ("0-0", 125, True)
        await add(client, few, "1-1")
        await few.next()
        assert not few.more


async def test_a_lane_with_nothing_to_do_rests_long_and_one_that_waits_for_something_does_not(redis_url: str) -> None:
    venue = Bitget(Credentials(SECRET, SECRET, SECRET))
    plan = LanePlan(
        lane=LANE, routes=venue.routes, buckets=venue.buckets, lease_us=5_000_000, gap_us=0, urgent_reserve=1
    )
    client = connect(redis_url)
    ledger = RedisLedger(client, plan)

    async def wait_us(stages: str = "cl") -> int:
        reply = await ledger.round(RoundRequest(takes=[TakeRequest(stages, "b-1")]))
        (taken,) = reply.taken
        assert isinstance(taken, Taken)
        return taken.wait_us

    try:
        assert await wait_us() == REST_US
        await cast("Any", client.hset(LANE.key("hold"), "*|rate", "99999999999999999 the venue's limit"))
        assert await wait_us() <= POLL_US
        await client.delete(LANE.key("hold"))
        await client.set(LANE.key("guard"), "1", px=60_000)
        assert await wait_us() <= POLL_US
        await client.delete(LANE.key("guard"))
        queue, classes = LANE.key("queue:c:n:by-id"), LANE.key("classes:c:n")
        await client.zadd(queue, {"somebody": 9e16})
        await client.zadd(classes, {"by-id": 9e16})
        assert await wait_us() <= POLL_US
        assert await wait_us("") <= POLL_US
        await client.delete(queue, classes)
        assert await wait_us() == REST_US
    finally:
        await client.aclose()


async def test_a_lane_that_rested_long_is_cancelled_in_without_delay(redis_url: str) -> None:
    """No hold for a clock that seems to have jumped: nothing was out while the lane rested."""
    async with desk(redis_url, workers=2) as rig:
        await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))
        wall, steady, server, out_until = (await cast("Any", rig.client.get(LANE.key("clock")))).split()
        async with asyncio.timeout(10):
            while int(out_until) > int(steady):  # the last permit is free again
                await command(rig.client, "XREAD", "BLOCK", 100, "STREAMS", rig.lane.results, "$")
                wall, steady, server, out_until = (await cast("Any", rig.client.get(LANE.key("clock")))).split()
        rested = b"%d %d %b %b" % (int(wall) - 9_000_000, int(steady), server, out_until)
        await rig.client.set(LANE.key("clock"), rested)
        order_id = rig.order()
        event = await rig.final(await rig.send(symbol="BTCUSDT", order_id=order_id))
        assert event.status == Status.cancelled
        assert not await cast("Any", rig.client.hexists(LANE.key("hold"), "*|clock"))
        assert (event.sent_us or 0) - (event.queued_us or 0) < 1_000_000


async def test_a_lane_is_served_by_whoever_has_it_however_many_others_there_are(redis_url: str) -> None:
    """Two others would come before it, but they have no settings for the lane."""
    has = next(name for name in map("has-{}".format, range(99)) if rank(str(LANE), name, ["o1", "o2"]) == 2)
    async with desk(redis_url, workers=0) as rig:
        own = {name.replace("__MAIN__", "__OTHER__"): value for name, value in rig.environment().items()}
        for name in ("o1", "o2"):
            stop = asyncio.Event()
            serving = wiring.serve(Settings.load(None, own), worker_name=name, stop=stop, suspended=lambda: False)
            rig.engines.append((stop, asyncio.ensure_future(serving)))
        async with asyncio.timeout(20):
            while await rig.client.zcard(ROSTER) < 2:
                await command(rig.client, "XREAD", "BLOCK", 20, "STREAMS", rig.lane.results, "$")
        rig.start(has)
        await rig.ready()
        event = await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))
        assert (event.status, event.attempt) == (Status.cancelled, 1)
        (status,) = await operate.status(rig.client, [LANE])
        assert status.workers == [has]


async def test_workers_hear_of_each_other_s_lanes_while_memory_is_full(redis_server: RedisServer) -> None:
    """Else each that starts then passes for one that has every lane, and takes the places of those that do."""
    client = connect(redis_server.url)
    try:
        await client.config_set("maxmemory", 1)
        other = LaneLists(client, ROSTER)
        await other.tell("o1", ["bitget:other"])
        await other.tell("o2", ["bitget:other"])
        lists = LaneLists(client, ROSTER)
        await lists.tell("has", [str(LANE)])
        assert await lists.read()
        assert lists.having(str(LANE), ["has", "o1", "o2"]) == ["has"]
    finally:
        await client.aclose()


async def test_a_worker_that_cannot_reach_the_venue_holds_up_none_that_can(redis_url: str) -> None:
    """The first one has a head start of the other, and each of its failures closes the lane for seconds."""
    first, second = sorted(("a1", "a2"), key=lambda name: rank(str(LANE), name, ["a1", "a2"]))
    shut = {"CANCELQ_ACCOUNTS__BITGET__MAIN__BASE_URL": f"http://127.0.0.1:{quiet_port()}"}
    async with desk(redis_url, workers=0) as rig:
        rig.start(first, **shut)
        rig.start(second)
        await rig.ready()
        for _ in range(8):  # one after the other, each into whatever hold there is
            event = await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()), within_s=5)
            assert (event.status, event.attempt) == (Status.cancelled, 1)


async def test_a_lane_at_rest_is_opened_anew_where_its_server_was_away_for_a_moment(redis_server: RedisServer) -> None:
    """It makes no round in that time that would fail; the server may have come back without what it had."""
    async with desk(redis_server.url, workers=2) as rig:
        assert (await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))).status == Status.cancelled
        await command(rig.client, "FLUSHALL")
        await command(rig.client, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await rig.ready()
        id_ = await rig.send(symbol="BTCUSDT", order_id=rig.order())
        assert (await rig.final(id_, within_s=60)).status == Status.cancelled
        waited_us = [int(e.taken_us or 0) - int(e.queued_us or 0) for e in await rig.of(id_) if e.final]
        assert min(waited_us) >= 5_000_000, "calls may have been out"
