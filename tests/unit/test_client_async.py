"""`AsyncClient` against real servers: what it does not share with `Client`."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis import Redis
from redis import asyncio as redis_asyncio

from cancelq import (
    AsyncClient,
    BrokerDown,
    BrokerRefused,
    CancelqError,
    Client,
    EventError,
    IntentError,
    NotAccepted,
    OutcomeTimeout,
    Status,
)
from cancelq.watch import PAGE
from cancelq_worker.embedded import free_port
from tests.servers import RedisServer
from tests.unit.test_client import (
    CANCEL,
    LANE,
    OTHER_LANE,
    inbox,
    open_lane,
    reads_of,
    server,
    settle,
    somebody_waits,
)

__all__ = ["server"]  # the fixture


@pytest.fixture
async def client(redis_url: str, server: Redis) -> AsyncIterator[AsyncClient]:
    async with AsyncClient.from_url(redis_url) as client:
        yield client


async def until(true: Callable[[], bool], within_s: float = 20.0) -> None:
    """Asks until it is so, letting the tasks run in between."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0)


async def test_both_clients_queue_the_same(redis_url: str, client: AsyncClient, server: Redis) -> None:
    ticket = await client.submit("bitget:main", id="k", **CANCEL, x_desk="delta")
    (many,) = await client.submit_many(LANE, [{"id": "k", **CANCEL, "x_desk": "delta"}])
    revoke = await client.revoke(LANE, "k", id="r")
    with Client(redis_url) as sync:
        sync.submit(LANE, id="k", **CANCEL, x_desk="delta")
        sync.revoke(LANE, "k", id="r")
    single, batched, withdrawn, sync_single, sync_withdrawn = [fields for _, fields in inbox(server)]
    assert single == batched == sync_single
    assert withdrawn == sync_withdrawn
    entry_ids = [entry_id.decode() for entry_id, _ in inbox(server)]
    assert [ticket.entry_id, many.entry_id, revoke.entry_id] == entry_ids[:3]


async def test_what_cannot_be_queued_is_told(client: AsyncClient, server: Redis) -> None:
    with pytest.raises(IntentError):
        await client.submit(LANE, order_id="1")
    with pytest.raises(NotAccepted):
        await client.submit("bitget:mian", **CANCEL)
    with pytest.raises(NotAccepted):
        await client.submit_many("bitget:mian", [CANCEL] * 3)
    assert inbox(server) == []


async def test_many_are_queued_in_their_order(client: AsyncClient, server: Redis) -> None:
    tickets = await client.submit_many(LANE, [{"symbol": "B", "order_id": str(at)} for at in range(1203)])
    assert [fields[b"order_id"] for _, fields in inbox(server)] == [b"%d" % at for at in range(1203)]
    assert [ticket.id.encode() for ticket in tickets] == [fields[b"id"] for _, fields in inbox(server)]


async def test_more_callers_than_connections_wait_their_turn(client: AsyncClient, server: Redis) -> None:
    tickets = await asyncio.gather(*[client.submit(LANE, **CANCEL) for _ in range(300)])
    assert len({ticket.entry_id for ticket in tickets}) == len(inbox(server)) == 300
    assert int(server.info("clients")["connected_clients"]) < 30


@pytest.mark.parametrize(
    "options",
    [{}, {"protocol": 3}, {"decode_responses": True}, {"protocol": 3, "decode_responses": True}],
    ids=str,
)
async def test_a_client_of_ones_own_may_be_set_up_as_one_likes(
    redis_url: str, server: Redis, options: dict[str, Any]
) -> None:
    async with redis_asyncio.Redis.from_url(redis_url, **options) as own:
        client = AsyncClient(own)
        tickets = await client.submit_many(LANE, [CANCEL] * 3)
        settle(server, *[ticket.id for ticket in tickets])
        assert [event.id for event in await client.wait_all(tickets, 10)] == [ticket.id for ticket in tickets]
        assert len([event async for event in client.events(LANE)]) == 3
        await client.aclose()
        assert await own.ping()


async def test_thousands_of_outcomes_are_awaited_through_one_reader(client: AsyncClient, server: Redis) -> None:
    tickets = await client.submit_many(LANE, [CANCEL] * 2000)
    outcomes = asyncio.gather(*[ticket.outcome(60) for ticket in tickets])
    await until(lambda: somebody_waits(server))
    assert int(server.info("clients")["blocked_clients"]) == 1
    settle(server, *[ticket.id for ticket in reversed(tickets)])
    assert [event.id for event in await outcomes] == [ticket.id for ticket in tickets]
    assert reads_of(server) <= 10


async def test_outcomes_awaited_one_by_one_do_not_read_again(client: AsyncClient, server: Redis) -> None:
    tickets = [await client.submit(LANE, **CANCEL) for _ in range(50)]
    settle(server, *[ticket.id for ticket in reversed(tickets)])
    for ticket in tickets:
        assert (await ticket.outcome(10)).id == ticket.id
    assert reads_of(server) <= 2


