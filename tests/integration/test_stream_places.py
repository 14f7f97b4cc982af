"""What a venue counts per address of order streams: however many lanes and workers leave from it, no connection more
stands, and none more is opened in a window."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import pytest
import redis.asyncio as aioredis
from structlog.testing import capture_logs

from cancelq.contract import Lane, Status
from cancelq_worker.egress import SOCKET_LEASE_US, Egress
from cancelq_worker.snapshot import address_status, find_addresses
from cancelq_worker.stream_place import AddressFull, StreamPlace
from cancelq_worker.trips import connect
from cancelq_worker.venues.port import Bucket, OrderStream
from tests.integration.floor import Floor, floor, spelled

pytestmark = pytest.mark.one_server

PLACES, CONNECTS, WINDOW_US = 3, 4, 300_000
BUCKETS = (
    Bucket("v-sockets", PLACES, 0, rare=True, shared=True),
    Bucket("v-connects", CONNECTS, WINDOW_US, rare=True, shared=True),
)
KEY = "cancelq:{egress:here}:v-sockets"

#: Another process, that takes a place and is killed with it.
HOLDER = """
import asyncio, sys
from cancelq_worker.trips import connect
from tests.integration.test_stream_places import leaving
print(asyncio.run(leaving(connect(sys.argv[1])).hold_socket("v-sockets", "other")), flush=True)
sys.stdin.read()
"""


class Stream:
    """What of a venue's stream is counted."""

    connects, sockets = "v-connects", "v-sockets"


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[aioredis.Redis]:
    client = connect(redis_url, max_connections=16)
    yield client
    await client.aclose()


def leaving(client: aioredis.Redis) -> Egress:
    """A process that leaves from the address."""
    return Egress(client, "here", BUCKETS)


def place(egress: Egress, holder: str) -> StreamPlace:
    return StreamPlace(egress, cast("OrderStream", Stream()), holder)


async def server_us(client: aioredis.Redis) -> int:
    seconds, micros = await client.time()
    return int(seconds) * 1_000_000 + int(micros)


async def until_us(client: aioredis.Redis, holder: str) -> float:
    """Until when a holder has its place."""
    return await client.zscore(KEY, holder) or 0.0


async def taken(places: list[StreamPlace]) -> list[StreamPlace]:
    """Those that found room, of some that ask at once."""
    told = await asyncio.gather(*(place.hold() for place in places), return_exceptions=True)
    assert all(one is True or isinstance(one, AddressFull) for one in told)
    return [place for place, one in zip(places, told, strict=True) if one is True]


# -- places ------------------------------------------------------------------------------------------------------------


async def test_as_many_connections_stand_as_the_address_may_have_whoever_asks(client: aioredis.Redis) -> None:
    fleet = [leaving(client) for _ in range(2)]
    places = [place(fleet[n % 2], f"lane-{n}") for n in range(8)]
    held = await taken(places)
    assert len(held) == PLACES
    assert await taken(held) == held, "those who have one keep it"
    await held[0].leave()
    assert len(await taken([one for one in places if one not in held])) == 1
    with pytest.raises(AddressFull, match="v-sockets"):
        await held[0].hold()
    assert await Egress(client, "there", BUCKETS).hold_socket("v-sockets", "lane-0"), "another address"


async def test_the_place_of_a_killed_process_is_free_after_its_lease(client: aioredis.Redis, redis_url: str) -> None:
    here = leaving(client)
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDER, redis_url, stdin=-1, stdout=-1)
    assert other.stdout
    assert await other.stdout.readline() == b"True\n"
    other.kill()
    await other.wait()
    held = await taken([place(here, f"lane-{n}") for n in range(PLACES)])
    assert len(held) == PLACES - 1
    left_us = await until_us(client, "other") - await server_us(client)
    assert 0 < left_us <= SOCKET_LEASE_US
    await client.zincrby(KEY, -left_us, "other")  # so much later
    assert await taken([place(here, "late")])
    assert not await client.zscore(KEY, "other")


async def test_a_place_that_was_not_kept_may_be_another_s(client: aioredis.Redis) -> None:
    """A process that stood still for longer than a lease has its connection open all the same: it hears that it must
    close it."""
    here = leaving(client)
    late, *rest = await taken([place(here, f"lane-{n}") for n in range(PLACES)])
    await client.zincrby(KEY, -SOCKET_LEASE_US, "lane-0")
    assert await taken([place(here, "next")])
    assert await taken([late]) == []
    assert await taken(rest) == rest


