"""As `broker`, for asyncio: the same URLs, the same words, connections that wait."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import redis.asyncio as aioredis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.connection import Connection as PlainConnection
from redis.asyncio.connection import SSLConnection as TlsConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from cancelq.broker import (
    FOLLOWED_MOST,
    NOT_HERE,
    Broker,
    Elections,
    Elsewhere,
    Place,
    Reply,
    SlotMap,
    for_every_node,
    key_of,
    led_class,
    one_home,
    slot_of,
    unknown,
)
from cancelq.tls import async_welcomed

# After the first sentinel's answer, how much longer the others are waited for.
OTHERS_S = 0.1
# How often a client that follows its master asks where that is.
FOLLOW_EVERY_S = 1.0


class AsyncGuide:
    """As `Guide`."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.pools: WeakSet[aioredis.ConnectionPool] = WeakSet()
        self._map: SlotMap | None = None
        self._seeds = list(broker.seeds)
        self._elections = Elections(len(broker.seeds))
        self._asking = asyncio.Lock()

    def doubt(self) -> None:
        """What was told last led nowhere."""
        self._map = None

    async def places(self, slot: int | None) -> Sequence[Place]:
        """As `Guide.places`."""
        if self.broker.kind == "sentinel":
            return (await self.master(),)
        async with self._asking:
            if self._map is None:
                self._map = await self._read_map()
            known = self._map
        return known.nodes if slot is None else (known.holder(slot),)

    async def master(self) -> Place:
        """Where the sentinels say the master is; `RedisConnectionError` if none of them answers."""
        waiting: dict[asyncio.Future[Reply], Place] = {
            asyncio.ensure_future(self._ask(place)): place for place in self._seeds
        }
        replies: list[Reply] = []
        troubles: list[str] = []
        try:
            left: set[asyncio.Future[Reply]] = set(waiting)
            until_s: float | None = None
            while left:
                # Those that are late by a little may know of a failover that the quick ones have not heard of yet.
                enough = until_s is not None and not self._elections.behind(replies)
                patience_s = max(0.0, until_s - time.monotonic()) if until_s and enough else None
                done, left = await asyncio.wait(left, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                for task in done:
                    if trouble := task.exception():
                        if not isinstance(trouble, RedisError | OSError):
                            raise trouble
                        troubles.append(f"{waiting[task]}: {trouble}")
                    else:
                        replies.append(task.result())
                        until_s = until_s or time.monotonic() + OTHERS_S
        finally:
            for task in waiting:
                task.cancel()
        if not replies:
            raise unknown(self.broker, troubles)
        return self._elections.judge(replies)

    async def follow(self) -> None:
        """Looks after the master until cancelled: when the sentinels name another one, every connection to the old one
        is ended, also where it is still alive and does not know yet."""
        before: Place | None = None
        while True:
            now = before
            with suppress(RedisError, OSError):
                now = await self.master()
            if before is not None and now != before:
                await self.drop()
            before = now
            await asyncio.sleep(FOLLOW_EVERY_S)

    async def drop(self) -> None:
        """Ends every connection, so that the next ones are made to whatever is the right server then."""
        for pool in list(self.pools):
            await pool.disconnect(inuse_connections=True)

    async def _read_map(self) -> SlotMap:
        troubles: list[str] = []
        for place in list(self._seeds):
            try:
                found = SlotMap(await self._ask(place), place)
            except (RedisError, OSError) as trouble:
                troubles.append(f"{place}: {trouble}")
                self._seeds.remove(place)
                self._seeds.append(place)
                continue
            if found:
                return found
        raise unknown(self.broker, troubles)

    async def _ask(self, place: Place) -> Reply:
        one = aioredis.Redis.from_pool(aioredis.ConnectionPool(**_for_asyncio(self.broker.asking(place))))
        one.response_callbacks.clear()  # as the server gave it
        try:
            reply: Reply = await one.execute_command(*self.broker.question)  # type: ignore[no-untyped-call]
            return reply
        finally:
            await one.aclose()


class _Led(AbstractConnection):
    """A connection that asks its guide where to go whenever it connects."""

    def __init__(self, *, guide: AsyncGuide, slot: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._guide = guide
        self._slot = slot

    async def _connect(self) -> None:
        trouble: OSError | None = None
        for place in await self._guide.places(self._slot):
            self.host, self.port = place
            try:
                await super()._connect()  # type: ignore[safe-super, no-untyped-call]
                return
            except OSError as failed:
                trouble = failed
                self._guide.doubt()
        raise trouble or OSError("no server to connect to")


class _Heeding(_Led):
    """… and leaves a server that says that it is not the one."""

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except NOT_HERE as said:
            self._guide.doubt()
            await self.disconnect(nowait=True)
            raise Elsewhere(f"{self.host}:{self.port} is not the server for this any more: {said}") from said


def led_pool(
    guide: AsyncGuide,
    slot: int | None = None,
    *,
    heeding: bool = False,
    pool: type[aioredis.ConnectionPool] = aioredis.ConnectionPool,
    over: Sequence[type] = (),
    **options: Any,
) -> aioredis.ConnectionPool:
    """As `broker.led_pool`; a pool of class `pool`, of connections with the classes `over` theirs."""
    kept = _for_asyncio({**options, **guide.broker.options})
    plain = kept.pop("connection_class", PlainConnection)
    led = led_class(_Heeding if heeding else _Led, plain, over)
    made = pool(connection_class=led, guide=guide, slot=slot, **kept)
    guide.pools.add(made)
    return made


def client(url: str, **options: Any) -> aioredis.Redis:
    """As `broker.client` without `heeding`."""
    broker = Broker.read(url)
    options = {"retry": Retry(NoBackoff(), 0), "redis_connect_func": async_welcomed if broker.tls else None, **options}
    if broker.kind == "server":
        return aioredis.Redis.from_url(broker.plain, **options)
    return aioredis.Redis.from_pool(led_pool(AsyncGuide(broker), **options))


class AsyncClusterRedis(aioredis.Redis):
    """As `ClusterRedis`. `make` makes the pool of a slot, of any node for None."""

    def __init__(self, guide: AsyncGuide, make: "MakePool") -> None:
        self.guide = guide
        self._make = make
        self._homes: dict[int, HomeRedis] = {}
        self._nodes: dict[Place, aioredis.Redis] = {}
        super().__init__(connection_pool=make(None))

    def home(self, key: str | bytes) -> "HomeRedis":
        """The client of the node that holds this key, wherever that moves."""
        slot = slot_of(key)
        if slot not in self._homes:
            made = HomeRedis(connection_pool=self._make(slot))
            made.response_callbacks = self.response_callbacks
            self._homes[slot] = made
        return self._homes[slot]

    async def nodes(self) -> list[aioredis.Redis]:
        """A client of each node that holds slots now."""
        places = await self.guide.places(None)
        for place in places:
            if place not in self._nodes:
                self._nodes[place] = aioredis.Redis(connection_pool=self._make.at(place))
        return [self._nodes[place] for place in places]

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        key = key_of(args)
        if key is None and for_every_node(args):
            replies = [await node.execute_command(*args, **options) for node in await self.nodes()]  # type: ignore[no-untyped-call]
            return replies[0]
        if key is None:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        for nth in range(1, FOLLOWED_MOST + 1):
            try:
                return await self.home(key).execute_command(*args, **options)  # type: ignore[no-untyped-call]
            except Elsewhere:
                if nth == FOLLOWED_MOST:
                    raise
        raise AssertionError("unreachable")

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        return _OneHome(self, transaction)

    async def scan_iter(self, *args: Any, **options: Any) -> AsyncIterator[Any]:  # type: ignore[override] # as it is
        for node in await self.nodes():
            async for key in node.scan_iter(*args, **options):
                yield key

    async def aclose(self, *args: Any, **options: Any) -> None:
        for made in (*self._homes.values(), *self._nodes.values(), self):
            await made.connection_pool.disconnect()
        await super().aclose(*args, **options)


class HomeRedis(aioredis.Redis):
    """A client of whichever node holds one slot of a cluster."""


class MakePool:
    """How the pools of a cluster's slots are made."""

    def __init__(self, guide: AsyncGuide, options: Mapping[str, Any]) -> None:
        self._guide = guide
        self._options = options

    def __call__(self, slot: int | None) -> aioredis.ConnectionPool:
        return led_pool(self._guide, slot, heeding=slot is not None, **self._options)

    def at(self, place: Place) -> aioredis.ConnectionPool:
        """A pool of one node."""
        kept = _for_asyncio({**self._options, **self._guide.broker.options, **place._asdict()})
        made: type[aioredis.ConnectionPool] = kept.pop("pool", aioredis.ConnectionPool)
        plain = kept.pop("connection_class", PlainConnection)
        return made(connection_class=type("NodeConnection", (*kept.pop("over", ()), plain), {}), **kept)


class _OneHome(aioredis.client.Pipeline):
    """A pipeline of one lane's keys."""

    def __init__(self, cluster: AsyncClusterRedis, transaction: bool) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, None)
        self._cluster = cluster

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        if self.command_stack:
            key = one_home([args for args, _ in self.command_stack])
            self.connection_pool = self._cluster.home(key).connection_pool
        return await super().execute(raise_on_error)


def _for_asyncio(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same options for redis-py's asyncio side, whose connections are classes of their own."""
    return {**options, **({"connection_class": TlsConnection} if "connection_class" in options else {})}