async def test_each_lane_has_a_reader_of_its_own(client: AsyncClient, server: Redis) -> None:
    open_lane(server, OTHER_LANE)
    tickets = [await client.submit(lane, **CANCEL) for lane in (LANE, OTHER_LANE)]
    waiting = asyncio.ensure_future(client.wait_all(tickets, 60))
    await until(lambda: int(server.info("clients")["blocked_clients"]) == 2)
    for ticket in tickets:
        settle(server, ticket.id, lane=ticket.lane)
    assert [event.venue for event in await waiting] == ["bitget", "bybit"]


async def test_no_event_in_time_is_told_by_id_and_harms_no_other_waiter(client: AsyncClient, server: Redis) -> None:
    ticket = await client.submit(LANE, **CANCEL)
    patient = asyncio.ensure_future(ticket.outcome(60))
    with pytest.raises(OutcomeTimeout, match=ticket.id):
        await ticket.outcome(0.01)
    impatient = asyncio.ensure_future(ticket.outcome(60))
    await until(lambda: somebody_waits(server))
    impatient.cancel()
    settle(server, ticket.id)
    assert (await patient).status is Status.cancelled
    assert ticket.event is not None


async def test_a_repeated_id_finds_the_outcome_of_the_first(redis_url: str, client: AsyncClient, server: Redis) -> None:
    await client.submit(LANE, id="k", **CANCEL)
    settle(server, "k", status="filled")
    settle(server, *[f"other{at}" for at in range(2 * PAGE)])
    async with AsyncClient(redis_url) as after_a_restart:
        again = await after_a_restart.submit(LANE, id="k", **CANCEL)
        settle(server, "k", status="duplicate", final="0")
        assert (await again.outcome(10)).status is Status.filled


async def test_an_outcome_of_a_later_version_is_told_not_awaited(client: AsyncClient, server: Redis) -> None:
    ticket = await client.submit(LANE, **CANCEL)
    settle(server, ticket.id, status="vanished")
    with pytest.raises(EventError, match="newer version"):
        await ticket.outcome(10)


async def test_events_are_read_and_followed(client: AsyncClient, server: Redis) -> None:
    settle(server, *[f"k{at}" for at in range(PAGE + 5)])
    assert [event.id async for event in client.events(LANE)] == [f"k{at}" for at in range(PAGE + 5)]

    async def first_new() -> str:
        async for event in client.events(LANE, "$", follow=True):
            return event.id
        return "none"

    following = asyncio.ensure_future(first_new())
    await until(lambda: somebody_waits(server))
    settle(server, "new")
    assert await following == "new"


async def test_closing_ends_the_readers_and_tells_who_waits(redis_url: str, server: Redis) -> None:
    client = AsyncClient(redis_url)
    ticket = await client.submit(LANE, **CANCEL)
    waiting = asyncio.ensure_future(ticket.outcome(60))
    await until(lambda: somebody_waits(server))
    await client.aclose()
    with pytest.raises(CancelqError, match="closed"):
        await waiting
    await until(lambda: not somebody_waits(server))


async def test_the_reader_ends_with_the_last_waiter(redis_url: str, server: Redis) -> None:
    async with AsyncClient(redis_url) as client:
        ticket = await client.submit(LANE, **CANCEL)
        settle(server, ticket.id)
        await ticket.outcome(10)
        await until(lambda: not any("cancelq" in task.get_name() for task in asyncio.all_tasks()))


async def test_a_server_that_is_not_there_is_told_at_once() -> None:
    async with AsyncClient(f"redis://127.0.0.1:{free_port()}") as client:
        with pytest.raises(BrokerDown, match="nothing was sent"):
            await client.submit(LANE, **CANCEL)
        with pytest.raises(BrokerDown, match="nothing was sent"):
            await client.submit_many(LANE, [CANCEL] * 3)


async def test_a_user_who_may_not_read_results_is_told_at_once(redis_server: RedisServer) -> None:
    with redis_server.client() as server:
        open_lane(server)
        server.execute_command("ACL", "SETUSER", "desk", "on", ">pw", f"~{LANE.inbox}", "+xadd")
    async with AsyncClient(redis_server.url.replace("redis://", "redis://desk:pw@")) as client:
        tickets = await client.submit_many(LANE, [CANCEL] * 3)
        with pytest.raises(BrokerRefused, match="NOPERM"):
            await client.wait_all(tickets, 60)
        with pytest.raises(BrokerRefused, match="NOPERM"):
            await tickets[0].outcome(60)


async def test_waiting_goes_on_when_the_server_comes_back(redis_server: RedisServer) -> None:
    with redis_server.client() as server:
        open_lane(server)
        async with AsyncClient(redis_server.url) as client:
            ticket = await client.submit(LANE, **CANCEL)
            waiting = asyncio.ensure_future(ticket.outcome(60))
            await until(lambda: somebody_waits(server))
            redis_server.kill9()
            redis_server.restart()
            with redis_server.client() as server_again:
                settle(server_again, ticket.id)
            assert (await waiting).id == ticket.id
