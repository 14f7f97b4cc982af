"""Trips to the server that holds a lane: clients of whatever a URL names, and commands that are sent once.

A cluster is one client whose commands find their node; what goes together is sent together.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import hiredis
import redis.asyncio as aioredis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from cancelq.broker import Broker, key_of, never_there
from cancelq.broker_async import AsyncClusterRedis, AsyncGuide, HomeRedis, MakePool, led_pool
from cancelq.tls import async_welcomed

RawEntry = tuple[str, list[bytes]]

#: How long a round may wait for a connection of this process' own: that many lanes share a few is no fault of Redis.
POOL_WAIT_S = 10.0


def connect(source: str | AsyncGuide, *, max_connections: int = 8, timeout_s: float = 2.5) -> aioredis.Redis:
    """A client that never repeats a command by itself and answers raw bytes (RESP2), of what a URL names; clients that
    share a guide share what it knows of sentinels or a cluster. Raises UrlError."""
    guide = AsyncGuide(Broker.read(source)) if isinstance(source, str) else source
    options: dict[str, Any] = {
        "timeout": POOL_WAIT_S,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "driver_info": None,  # as in cancelq.link.options
        "redis_connect_func": async_welcomed if guide.broker.tls else None,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": 2.0,
        "max_connections": max_connections,
        "health_check_interval": 0,
    }
    client = _client(guide, options)
    # The stock callback makes dicts of entries and so hides repeated fields; we read them ourselves.
    client.response_callbacks.pop("XREAD", None)
    return client


def _client(guide: AsyncGuide, options: dict[str, Any]) -> aioredis.Redis:
    how: dict[str, Any] = {"pool": _Connections, "over": (_Packed,), **options}
    match guide.broker.kind:
        case "cluster":
            return AsyncClusterRedis(guide, MakePool(guide, how))
        case "sentinel":
            return aioredis.Redis.from_pool(led_pool(guide, heeding=True, **how))
        case "server":
            pool = _Connections.from_url(guide.broker.plain, **options)
            pool.connection_class = type("PackedConnection", (_Packed, pool.connection_class), {})
            return aioredis.Redis.from_pool(pool)


async def command(client: aioredis.Redis, *args: Any) -> Any:
    """One command, its reply as the server gave it. redis-py's own method for this is not typed."""
    return await client.execute_command(*args)  # type: ignore[no-untyped-call]


async def ask(client: aioredis.Redis, *args: Any) -> Any:
    """The same by the short way, where the client is one of `connect`: what redis-py does around a command takes as
    long as the command. Raises RedisError, also for what the server refused, and OSError."""
    if isinstance(client, AsyncClusterRedis) or not isinstance(client.connection_pool, _Connections):
        return await command(client, *args)
    (reply,) = await ask_all(client, [args])
    return reply