async def test_a_clock_that_was_set_back_keeps_no_place_for_longer_than_a_lease(client: aioredis.Redis) -> None:
    here = leaving(client)
    await client.zadd(KEY, {"dead": await server_us(client) + 3_600_000_000})
    assert await taken([place(here, "lane")])
    assert 0 < await until_us(client, "dead") <= await server_us(client) + SOCKET_LEASE_US


async def test_where_a_venue_counts_no_open_connections_nothing_is_asked(client: aioredis.Redis) -> None:
    here = leaving(client)
    assert await here.hold_socket("", "lane")
    await here.leave_socket("", "lane")
    assert await client.keys("*") == []


async def test_places_are_told_beside_the_other_limits_of_the_address(client: aioredis.Redis) -> None:
    await taken([place(leaving(client), "lane")])
    now_us = await server_us(client)
    (told,) = await address_status(client, await find_addresses(client, now_us), now_us)
    assert (told.egress, told.bucket, told.used, told.limit) == ("here", "v-sockets", 1, PLACES)


# -- connects ----------------------------------------------------------------------------------------------------------


async def test_no_window_sees_more_connects_than_the_address_may_make(client: aioredis.Redis) -> None:
    fleet, at_us = [leaving(client) for _ in range(2)], list[int]()

    async def opens(n: int) -> None:
        while True:
            with contextlib.suppress(AddressFull):
                async with place(fleet[n % 2], f"lane-{n}").connecting():
                    at_us.append(time.monotonic_ns() // 1000)
                    if n % 3:
                        return
                    raise ConnectionRefusedError  # one that fails is one

    await asyncio.gather(*(opens(n) for n in range(3 * CONNECTS)), return_exceptions=True)
    at_us.sort()
    assert len(at_us) == 3 * CONNECTS
    assert all(later - earlier >= WINDOW_US for earlier, later in zip(at_us, at_us[CONNECTS:], strict=False))


# -- lanes at a venue --------------------------------------------------------------------------------------------------


def few(*lanes: str) -> Mapping[str, str]:
    """So that an address has two streams for all of these."""
    return {f"CANCELQ_ACCOUNTS__BINGX__{name.upper()}__LIMITS": '{"bingx-sockets": 2}' for name in lanes}


def connects(desk: Floor) -> list[tuple[int, int]]:
    """Of the address: how many connections were let in or met a full house, and how many of calls too many."""
    return [(row["admitted"], row["refused"]) for row in desk.simulator.rates() if row["bucket"] == "bingx/ws-connect"]


def without_a_stream(said: list[Any]) -> list[str]:
    return sorted({line["lane"] for line in said if line.get("limit") == "bingx-sockets"})


async def test_lanes_beyond_an_address_streams_end_their_cancels_without_one(redis_url: str) -> None:
    names = ("a", "b", "c", "d", "e")
    lanes = [f"bingx:{name}" for name in names]
    with capture_logs() as said:
        async with floor(
            redis_url, *lanes, workers=2, streams=True, env=few(*names), cancel_delay_ms=100,
            limits={"bingx/ws-open": 2},
        ) as desk:  # fmt: skip
            await desk.until(lambda: len(without_a_stream(said)) == 3)
            for lane in desk.lanes:
                without = str(lane) in without_a_stream(said)
                await desk.until(lambda: without or desk.client.exists(lane.key("stream")))  # noqa: B023
                id_ = await desk.send(lane, symbol=spelled("bingx"), order_id=desk.order(lane))
                event = await desk.final(lane, id_)
                assert (event.status, event.evidence) == (Status.cancelled, "query" if without else "stream")
            assert len(desk.simulator.streams.report()["streams"]) == 2
            assert connects(desk) == [(2, 0)], "nobody knocked in vain"


async def test_a_lane_without_a_place_is_listened_to_from_another_address(redis_url: str) -> None:
    names = ("a", "b", "c")
    with capture_logs() as said:
        async with floor(
            redis_url, *(f"bingx:{name}" for name in names), streams=True, env={**few(*names), "CANCELQ_EGRESS": "one"}
        ) as desk:
            await desk.until(lambda: len(without_a_stream(said)) == 1)
            (left,) = map(Lane.parse, without_a_stream(said))
            await desk.start("w2", CANCELQ_EGRESS="two")
            await desk.streaming()
            assert await desk.get(left.key("stream")) == "w2"


async def test_a_worker_that_ends_leaves_its_places(redis_url: str) -> None:
    async with floor(redis_url, "bingx:a", "bingx:b", streams=True, env={"CANCELQ_EGRESS": "one"}) as desk:
        await desk.streaming()
        places = "cancelq:{egress:one}:bingx-sockets"
        assert await desk.client.zcard(places) == 2
        await desk.stop()
        assert await desk.client.zcard(places) == 0
