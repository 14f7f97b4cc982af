"""The short way to Redis: connections that are free and in order, one command with its reply as it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio as aioredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from cancelq_worker.trips import ask, connect, round_trip

pytestmark = pytest.mark.one_server


async def taken(pool: aioredis.ConnectionPool) -> AbstractConnection:
    connection: AbstractConnection = await pool.get_connection()  # type: ignore[no-untyped-call]
    return connection


@asynccontextmanager
async def clients(redis_url: str, **options: Any) -> AsyncIterator[tuple[aioredis.Redis, aioredis.Redis]]:
    """One under test, and another one."""
    one, other = connect(redis_url, **options), connect(redis_url)
    try:
        yield one, other
    finally:
        for client in (one, other):
            await client.aclose()


async def test_a_reply_comes_as_the_server_gave_it(redis_url: str) -> None:
    async with clients(redis_url) as (one, _):
        assert await ask(one, "HSET", "h", "a", "1") == 1
        assert await ask(one, "HGETALL", "h") == [b"a", b"1"]


async def test_what_the_server_refuses_is_raised(redis_url: str) -> None:
    async with clients(redis_url) as (one, _):
        with pytest.raises(ResponseError, match="unknown command"):
            await ask(one, "NO-SUCH-COMMAND")
        assert await ask(one, "PING") == b"PONG"


async def test_commands_that_follow_each_other_share_a_connection(redis_url: str) -> None:
    async with clients(redis_url) as (one, _):
        assert len({await ask(one, "CLIENT", "ID") for _ in range(5)}) == 1


async def test_a_connection_that_the_server_closed_is_not_used_again(redis_url: str) -> None:
    async with clients(redis_url) as (one, other):
        gone = await ask(one, "CLIENT", "ID")
        assert await ask(other, "CLIENT", "KILL", "ID", gone) == 1
        pool = one.connection_pool
        (kept,) = pool._available_connections
        async with asyncio.timeout(5):
            while not await kept.can_read():  # the end has to get here
                await ask(other, "PING")
        assert await ask(one, "CLIENT", "ID") != gone


async def test_a_connection_with_a_reply_that_nobody_read_is_not_used_as_it_is(redis_url: str) -> None:
    """The next command would take that reply for its own."""
    async with clients(redis_url) as (one, other):
        pool = one.connection_pool
        connection = await taken(pool)
        await connection.send_command("ECHO", "before")
        async with asyncio.timeout(5):
            while not await connection.can_read():
                await ask(other, "PING")
        await pool.release(connection)
        assert await ask(one, "ECHO", "now") == b"now"


async def test_no_more_connections_are_used_than_there_may_be(redis_url: str) -> None:
    async with clients(redis_url, max_connections=1) as (one, _):
        pool = one.connection_pool
        for _ in range(2):  # a new one, and one that was free
            connection = await taken(pool)
            task = asyncio.ensure_future(ask(one, "PING"))
            await asyncio.wait({task}, timeout=0.05)
            assert not task.done()
            await pool.release(connection)
            assert await task == b"PONG"


async def test_whoever_waits_for_a_connection_gets_it(redis_url: str) -> None:
    order: list[int] = []

    async def wait(client: aioredis.Redis, number: int) -> None:
        connection = await taken(client.connection_pool)
        order.append(number)
        await client.connection_pool.release(connection)

    async with clients(redis_url, max_connections=1) as (one, other):
        connection = await taken(one.connection_pool)
        tasks = [asyncio.ensure_future(wait(one, number)) for number in range(5)]
        await ask(other, "PING")
        await one.connection_pool.release(connection)
        tasks.append(asyncio.ensure_future(wait(one, 5)))
        await asyncio.gather(*tasks)
        assert sorted(order) == [0, 1, 2, 3, 4, 5]


async def test_a_client_of_another_making_goes_the_librarys_way(redis_url: str) -> None:
    plain = aioredis.Redis.from_url(redis_url, protocol=2)
    try:
        assert await ask(plain, "PING")
        with pytest.raises(ResponseError):
            await ask(plain, "NO-SUCH-COMMAND")
    finally:
        await plain.aclose()


async def test_a_trip_that_was_broken_off_leaves_nothing_for_the_next_one(redis_url: str) -> None:
    async with clients(redis_url, max_connections=1) as (one, other):
        for _ in range(3):
            task = asyncio.ensure_future(round_trip(one, [("BLPOP", "nobody", "5"), ("ECHO", "before")]))
            await asyncio.wait({task}, timeout=0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await ask(one, "ECHO", "now") == b"now"
        assert await ask(other, "PING") == b"PONG"


async def test_that_no_server_is_there_is_raised() -> None:
    client = connect("redis://127.0.0.1:1/0")
    with pytest.raises((RedisConnectionError, OSError)):
        await ask(client, "PING")
    await client.aclose()