async def ask_all(client: aioredis.Redis, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The replies to commands sent as one write. Raises RedisError, also for what the server refused, and OSError."""
    replies = await round_trip(client, commands)
    if refused := next((reply for reply in replies if isinstance(reply, RedisError)), None):
        raise refused
    return replies


async def round_trip(
    client: aioredis.Redis,
    commands: Sequence[tuple[Any, ...]],
    then: Callable[[list[Any]], tuple[Any, ...] | None] = lambda _: None,
) -> list[Any]:
    """The replies to commands sent as one write, refusals among them as exceptions. Raises RedisError or OSError
    if not every reply came: then nothing is known. `then` may name one more command by the replies, which is sent on
    the same connection; its reply is the last.

    redis-py's own pipeline spends as long on this as the server: it keeps a time-out for every reply, and
    callbacks that nobody wants here.
    """
    if not commands:
        return []
    if isinstance(client, AsyncClusterRedis):
        return await _trips(client, commands)
    pool = client.connection_pool
    connection = await pool.get_connection()  # type: ignore[no-untyped-call]
    replies: list[Any] = []
    try:
        async with asyncio.timeout(connection.socket_timeout):
            await _exchange(connection, commands, replies)
            if last := then(replies):
                await _exchange(connection, [last], replies)
    except BaseException:
        # The next user of this connection would read our replies.
        await connection.disconnect(nowait=True)
        raise
    finally:
        await pool.release(connection)
    return replies


async def _exchange(connection: AbstractConnection, commands: Sequence[tuple[Any, ...]], replies: list[Any]) -> None:
    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
    for _ in commands:
        try:
            reply = await connection.read_response(disable_decoding=True, timeout=math.inf, disconnect_on_error=False)
        except ResponseError as refused:
            reply = refused
        replies.append(reply)


async def _trips(client: AsyncClusterRedis, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The same in a cluster: one trip for each slot, side by side. A node that is away is an error in place of each of
    its replies; that all are is raised."""
    parts = by_home(client, commands)
    trips = (round_trip(home, [commands[n] for n in places]) for home, places in parts)
    told = await asyncio.gather(*trips, return_exceptions=True)
    lost = [part for part in told if isinstance(part, BaseException)]
    if len(lost) == len(told) or not all(isinstance(one, RedisError | OSError) for one in lost):
        raise lost[0]
    replies: list[Any] = [None] * len(commands)
    for (_, places), part in zip(parts, told, strict=True):
        away = RedisConnectionError(str(part)) if isinstance(part, BaseException) else None
        for n, place in enumerate(places):
            replies[place] = away if away or isinstance(part, BaseException) else part[n]
    return replies


def home(client: aioredis.Redis, key: str | bytes) -> aioredis.Redis:
    """The client to be used for everything under this key's hash tag: of a cluster, that of the key's node."""
    return client.home(key) if isinstance(client, AsyncClusterRedis) else client


def by_home(client: aioredis.Redis, commands: Sequence[tuple[Any, ...]]) -> list[tuple[aioredis.Redis, list[int]]]:
    """Which of the commands go together, and the client for them; all, unless they are for a cluster."""
    if not isinstance(client, AsyncClusterRedis):
        return [(client, list(range(len(commands))))]
    parts: dict[aioredis.Redis, list[int]] = {}
    for n, words in enumerate(commands):
        parts.setdefault(home(client, key_of(words) or ""), []).append(n)
    return list(parts.items())


def script_keys(client: aioredis.Redis, *keys: str) -> tuple[int | str, ...]:
    """A script's keys, with their number before them; in a cluster with one that is never there (`never_there`)."""
    if "}" in keys[0] and isinstance(client, AsyncClusterRedis | HomeRedis):
        keys = (*keys, never_there(keys[0]))
    return len(keys), *keys


def read_entries(reply: Any) -> dict[str, list[RawEntry]]:
    """An XREAD reply by stream key."""
    if not reply:
        return {}
    return {key.decode(): [(entry_id.decode(), flat or []) for entry_id, flat in entries] for key, entries in reply}


def is_memory_full(error: object) -> bool:
    """Whether Redis refused a script because its memory is full."""
    return isinstance(error, OutOfMemoryError) or (isinstance(error, ResponseError) and "OOM" in str(error))


class _Connections(aioredis.BlockingConnectionPool):
    """redis-py's pool, with a short way to a connection that is free and in order: the library's own takes longer than
    sending a round. Where somebody waits, all go the library's way."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._going_round = 0

    async def get_connection(self, *args: Any, **options: Any) -> AbstractConnection:
        if self._available_connections and not self._going_round:
            connection: AbstractConnection = self._available_connections.pop()
            self._in_use_connections.add(connection)
            with contextlib.suppress(RedisError, OSError):
                if connection.is_connected and not await connection.can_read():  # else it was closed, or is out of step
                    return connection
            self._in_use_connections.remove(connection)
            self._available_connections.append(connection)
        self._going_round += 1
        try:
            return await super().get_connection(*args, **options)  # type: ignore[no-any-return, no-untyped-call]
        finally:
            self._going_round -= 1

    async def release(self, connection: AbstractConnection) -> None:
        if self._going_round or connection.should_reconnect():  # type: ignore[no-untyped-call]
            await super().release(connection)
            return
        self._in_use_connections.remove(connection)
        self._available_connections.append(connection)


class _Packed(AbstractConnection):
    """A connection that packs commands in C: redis-py's asyncio side does it in Python, which at 130 arguments
    an intent was half of a worker's processor time."""

    def pack_command(self, *args: Any) -> list[bytes]:
        name, *rest = args  # a name of two words ("SCRIPT LOAD") is two arguments to the server
        return [hiredis.pack_command((*name.split(), *rest))]

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        return [piece for args in commands for piece in self.pack_command(*args)]

    # uvloop reports a connection that died under its feet as a RuntimeError: one border for it, here.

    async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        task = asyncio.current_task()
        asked = task.cancelling() if task else 0
        try:
            await super().send_packed_command(*args, **kwargs)
        except RuntimeError as error:
            raise RedisConnectionError(f"connection lost: {error}") from error
        if task and task.cancelling() > asked:
            # The library waits by asyncio.wait_for, and that loses a cancellation which comes just as the bytes have
            # left (Python 3.11): a worker told to end would wait for such a task for ever.
            await self.disconnect(nowait=True)
            raise asyncio.CancelledError

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)
        except RuntimeError as error:
            raise RedisConnectionError(f"connection lost: {error}") from error

    async def can_read(self) -> bool:
        try:
            return bool(await super().can_read())
        except RuntimeError as error:
            raise RedisConnectionError(f"connection lost: {error}") from error

    async def disconnect(self, *args: Any, **kwargs: Any) -> None:
        with contextlib.suppress(RuntimeError):
            await super().disconnect(*args, **kwargs)
